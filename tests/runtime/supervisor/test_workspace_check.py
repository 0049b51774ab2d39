"""What is wrong with a workspace is said before anything is started, and nothing is changed by looking."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fakes.repositories import commit_files, git, make_repository, operator_state
from fakes.specs import agent_spec
from toka_runtime.errors import WorkspaceError
from toka_runtime.protocol.ids import RunId
from toka_runtime.supervisor.workspace import CopyLimits, Workspaces

NOBODY = 65534


async def refused(workspace: Path, state: Path, mode: str = "auto", limits: CopyLimits | None = None) -> WorkspaceError:
    with pytest.raises(WorkspaceError) as caught:
        await Workspaces(workspace, state, mode=mode, limits=limits).check()  # type: ignore[arg-type]  # a plain str
    assert not state.exists(), "a refused workspace must not leave a state folder"
    assert caught.value.hint
    return caught.value


async def mode_of(workspace: Path, state: Path, mode: str = "auto") -> str:
    workspaces = Workspaces(workspace, state, mode=mode)  # type: ignore[arg-type]  # a plain str
    await workspaces.check()
    return (await workspaces.prepare(agent_spec(), RunId("r1"))).mode


async def test_missing(tmp_path: Path) -> None:
    assert "does not exist" in (await refused(tmp_path / "nothing", tmp_path / "s")).message


async def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "not a folder" in (await refused(tmp_path / "file", tmp_path / "s")).message


async def test_the_state_folder_itself_or_below(tmp_path: Path) -> None:
    state = tmp_path / "state"
    inside = state / "worktrees"
    inside.mkdir(parents=True)
    for workspace in (state, inside):
        with pytest.raises(WorkspaceError, match="state folder"):
            await Workspaces(workspace, state).check()


@contextmanager
def without_privileges() -> Iterator[Path]:
    """A folder that belongs to another user, seen by one who is not root."""
    top = Path(tempfile.mkdtemp(prefix="toka-test-"))
    top.chmod(0o755)
    (top / "workspace").mkdir(mode=0o755)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(NOBODY)
        else:
            (top / "workspace").chmod(0o555)
        yield top
    finally:
        if root:
            os.seteuid(0)
        else:
            (top / "workspace").chmod(0o755)
        shutil.rmtree(top)


@pytest.mark.parametrize("mode", ["auto", "in-place"])
async def test_not_writable(mode: str) -> None:
    with without_privileges() as top:
        error = await refused(top / "workspace", top / "state", mode)
    assert "cannot be written" in error.message


async def test_bare_repository_and_git_folder(tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    git(tmp_path, "init", "--quiet", "--bare", str(bare))
    repository = make_repository(tmp_path / "r")
    for workspace in (bare, repository / ".git"):
        assert "bare repository or a git folder" in (await refused(workspace, tmp_path / "s")).message


async def test_repository_without_a_commit(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    git(tmp_path / "r", "init", "--quiet")
    error = await refused(tmp_path / "r", tmp_path / "s")
    assert "no commit yet" in error.message
    assert "git commit --allow-empty" in error.hint
    assert await mode_of(tmp_path / "r", tmp_path / "s", "in-place") == "in-place"


async def test_broken_repository(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "r")
    (repository / ".git/HEAD").unlink()
    assert "git cannot read" in (await refused(repository, tmp_path / "s")).message


async def test_no_git_on_this_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = make_repository(tmp_path / "r")
    (tmp_path / "plain").mkdir()
    monkeypatch.setenv("PATH", "/nonexistent")
    error = await refused(repository / "src", tmp_path / "s")
    assert "no git program" in error.message
    assert "install git" in error.hint
    assert await mode_of(repository, tmp_path / "s1", "in-place") == "in-place"
    assert await mode_of(tmp_path / "plain", tmp_path / "s2") == "copy"


async def test_too_large_to_copy(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in "abc":
        (plain / name).write_text("x" * 100)
    for limits in (CopyLimits(files=2), CopyLimits(bytes=250)):
        error = await refused(plain, tmp_path / "s", limits=limits)
        assert "too large to be copied" in error.message
    await Workspaces(plain, tmp_path / "s", limits=CopyLimits(files=3, bytes=300)).check()


async def test_looking_changes_nothing(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "r")
    (repository / "dirty.txt").write_text("mine")
    before = operator_state(repository)
    await Workspaces(repository, tmp_path / "s").check()
    assert operator_state(repository) == before
    assert git(repository, "branch", "--list") == "* main"


async def test_in_the_middle_of_a_rebase(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "r", {"a": "1\n"})
    git(repository, "switch", "--quiet", "--create", "topic")
    commit_files(repository, {"a": "2\n"})
    git(repository, "switch", "--quiet", "main")
    commit_files(repository, {"a": "3\n"})
    git(repository, "rebase", "topic", check=False)
    assert (repository / ".git/rebase-merge").exists()
    before = operator_state(repository)
    workspaces = Workspaces(repository, tmp_path / "s")
    prepared = await workspaces.prepare(agent_spec(), RunId("r1"))
    (prepared.path / "b").write_text("b")
    assert await workspaces.commit(agent_spec(), 0, "b") is not None
    assert operator_state(repository) == before


async def test_a_folder_that_the_repository_around_knows_nothing_of_is_copied(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "r")
    (repository / "scratch").mkdir()
    assert await mode_of(repository / "scratch", tmp_path / "s") == "copy"
    assert await mode_of(repository / "src", tmp_path / "s") == "worktree"


async def test_linked_worktree_and_submodule_serve_as_workspace(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "r")
    git(repository, "worktree", "add", "--quiet", "-b", "side", str(tmp_path / "side"))
    inner = make_repository(tmp_path / "inner")
    git(repository, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "lib")
    for index, workspace in enumerate((tmp_path / "side", repository / "lib")):
        workspaces = Workspaces(workspace, tmp_path / f"s{index}")
        prepared = await workspaces.prepare(agent_spec(), RunId("r1"))
        assert (prepared.path / "README.md").read_text() == "# Sample\n"
        (prepared.path / "new").write_text("x")
        assert await workspaces.commit(agent_spec(), 0, "New") is not None
        assert git(workspace, "show", "agent/scribe:new") == "x"


async def test_two_checks_at_once_are_one(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "r")
    workspaces = Workspaces(repository, repository / ".toka")
    await workspaces.check()
    await workspaces.check()
    assert git(repository, "status", "--porcelain") == "", "a state folder inside is hidden from git"
