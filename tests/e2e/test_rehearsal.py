"""The main job: nine real specs, run as real processes, with the rehearsal in the model's place."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from e2e.fleet import Ran, git, make_repository, run_disturbed, run_json
from fakes.processes import alive, processes_naming

FIRST = "build-system-stabilization"


@pytest.fixture(scope="module")
def nine(toka_specs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, Path, Path]:
    home = tmp_path_factory.mktemp("nine")
    repository = make_repository(home / "project")
    state = home / "state"
    ran = run_json(toka_specs, "--workspace", repository, "--provider", "rehearsal", "--state-dir", state, home=home)
    return ran, repository, state


@pytest.mark.slow
def test_all_nine_complete_with_the_documented_exit_code(nine: tuple[Ran, Path, Path]) -> None:
    ran, _, _ = nine
    assert ran.code == 0, ran.stderr[-3000:]
    assert len(ran.final_states()) == 9
    assert set(ran.final_states().values()) == {"completed"}


@pytest.mark.slow
def test_the_foundation_completes_before_the_eight_that_need_it_start(nine: tuple[Ran, Path, Path]) -> None:
    ran, _, _ = nine
    done = ran.first("agent.state_changed", FIRST, after="completed")["seq"]
    starts = {
        name: ran.first("agent.state_changed", name, after="starting")["seq"]
        for name in ran.final_states()
        if name != FIRST
    }
    assert len(starts) == 8
    assert all(seq > done for seq in starts.values())


@pytest.mark.slow
def test_each_has_its_own_process_worktree_and_branch(nine: tuple[Ran, Path, Path]) -> None:
    ran, repository, _ = nine
    pids = [e["event"]["process"]["pid"] for e in ran.of("agent.process_started")]
    spaces = [e["event"] for e in ran.of("agent.workspace_ready")]
    assert len(pids) == len(set(pids)) == 9
    assert {space["mode"] for space in spaces} == {"worktree"}
    assert len({space["path"] for space in spaces}) == 9
    branches = {space["branch"] for space in spaces}
    assert len(branches) == 9
    existing = set(git(repository, "for-each-ref", "--format=%(refname:short)", "refs/heads").split())
    assert branches <= existing


@pytest.mark.slow
def test_each_is_refused_something_with_capability_target_and_rule(nine: tuple[Ran, Path, Path]) -> None:
    ran, _, _ = nine
    for name in ran.final_states():
        denials = [e["event"]["denial"] for e in ran.of("operation.denied", name)]
        assert denials, name
        for denial in denials:
            assert denial["operation"]["target"]
            assert denial["rule"]
            assert denial["layer"] == "policy"
        assert any(denial["capability"] for denial in denials), name


@pytest.mark.slow
def test_work_is_committed_by_the_agents_and_the_operators_changes_are_untouched(nine: tuple[Ran, Path, Path]) -> None:
    ran, repository, _ = nine
    assert "uncommitted words" in (repository / "README.md").read_text()
    assert git(repository, "status", "--porcelain") == " M README.md\n"
    assert git(repository, "log", "--format=%an", "main") == "Operator\n"
    committed = {e["agent"] for e in ran.of("agent.work_committed")}
    assert FIRST in committed
    branch = ran.first("agent.workspace_ready", FIRST)["event"]["branch"]
    assert "Operator" not in git(repository, "log", "--format=%an", f"main..{branch}")


@pytest.mark.slow
def test_no_process_is_left(nine: tuple[Ran, Path, Path]) -> None:
    ran, _, state = nine
    assert len(ran.pids()) == 18
    assert alive(ran.pids()) == set()
    assert processes_naming(str(state)) == []


@pytest.mark.slow
def test_sequence_numbers_have_no_gap_and_samples_ride_on_them(nine: tuple[Ran, Path, Path]) -> None:
    ran, _, _ = nine
    durable = [e["seq"] for e in ran.envelopes if e["durable"]]
    assert durable == list(range(durable[0], durable[0] + len(durable)))
    assert any(not e["durable"] for e in ran.envelopes)
    assert all(e["event"]["kind"] in {"agent.sampled", "host.sampled"} for e in ran.envelopes if not e["durable"])


@pytest.mark.slow
def test_rehearsal_is_said_loudly_and_uses_nothing(nine: tuple[Ran, Path, Path]) -> None:
    ran, _, _ = nine
    assert "REHEARSAL" in ran.stderr
    texts = [e["event"]["text"] for e in ran.of("output.appended") if e["event"]["stream"] == "model"]
    assert any("[rehearsal: no model]" in text for text in texts)
    usage = [e["event"]["usage"] for e in ran.of("model.call_ended")]
    assert usage
    assert all(not any(value for key, value in one.items() if key != "estimated") for one in usage)


@pytest.mark.slow
def test_reports_lie_in_the_state_folder_for_every_channel(nine: tuple[Ran, Path, Path]) -> None:
    ran, _, state = nine
    written = ran.of("agent.report_written", FIRST)
    assert {e["event"]["channel"] for e in written} == {"main-agent", "kernel-events"}
    path = Path(written[-1]["event"]["path"])
    assert path.is_relative_to(state)
    assert "dependency-conflicts" in path.read_text()


@pytest.mark.slow
def test_ctrl_c_stops_the_fleet_in_order_and_leaves_no_process(toka_specs: Path, tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "project")
    state = tmp_path / "state"
    ran = run_disturbed(
        *(toka_specs, "--workspace", repository, "--state-dir", state),
        home=tmp_path,
        disturb=lambda process: process.send_signal(signal.SIGINT),
    )
    assert ran.code == 130, ran.stderr[-2000:]
    assert ran.of("runtime.stopped")
    assert ran.final_states()[FIRST] == "killed"
    assert ran.of("agent.state_changed", FIRST)[-1]["event"]["reason"] == "shutdown"
    assert ran.pids()
    assert alive(ran.pids()) == set()
    assert processes_naming(str(state)) == []
