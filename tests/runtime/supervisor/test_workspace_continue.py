"""Restarts: an agent's folder is continued whatever ended the last runtime, and nothing in it is lost."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from fakes.repositories import commit_files, git, make_repository
from fakes.specs import agent_spec
from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.errors import WorkspaceError
from toka_runtime.protocol.ids import RunId
from toka_runtime.supervisor.workspace import AgentWorkspace, Workspaces, linked
from toka_runtime.supervisor.workspace.layout import Layout, Record

SPEC = agent_spec(branch="topic")
RUN = RunId("r1")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "r")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


async def prepared(repository: Path, state: Path, spec: object = SPEC) -> tuple[Workspaces, AgentWorkspace]:
    """As a runtime just started would."""
    workspaces = Workspaces(repository, state)
    return workspaces, await workspaces.prepare(spec, RUN)  # type: ignore[arg-type]  # an AgentSpec


async def test_work_in_no_commit_yet_is_continued(repository: Path, state: Path) -> None:
    _, first = await prepared(repository, state)
    (first.path / "half").write_text("half a page\n")
    workspaces, second = await prepared(repository, state)
    assert second.path == first.path
    assert second.base_commit == first.base_commit
    assert "+half a page" in (await workspaces.diff(SPEC.name))[0]
    assert await workspaces.commit(SPEC, 0, "Half a page") is not None
    assert git(repository, "show", "topic:half") == "half a page"


async def test_diff_of_an_earlier_run_without_preparing(repository: Path, state: Path) -> None:
    _, first = await prepared(repository, state)
    (first.path / "half").write_text("half a page\n")
    assert "+half a page" in (await Workspaces(repository, state).diff(SPEC.name))[0]


async def test_locks_of_a_killed_run(repository: Path, state: Path) -> None:
    _, first = await prepared(repository, state)
    layout = Layout(repository, state)
    (layout.snapshot(SPEC.name) / "git/index.lock").write_text("")
    git(repository, "worktree", "lock", str(first.path))
    (first.path / "x").write_text("x")
    workspaces, second = await prepared(repository, state)
    assert second.path == first.path
    assert await workspaces.commit(SPEC, 0, "X") is not None


async def test_killed_while_it_made_the_worktree(repository: Path, state: Path) -> None:
    _, first = await prepared(repository, state)
    layout = Layout(repository, state)
    record = Record.load(layout.snapshot(SPEC.name))
    assert record is not None
    record.status = "creating"
    record.save(layout.snapshot(SPEC.name))
    (first.path / "README.md").unlink()  # not written yet when the power went
    git(repository, "worktree", "lock", str(first.path))  # as `git worktree add` does while it works
    workspaces, second = await prepared(repository, state)
    assert (second.path / "README.md").exists()
    assert await workspaces.commit(SPEC, 0, "Nothing") is None


async def test_cancelled_while_it_made_the_worktree(repository: Path, state: Path) -> None:
    workspaces = Workspaces(repository, state)
    await workspaces.check()
    task = spawn(workspaces.prepare(SPEC, RUN))
    worktrees = repository / ".git/worktrees"
    while not worktrees.exists():  # a git process is at work: yield to it
        await asyncio.sleep(0)
    await cancel_and_wait(task)
    second = await workspaces.prepare(SPEC, RUN)
    assert (second.path / "README.md").exists()
    assert await workspaces.commit(SPEC, 0, "Nothing") is None
    assert git(repository, "worktree", "list").count("\n") == 1


async def test_the_power_went_while_git_made_the_worktree(repository: Path, state: Path) -> None:
    _, first = await prepared(repository, state)
    record = Record("creating", "topic")
    record.save(Layout(repository, state).snapshot(SPEC.name))
    admin = repository / ".git/worktrees/scribe"
    (admin / "locked").write_text("initializing")
    (admin / "commondir").write_text("")
    with pytest.raises(AssertionError, match="commondir"):
        git(repository, "worktree", "list")
    _, second = await prepared(repository, state)
    assert (second.path / "README.md").exists()
    assert second.path == first.path


async def test_a_lock_that_stays(repository: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linked, "_LOCK_PAUSE_S", 0.001)
    monkeypatch.setattr(linked, "_LOCK_TRIES", 2)
    (repository / ".git/refs/heads/topic.lock").write_text("")
    with pytest.raises(WorkspaceError, match=r"topic\.lock") as caught:
        await prepared(repository, state)
    assert "remove the lock file" in caught.value.hint


async def test_the_folder_was_deleted(repository: Path, state: Path) -> None:
    workspaces, first = await prepared(repository, state)
    (first.path / "x").write_text("x")
    await workspaces.commit(SPEC, 0, "X")
    shutil.rmtree(first.path)
    _, second = await prepared(repository, state)
    assert (second.path / "x").read_text() == "x"


async def test_the_state_folder_was_deleted(repository: Path, state: Path) -> None:
    await prepared(repository, state)
    shutil.rmtree(state)
    _, second = await prepared(repository, state)
    assert (second.path / "README.md").exists()
    _, third = await prepared(repository, state.with_name("other state"), agent_spec("other"))
    assert (third.path / "README.md").exists()


async def test_a_stale_worktree_of_another_state_folder_is_no_hindrance(repository: Path, state: Path) -> None:
    await prepared(repository, state)
    shutil.rmtree(state)
    other = state.with_name("other")
    workspaces, second = await prepared(repository, other)
    (second.path / "x").write_text("x")
    assert await workspaces.commit(SPEC, 0, "X") is not None


async def test_files_that_nobody_remembers_are_set_aside(repository: Path, state: Path) -> None:
    _, first = await prepared(repository, state)
    (first.path / "precious").write_text("1")
    layout = Layout(repository, state)
    (layout.snapshot(SPEC.name) / "record.json").write_text("{broken")
    _, second = await prepared(repository, state)
    aside = first.path.with_name("scribe.left-1")
    assert (aside / "precious").read_text() == "1"
    assert second.notes == (f"files of an unknown earlier run were moved to {aside}",)
    assert not (second.path / "precious").exists()


async def test_the_repository_was_cloned_anew(repository: Path, state: Path) -> None:
    _, first = await prepared(repository, state)
    (first.path / "precious").write_text("1")
    shutil.rmtree(repository)
    make_repository(repository)
    _, second = await prepared(repository, state)
    assert (first.path.with_name("scribe.left-1") / "precious").exists()
    assert git(second.path, "status", "--porcelain") == ""


async def test_runtimes_own_git_folder_was_lost(repository: Path, state: Path) -> None:
    commit_files(repository, {"forced.log": "tracked though ignored\n"})
    _, first = await prepared(repository, state)
    (first.path / "x").write_text("x")
    shutil.rmtree(Layout(repository, state).snapshot(SPEC.name) / "git")
    workspaces, _ = await prepared(repository, state)
    done = await workspaces.commit(SPEC, 0, "X")
    assert done is not None
    assert git(repository, "diff", "--name-only", "main", "topic") == "x"


async def test_another_branch_in_the_spec(repository: Path, state: Path) -> None:
    _, first = await prepared(repository, state)
    (first.path / "half").write_text("1")
    _, second = await prepared(repository, state, agent_spec(branch="other"))
    assert second.branch == "other"
    assert not (second.path / "half").exists()
    assert git(repository, "show", "topic:half") == "1"
    assert "its work there is committed" in second.notes[0]
    assert git(second.path, "branch", "--show-current") == "other"


async def test_the_branch_was_deleted(repository: Path, state: Path) -> None:
    workspaces, first = await prepared(repository, state)
    (first.path / "x").write_text("x")
    done = await workspaces.commit(SPEC, 0, "X")
    assert done is not None
    git(repository, "update-ref", "-d", "refs/heads/topic")
    await prepared(repository, state)
    assert git(repository, "rev-parse", "topic") == done.commit
    git(repository, "update-ref", "-d", "refs/heads/topic")
    (first.path / "y").write_text("y")
    assert await workspaces.commit(SPEC, 1, "Y") is not None
    assert git(repository, "ls-tree", "--name-only", "topic").split() == [".gitignore", "README.md", "src", "x", "y"]


async def test_the_operator_moved_the_branch(repository: Path, state: Path) -> None:
    _, first = await prepared(repository, state)
    theirs = commit_files(repository, {"theirs": "1\n"})
    git(repository, "update-ref", "refs/heads/topic", theirs)
    (first.path / "mine").write_text("1")
    workspaces, second = await prepared(repository, state)
    assert (second.path / "theirs").exists(), "what they committed is there"
    await workspaces.commit(SPEC, 0, "Mine")
    assert git(repository, "diff", "--name-only", theirs, "topic") == "mine", "and is not taken back"


async def test_the_operator_moved_the_branch_over_open_work(repository: Path, state: Path) -> None:
    workspaces, first = await prepared(repository, state)
    theirs = commit_files(repository, {"README.md": "theirs\n"})
    git(repository, "update-ref", "refs/heads/topic", theirs)
    (first.path / "README.md").write_text("mine")
    with pytest.raises(WorkspaceError, match="was moved by somebody else"):
        await workspaces.commit(SPEC, 0, "Mine")
    with pytest.raises(WorkspaceError, match="was moved while"):
        await prepared(repository, state)
    assert (first.path / "README.md").read_text() == "mine"
    assert git(repository, "rev-parse", "topic") == theirs


async def test_the_operator_checked_the_branch_out_in_the_middle(repository: Path, state: Path, tmp_path: Path) -> None:
    workspaces, first = await prepared(repository, state)
    git(repository, "worktree", "add", "--quiet", "--force", str(tmp_path / "theirs"), "topic")
    before = git(repository, "rev-parse", "topic")
    (first.path / "x").write_text("x")
    with pytest.raises(WorkspaceError, match="is checked out at"):
        await workspaces.commit(SPEC, 0, "X")
    assert git(repository, "rev-parse", "topic") == before
    assert (first.path / "x").exists()


async def test_a_ref_locked_for_a_moment(repository: Path, state: Path) -> None:
    workspaces, first = await prepared(repository, state)
    (first.path / "x").write_text("x")
    lock = repository / ".git/refs/heads/topic.lock"
    lock.write_text("")
    asyncio.get_running_loop().call_later(0.3, lock.unlink)
    assert await workspaces.commit(SPEC, 0, "X") is not None


async def test_merged_work_is_no_longer_in_the_diff(repository: Path, state: Path) -> None:
    workspaces, first = await prepared(repository, state)
    (first.path / "x").write_text("x")
    await workspaces.commit(SPEC, 0, "X")
    git(repository, "merge", "--quiet", "topic")
    workspaces, _ = await prepared(repository, state)
    assert await workspaces.diff(SPEC.name) == ("", False)


async def test_two_workspaces_share_a_state_folder(repository: Path, state: Path, tmp_path: Path) -> None:
    other = make_repository(tmp_path / "elsewhere" / "r", {"other": "1"})
    _, first = await prepared(repository, state)
    _, second = await prepared(other, state)
    assert first.path != second.path
    assert (second.path / "other").exists()
    assert (first.path / "README.md").exists()


async def test_folders_made_read_only_are_removed_all_the_same(repository: Path, state: Path) -> None:
    workspaces, first = await prepared(repository, state)
    (first.path / "locked").mkdir()
    (first.path / "locked/x").write_text("x")
    await workspaces.commit(SPEC, 0, "X")
    (first.path / "locked").chmod(0o500)
    await workspaces.release(SPEC.name, remove=True)
    assert not first.path.exists()
    assert os.path.lexists(repository / "README.md")
