"""How runs end: exit codes of failure, other kinds of workspace, readers that go away."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.fleet import RUNTIME, Ran, environment, make_repository, run_json
from fakes.processes import alive, processes_naming

NOBODY = 65534
RIGHTS = "security: {sandbox: true, capabilities_required: [filesystem-read, filesystem-write, script-execution]}\n"


def write_spec(folder: Path, name: str, task: str, more: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(
        f"metadata: {{name: {name}}}\nspec: {{name: X, domain: test}}\ntasks: {{default: [{task}]}}\n{RIGHTS}{more}"
    )
    return path


def make_folder(path: Path) -> Path:
    """No git anywhere."""
    (path / "docs").mkdir(parents=True)
    (path / "README.md").write_text("# Plain\n")
    (path / "docs/guide.md").write_text("# Guide\n")
    return path


def digest(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(specs: Path, workspace: Path, home: Path, *more: str) -> Ran:
    arguments = ("--workspace", workspace, "--state-dir", home / "state", "--provider", "rehearsal", *more)
    return run_json(specs, *arguments, home=home)


@pytest.mark.slow
def test_a_check_that_fails_is_exit_code_one_and_dependants_are_skipped(tmp_path: Path) -> None:
    specs = tmp_path / "specs"
    write_spec(specs, "bad", "{description: look around, verify: 'test -e never-made'}")
    write_spec(specs, "proven", "{description: look around, verify: 'test -e README.md'}")
    write_spec(specs, "needs", "{description: look around}", "dependencies: {required: {bad: its work}}\n")
    write_spec(specs, "needs-too", "{description: look around}", "dependencies: {required: {needs: its work}}\n")
    ran = run(specs, make_repository(tmp_path / "project"), tmp_path)
    assert ran.code == 1
    assert ran.final_states() == {"bad": "failed", "proven": "completed", "needs": "skipped", "needs-too": "skipped"}
    last = {name: ran.of("agent.state_changed", name)[-1]["event"] for name in ran.final_states()}
    assert last["bad"]["reason"] == "task_failed"
    assert "never-made" in last["bad"]["detail"]
    assert last["needs"]["reason"] == last["needs-too"]["reason"] == "dependency_failed"
    assert "bad" in last["needs"]["detail"]
    assert {e["event"]["verdict"] for e in ran.of("objective.verified") + ran.of("task.verified")} <= {
        "failed",
        "verified",
    }
    assert {e["agent"] for e in ran.of("agent.process_started")} == {"bad", "proven"}
    assert "4 agents: 1 completed, 1 failed, 2 skipped" in ran.stderr
    assert alive(ran.pids()) == set()


@pytest.mark.slow
def test_a_folder_without_git_is_copied_and_left_as_it_is(tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "specs", "copier", "{description: Write notes on the documentation}")
    folder = make_folder(tmp_path / "project")
    before = digest(folder)
    ran = run(spec, folder, tmp_path)
    assert ran.code == 0, ran.stderr[-2000:]
    space = ran.first("agent.workspace_ready", "copier")["event"]
    assert space["mode"] == "copy"
    assert not Path(space["path"]).is_relative_to(folder)
    assert digest(folder) == before
    assert any(e["event"]["tool"] == "write_file" and e["event"]["outcome"] == "ok" for e in ran.of("tool.call_ended"))
    assert digest(Path(space["path"])) != before
    assert ran.pids()
    assert alive(ran.pids()) == set()
    assert processes_naming(str(tmp_path / "state")) == []


@pytest.mark.slow
@pytest.mark.parametrize("make", [make_folder, make_repository])
def test_in_place_works_on_the_folder_itself(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    spec = write_spec(tmp_path / "specs", "local", "{description: Write notes on the documentation}")
    folder = make(tmp_path / "project")
    if os.getuid() == 0:
        # Root's agents work in place as the folder's owner, never as root.
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    before = digest(folder)
    ran = run(spec, folder, tmp_path, "--in-place")
    assert ran.code == 0, ran.stderr[-2000:]
    space = ran.first("agent.workspace_ready", "local")["event"]
    assert (space["mode"], space["path"], space["branch"]) == ("in-place", str(folder), "")
    after = digest(folder)
    assert after != before, "what it wrote is in the folder"
    assert {path: after.get(path) for path in before} == before, "and nothing of the operator's is gone"
    assert alive(ran.pids()) == set()


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_the_run_and_leaves_no_process(tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "specs", "piped", "{description: look around}")
    state = tmp_path / "state"
    process = subprocess.Popen(
        [
            *(*RUNTIME, "run", str(spec), "--workspace", str(make_repository(tmp_path / "project"))),
            *("--provider", "rehearsal", "--rehearsal-delay", "0.2", "--state-dir", str(state)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert "provider rehearsal" in process.stdout.readline()
    process.stdout.close()
    stderr = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 141
    assert stderr == ""
    assert processes_naming(str(state)) == []


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root could work as root")
def test_in_place_as_root_in_roots_own_folder_is_refused_with_the_reason(tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "specs", "local", "{description: look around}")
    ran = run(spec, make_folder(tmp_path / "project"), tmp_path, "--in-place")
    assert ran.code == 3
    assert "sandbox.unavailable" in ran.stderr
    assert "ordinary user" in ran.stderr
    assert ran.of("agent.state_changed") == []
