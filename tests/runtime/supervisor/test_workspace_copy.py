"""Copies of plain folders: whole or not there, nothing of the original changed, work kept and shown."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from fakes.repositories import git, make_repository
from fakes.specs import agent_spec
from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.errors import WorkspaceError
from toka_runtime.protocol.ids import RunId
from toka_runtime.supervisor.workspace import CopyLimits, Workspaces, copying
from toka_runtime.supervisor.workspace.layout import Layout, Record

SPEC = agent_spec()
RUN = RunId("r1")


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    folder = tmp_path / "plain"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs/page.md").write_text("one\ntwo\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o4755)
    (folder / "page").symlink_to("docs/page.md")
    (folder / "away").symlink_to("/etc/hostname")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "empty").mkdir()
    return folder


@pytest.fixture(params=["git", "no git"])
def with_and_without_git(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "no git":
        monkeypatch.setenv("PATH", "/nonexistent")
    return request.param == "git"


def listing(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): f"{path.lstat().st_mode:o} {path.lstat().st_mtime_ns}"
        for path in sorted(folder.rglob("*"))
    }


async def test_a_faithful_copy(plain: Path, tmp_path: Path, with_and_without_git: bool) -> None:
    before = listing(plain)
    os.mkfifo(plain / "pipe")
    os.mknod(plain / "socket", stat.S_IFSOCK | 0o600)
    prepared = await Workspaces(plain, tmp_path / "state").prepare(SPEC, RUN)
    assert prepared.mode == "copy"
    assert sorted(listing(prepared.path)) == sorted(before)
    assert os.readlink(prepared.path / "away") == "/etc/hostname"
    assert (prepared.path / "dangling").is_symlink()
    copied = (prepared.path / "run.sh").lstat()
    assert stat.S_IMODE(copied.st_mode) == 0o755, "no set-user-id in a copy"
    assert copied.st_mtime_ns == (plain / "run.sh").lstat().st_mtime_ns
    assert prepared.notes == (f"not copied (not readable, or a pipe, socket or device): {plain}/pipe and 1 more",)
    assert bool(prepared.base_commit) == with_and_without_git


async def test_the_original_stays_and_the_diff_shows_the_work(
    plain: Path, tmp_path: Path, with_and_without_git: bool
) -> None:
    before = listing(plain)
    workspaces = Workspaces(plain, tmp_path / "state")
    prepared = await workspaces.prepare(SPEC, RUN)
    assert await workspaces.diff(SPEC.name) == ("", False)
    (prepared.path / "docs/page.md").write_text("one\nTWO\n")
    (prepared.path / "new").write_text("no line feed")
    (prepared.path / "dangling").unlink()
    (prepared.path / "blob").write_bytes(b"\0")
    done = await workspaces.commit(SPEC, 0, "Work")
    if with_and_without_git:
        assert done is not None
        assert (done.files, done.insertions, done.deletions) == (4, 2, 2)
    else:
        assert done is None
    text, truncated = await workspaces.diff(SPEC.name)
    assert not truncated
    assert "-two\n+TWO\n" in text
    assert "+no line feed\n\\ No newline at end of file\n" in text
    assert "dangling" in text
    assert "blob" in text
    cut, truncated = await workspaces.diff(SPEC.name, 100)
    assert truncated
    assert text.startswith(cut)
    assert listing(plain) == before


async def test_a_large_file_without_git(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    (plain / "large").write_text("x" * 400_000)
    workspaces = Workspaces(plain, tmp_path / "state")
    prepared = await workspaces.prepare(SPEC, RUN)
    assert (await workspaces.diff(SPEC.name))[0] == ""
    (prepared.path / "large").write_text("x" * 399_999 + "y")
    assert (await workspaces.diff(SPEC.name))[0] == (
        "diff a/large b/large\n# was a file of 400,000 bytes, is a file of 400,000 bytes\n"
    )


async def test_a_state_folder_inside_the_workspace(plain: Path, with_and_without_git: bool) -> None:
    workspaces = Workspaces(plain, plain / "empty/state")
    prepared = await workspaces.prepare(SPEC, RUN)
    assert not (prepared.path / "empty/state").exists()
    assert (prepared.path / "empty").is_dir()
    (prepared.path / "x").write_text("x\n")
    assert "+x" in (await workspaces.diff(SPEC.name))[0]


async def test_each_agent_has_its_own(plain: Path, tmp_path: Path) -> None:
    workspaces = Workspaces(plain, tmp_path / "state")
    one, other = await asyncio.gather(*(workspaces.prepare(agent_spec(name), RUN) for name in ("one", "other")))
    (one.path / "mine").write_text("x")
    assert not (other.path / "mine").exists()
    assert one.scratch != other.scratch


async def test_continued_after_a_restart(plain: Path, tmp_path: Path) -> None:
    workspaces = Workspaces(plain, tmp_path / "state")
    first = await workspaces.prepare(SPEC, RUN)
    (first.path / "half").write_text("1\n")
    await workspaces.commit(SPEC, 0, "Half")
    (first.path / "other half").write_text("2\n")
    workspaces = Workspaces(plain, tmp_path / "state")
    second = await workspaces.prepare(SPEC, RunId("r2"))
    assert second.path == first.path
    text, _ = await workspaces.diff(SPEC.name)
    assert "+++ b/half" in text
    assert "+++ b/other half" in text
    done = await workspaces.commit(SPEC, 1, "Rest")
    assert done is not None
    assert done.files == 1


async def test_killed_while_it_copied(plain: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    first = await Workspaces(plain, state).prepare(SPEC, RUN)
    folder = Layout(plain, state).snapshot(SPEC.name)
    Record("creating").save(folder)
    (first.path / "run.sh").unlink()
    part = first.path.with_name("scribe.part")
    part.mkdir()
    (part / "half").write_text("")
    second = await Workspaces(plain, state).prepare(SPEC, RUN)
    assert (second.path / "run.sh").exists()
    assert not part.exists()


async def test_files_that_nobody_remembers_are_set_aside(plain: Path, tmp_path: Path) -> None:
    first = await Workspaces(plain, tmp_path / "state").prepare(SPEC, RUN)
    (first.path / "precious").write_text("1")
    (Layout(plain, tmp_path / "state").snapshot(SPEC.name) / "record.json").unlink()
    second = await Workspaces(plain, tmp_path / "state").prepare(SPEC, RUN)
    assert (first.path.with_name("scribe.left-1") / "precious").exists()
    assert not (second.path / "precious").exists()


async def test_cancelled_while_it_copies(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    copying_now = asyncio.Event()
    go_on = threading.Event()

    def slow(*arguments: int) -> int:
        loop.call_soon_threadsafe(copying_now.set)
        go_on.wait(10)
        return 0

    monkeypatch.setattr(os, "copy_file_range", slow)
    workspaces = Workspaces(plain, tmp_path / "state")
    await workspaces.check()
    task = spawn(workspaces.prepare(SPEC, RUN))
    await copying_now.wait()
    loop.call_later(0.05, go_on.set)
    await cancel_and_wait(task)
    assert task.cancelled()
    copies = tmp_path / "state/copies"
    assert [path for path in copies.rglob("*") if path.name.startswith("scribe")] == []
    monkeypatch.undo()
    assert ((await workspaces.prepare(SPEC, RUN)).path / "run.sh").exists()


async def test_a_disk_that_fills_up(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(WorkspaceError, match="No space left") as caught:
        await Workspaces(plain, tmp_path / "state").prepare(SPEC, RUN)
    assert "free some space" in caught.value.hint


async def test_between_two_kinds_of_file_system(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.copy_file_range
    monkeypatch.setattr(copying, "_CHUNK", 5)
    calls: list[int] = []

    def first_part_only(source: int, target: int, count: int) -> int:
        calls.append(count)
        if len(calls) % 2 == 0:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return real(source, target, count)

    monkeypatch.setattr(os, "copy_file_range", first_part_only)
    prepared = await Workspaces(plain, tmp_path / "state").prepare(SPEC, RUN)
    assert (prepared.path / "docs/page.md").read_text() == "one\ntwo\n"
    assert (prepared.path / "run.sh").read_text() == "#!/bin/sh\n"
    assert calls


async def test_it_grew_past_the_limit_since_it_was_checked(plain: Path, tmp_path: Path) -> None:
    workspaces = Workspaces(plain, tmp_path / "state", limits=CopyLimits(bytes=2_000))
    await workspaces.check()
    (plain / "grown").write_text("x" * 3_000)
    with pytest.raises(WorkspaceError, match="too large"):
        await workspaces.prepare(SPEC, RUN)
    assert list((tmp_path / "state/copies").rglob("page.md")) == []


async def test_repositories_inside_a_plain_folder(plain: Path, tmp_path: Path) -> None:
    inner = make_repository(plain / "inner", {"a": "1\n", ".gitignore": "*.log\n"})
    (inner / "noise.log").write_text("")
    workspaces = Workspaces(plain, tmp_path / "state")
    prepared = await workspaces.prepare(SPEC, RUN)
    assert git(prepared.path / "inner", "status", "--porcelain") == ""
    (prepared.path / "inner/a").write_text("2\n")
    (prepared.path / "inner/b").write_text("new\n")
    make_repository(prepared.path / "cloned", {"c": "3\n"})
    done = await workspaces.commit(SPEC, 0, "Work")
    assert done is not None
    assert done.files == 3
    text, _ = await workspaces.diff(SPEC.name)
    assert "-1\n+2\n" in text
    assert "+new\n" in text
    assert "+++ b/cloned/c\n" in text
    assert "noise.log" not in text


async def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    workspaces = Workspaces(tmp_path / "nothing", tmp_path / "state")
    prepared = await workspaces.prepare(SPEC, RUN)
    assert list(prepared.path.iterdir()) == []
    (prepared.path / "x").write_text("x")
    assert await workspaces.commit(SPEC, 0, "X") is not None


async def test_removed_on_request(plain: Path, tmp_path: Path) -> None:
    workspaces = Workspaces(plain, tmp_path / "state")
    prepared = await workspaces.prepare(SPEC, RUN)
    await workspaces.release(SPEC.name)
    assert prepared.path.exists()
    await workspaces.release(SPEC.name, remove=True)
    assert not prepared.path.exists()
    with pytest.raises(WorkspaceError, match="no copy of the workspace"):
        await workspaces.diff(SPEC.name)
