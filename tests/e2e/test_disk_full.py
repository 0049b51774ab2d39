"""A disk that is full in the middle of a run, as a person meets it: said at once, stopped in order, the log whole."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

import pytest

from e2e.fleet import make_repository, run_disturbed, run_json
from fakes.processes import alive, processes_naming

SPEC = """\
metadata: {name: writer}
spec: {name: Writer, domain: test}
tasks: {default: [{description: Write notes on the documentation}, {description: Write notes on the source}]}
security: {sandbox: true, capabilities_required: [filesystem-read, filesystem-write]}
"""


@pytest.mark.slow
def test_the_run_stops_and_says_so_and_the_next_one_finds_its_log_whole(tmp_path: Path) -> None:
    spec = tmp_path / "writer.yaml"
    spec.write_text(SPEC)
    state, workspace = tmp_path / "state", make_repository(tmp_path / "project")

    def fill(process: subprocess.Popen[str]) -> None:
        # EFBIG from write(2), for the runtime alone: the nearest to a full disk that needs no rights.
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))

    arguments = (spec, "--workspace", workspace, "--state-dir", state, "--rehearsal-delay", "0.05")
    ran = run_disturbed(*arguments, home=tmp_path, disturb=fill)
    assert ran.code == 3, ran.stderr[-3000:]
    assert "Traceback" not in ran.stderr
    (told,) = [e for e in ran.of("runtime.noticed") if e["event"]["code"].startswith("store.")]
    assert not told["durable"]
    assert told["event"]["level"] == "error"
    assert "free some space" in ran.stderr or told["event"]["hint"] in ran.stderr
    assert "events could not be written" in ran.stderr
    after = ran.envelopes[ran.envelopes.index(told) :]
    assert [e for e in after if e["durable"]] == []
    assert alive(ran.pids()) == set()
    assert processes_naming(str(state)) == []

    again = run_json(spec, "--workspace", workspace, "--provider", "rehearsal", "--state-dir", state, home=tmp_path)
    assert again.code == 0, again.stderr[-2000:]
    last = max(e["seq"] for e in ran.envelopes if e["durable"])
    first = min(e["seq"] for e in again.envelopes if e["durable"])
    assert first > last, "no sequence number is given twice"
    assert again.final_states() == {"writer": "completed"}
