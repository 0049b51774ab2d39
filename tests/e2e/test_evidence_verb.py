"""`toka-runtime evidence` as a person at a shell uses it: made, checked, refused."""

from __future__ import annotations

import json
import tarfile
from datetime import UTC, datetime
from pathlib import Path

from e2e.test_serve import serving
from toka_runtime.client.incident import Incident, Note, Pinned, Step, save_incident
from toka_runtime.protocol.ids import AgentName, HostId


def entries(bundle: Path) -> dict[str, bytes]:
    with tarfile.open(bundle) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr] # files only


def test_a_bundle_is_made_checked_and_refused(tmp_path: Path) -> None:
    with serving(tmp_path, "alpha", "beta") as shell:
        shell("start", "alpha")
        bundle = tmp_path / "kept.tar.gz"
        (made,) = shell.json("evidence", "--agent", "alpha", "beta", "-o", str(bundle))
        assert made["bytes"] == bundle.stat().st_size
        # An agent that has not begun has no workspace to compare.
        assert all(": git diff: " in each for each in made["missing"])
        assert "is there already" in shell("evidence", "--agent", "alpha", "-o", str(bundle), code=2)
        assert "no agent nobody" in shell("evidence", "--agent", "nobody", "-o", str(tmp_path / "x"), code=2)
        assert not (tmp_path / "x").exists()
        assert "of whom" in shell("evidence", code=2)
        assert made["sha256"] in shell("evidence", "verify", str(bundle))
        assert {name.split("/")[2] for name in entries(bundle) if name.startswith("agents/")} == {"alpha", "beta"}
        whole = bundle.read_bytes()
        bundle.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        (verdict,) = shell.json("evidence", "verify", str(bundle), code=1)
        assert not verdict["ok"]
        assert "not as it was sealed" in verdict["problems"][0]
        assert "cannot be read" in shell("evidence", "verify", str(tmp_path / "none"), code=2)


def test_a_bundle_of_an_incident_has_its_steps_and_notes(tmp_path: Path) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    with serving(tmp_path, "alpha", "beta") as shell:
        state = shell.rows()["alpha"]
        pin = Pinned(host=HostId(str(state["host"])), agent=AgentName("alpha"))
        incident = Incident(
            id="i1", title="it loops", opened_at=at, opened_by="ann", agents=(pin,), notes=(Note(at=at, text="odd"),),
            steps={Step.FIND: at},
        )  # fmt: skip
        save_incident(tmp_path, incident)
        bundle = tmp_path / "kept.tar.gz"
        shell("evidence", "--incident", str(tmp_path / "i1.json"), "-o", str(bundle))
    found = entries(bundle)
    assert json.loads(found["incident.json"])["notes"][0]["text"] == "odd"
    report = found["REPORT.md"].decode()
    assert report.startswith("# Evidence: it loops\n")
    assert "contain: not done" in report
    assert {name.split("/")[2] for name in found if name.startswith("agents/")} == {"alpha"}
