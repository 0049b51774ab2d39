"""In place: agents work in the operator's folder, and the runtime leaves no mark there."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.repositories import git, make_repository, operator_state
from fakes.specs import agent_spec
from toka_runtime.errors import WorkspaceError
from toka_runtime.protocol.ids import RunId
from toka_runtime.supervisor.workspace import CopyLimits, Workspaces

SPEC = agent_spec()
RUN = RunId("r1")


async def test_a_git_repository(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "r")
    (repository / "README.md").write_text("changed\n")
    before = operator_state(repository)
    objects = git(repository, "count-objects")
    workspaces = Workspaces(repository, tmp_path / "state", mode="in-place")
    prepared = await workspaces.prepare(SPEC, RUN)
    assert (prepared.mode, prepared.path, prepared.branch) == ("in-place", repository, "")
    assert prepared.base_commit == git(repository, "rev-parse", "HEAD")
    assert await workspaces.commit(SPEC, 0, "Nothing is committed here") is None
    text, truncated = await workspaces.diff(SPEC.name)
    assert "-# Sample\n+changed\n" in text
    assert not truncated
    assert operator_state(repository) == before
    assert git(repository, "count-objects") == objects
    await workspaces.release(SPEC.name, remove=True)
    assert operator_state(repository) == before


async def test_a_folder_below_the_top_of_a_repository(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "r")
    workspaces = Workspaces(repository / "src", tmp_path / "state", mode="in-place")
    prepared = await workspaces.prepare(SPEC, RUN)
    assert prepared.path == repository / "src"
    assert await workspaces.diff(SPEC.name) == ("", False)
    (prepared.path / "new.py").write_text("x\n")
    assert "+++ b/src/new.py" in (await workspaces.diff(SPEC.name))[0]


async def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    repository = tmp_path / "r"
    repository.mkdir()
    git(repository, "init", "--quiet")
    (repository / "a").write_text("1\n")
    workspaces = Workspaces(repository, tmp_path / "state", mode="in-place")
    assert (await workspaces.prepare(SPEC, RUN)).base_commit == ""
    assert "+++ b/a" in (await workspaces.diff(SPEC.name))[0]


async def test_a_plain_folder(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "a").write_text("1\n")
    workspaces = Workspaces(folder, folder / ".toka", mode="in-place")
    with pytest.raises(WorkspaceError, match="no agent has worked"):
        await workspaces.diff(SPEC.name)
    prepared = await workspaces.prepare(SPEC, RUN)
    assert prepared.path == folder
    assert await workspaces.diff(SPEC.name) == ("", False)
    (folder / "a").write_text("2\n")
    await workspaces.prepare(agent_spec("other"), RUN)
    assert "-1\n+2\n" in (await workspaces.diff(SPEC.name))[0]
    assert sorted(path.name for path in folder.iterdir()) == [".toka", "a"]


async def test_where_there_can_be_no_diff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "a").write_text("1\n")
    (folder / "b").write_text("1\n")
    workspaces = Workspaces(folder, tmp_path / "state", mode="in-place", limits=CopyLimits(files=1))
    assert (await workspaces.prepare(SPEC, RUN)).notes == (
        "no diff: the folder is too large to be kept for comparison",
    )
    assert (await workspaces.diff(SPEC.name))[0].startswith("# no diff: the folder is too large")
    monkeypatch.setenv("PATH", "/nonexistent")
    workspaces = Workspaces(folder, tmp_path / "state", mode="in-place")
    await workspaces.prepare(SPEC, RUN)
    assert (await workspaces.diff(SPEC.name))[0] == "# no diff: there is no git on this host\n"
