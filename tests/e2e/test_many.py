"""A hundred agents at once: a process tree each, started in seconds, gone at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.fleet import run_json
from fakes.processes import alive, processes_naming

COUNT = 100
SPEC = """\
metadata: {{name: agent-{0:03}}}
spec: {{name: Agent {0}, domain: test}}
tasks: {{default: [{{description: look around}}]}}
security: {{sandbox: true, capabilities_required: [filesystem-read]}}
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_small_agents(tmp_path: Path) -> None:
    specs, folder, state = tmp_path / "specs", tmp_path / "project", tmp_path / "state"
    specs.mkdir()
    folder.mkdir()
    (folder / "README.md").write_text("# Small\n")
    for number in range(COUNT):
        (specs / f"{number:03}.yaml").write_text(SPEC.format(number))
    arguments = ("--workspace", folder, "--state-dir", state, "--provider", "rehearsal", "--max-agents", str(COUNT))
    ran = run_json(specs, *arguments, home=tmp_path, timeout=240)
    assert ran.code == 0, ran.stderr[-3000:]
    assert len(ran.final_states()) == COUNT
    assert set(ran.final_states().values()) == {"completed"}
    started = ran.of("agent.process_started")
    assert len({e["event"]["process"]["pid"] for e in started}) == COUNT
    assert len({e["event"]["worker_pid"] for e in started}) == COUNT
    first_end = min(e["seq"] for e in ran.of("agent.process_ended"))
    assert sum(e["seq"] < first_end for e in started) > 1, "at once, not one after another"
    assert all(e["event"]["survivors"] == [] for e in ran.of("agent.process_ended"))
    assert alive(ran.pids()) == set()
    assert processes_naming(str(state)) == []
