"""`toka-runtime doctor`: what is printed, and what it ends with."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest

from toka_runtime.cli import doctor
from toka_runtime.cli.main import main
from toka_runtime.sandbox.probe import Area, Badge, Check, HostProbe, Strength, Tier


def found(*, sandbox: bool = True, reason: str = "") -> HostProbe:
    strengths = [Strength.ENFORCED, Strength.APPROXIMATE, Strength.NONE]
    badges = tuple(
        Badge(area=area, strength=strengths[number % 3], mechanism="walls", reason=reason, effect="it holds", fix="fix")
        for number, area in enumerate(Area)
    )
    return HostProbe(
        sandbox=sandbox,
        reason=reason,
        fix="allow it" if reason else "",
        tier=Tier.B if sandbox else Tier.D,
        tier_meaning="so and so",
        badges=badges,
        checks=(Check(name="namespace.pid", ok=sandbox, detail="created\x1b[2J", errno="" if sandbox else "EPERM"),),
        uid=0,
        kernel="6.18",
        machine="x86_64",
        duration_ms=12.3,
    )


def test_on_this_host() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "toka_runtime.cli.main", "doctor", "--json"], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    probe = HostProbe.model_validate(json.loads(done.stdout))
    assert done.returncode == (0 if probe.sandbox else 1)
    assert len(probe.checks) > 15
    assert [badge.area for badge in probe.badges] == list(Area)


def test_where_it_cannot_work_the_reason_and_the_fix_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "probe_host", lambda: found(sandbox=False, reason="unshare: EPERM"))
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "✗ sandbox: true does not work here" in shown
    assert "because: unshare: EPERM" in shown
    assert "fix: allow it" in shown
    assert main(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["reason"] == "unshare: EPERM"


def test_each_badge_has_a_mark_and_a_word_and_lines_fit() -> None:
    out = io.StringIO()
    doctor.print_probe(found(), out, verbose=True)
    shown = out.getvalue()
    for mark, word in (("●", "enforced"), ("◐", "approximate"), ("○", "none")):
        assert f"{mark} {word}" in shown
    assert "✓ yes namespace.pid" in shown
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 110


def test_names_in_the_json_are_stable() -> None:
    fields = {"format", "sandbox", "reason", "fix", "tier", "tier_meaning", "badges", "checks"}
    fields |= {"uid", "kernel", "machine", "duration_ms"}
    dumped = found().model_dump(mode="json")
    assert set(dumped) == fields
    assert set(dumped["badges"][0]) == {"area", "strength", "mechanism", "reason", "effect", "fix"}
    assert set(dumped["checks"][0]) == {"name", "ok", "detail", "errno", "duration_ms"}
    assert dumped["badges"][0]["strength"] == "enforced"
