"""A state folder belongs to one runtime at a time; the second is told whose it is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from e2e.fleet import RUNTIME, environment, make_repository, parse, run_json
from fakes.processes import alive, processes_naming

SPEC = "metadata: {{name: {0}}}\nspec: {{name: X, domain: test}}\ntasks: {{default: [{{description: look around}}]}}\n"


@pytest.mark.slow
def test_the_second_is_refused_and_the_first_not_disturbed(tmp_path: Path) -> None:
    spec = tmp_path / "good.yaml"
    spec.write_text(SPEC.format("good"))
    state = tmp_path / "state"
    first = subprocess.Popen(
        [
            *(*RUNTIME, "run", str(spec), "--workspace", str(make_repository(tmp_path / "one/project"))),
            *("--provider", "rehearsal", "--rehearsal-delay", "0.3", "--state-dir", str(state), "--json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
    )
    assert first.stdout is not None
    lines: list[str] = []
    for line in first.stdout:
        lines.append(line)
        if json.loads(line)["event"]["kind"] == "agent.process_started":
            break
    workspace = make_repository(tmp_path / "two/project")
    second = run_json(spec, "--workspace", workspace, "--provider", "rehearsal", "--state-dir", state, home=tmp_path)
    assert first.poll() is None, "the first was still at work"
    rest, stderr = first.communicate(timeout=60)

    assert second.code == 3
    assert "store.locked" in second.stderr
    assert f"pid {first.pid}" in second.stderr
    assert "--state-dir" in second.stderr
    assert "Traceback" not in second.stderr
    assert second.envelopes == []

    ran = parse(first.returncode, "".join(lines) + rest, stderr)
    assert ran.code == 0, stderr[-2000:]
    assert ran.final_states() == {"good": "completed"}
    durable = [e["seq"] for e in ran.envelopes if e["durable"]]
    assert durable == list(range(durable[0], durable[0] + len(durable)))
    assert alive(ran.pids()) == set()
    assert processes_naming(str(state)) == []
