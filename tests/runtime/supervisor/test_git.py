"""The runner of git: an environment from nothing, limits in time and size, and no process left behind."""

from __future__ import annotations

import asyncio
import os
import select
from pathlib import Path

import pytest

from fakes.repositories import git as operator_git
from fakes.repositories import make_repository
from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.errors import WorkspaceError
from toka_runtime.supervisor.git import Author, Git, GitError


def script(folder: Path, text: str) -> Git:
    """A program in git's place."""
    program = folder / "git"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return Git(str(program))


async def test_output_is_what_git_says(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "r")
    git = Git.find()
    assert git is not None
    said = await git.run("rev-parse", "HEAD", cwd=repository)
    assert said.text == operator_git(repository, "rev-parse", "HEAD")


async def test_environment_is_built_from_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    said = (await script(tmp_path, "env").run("x", author=Author("Ada", "ada@x"))).text
    assert "sk-secret" not in said
    assert "/elsewhere" not in said
    assert "GIT_AUTHOR_NAME=Ada" in said
    assert "GIT_TERMINAL_PROMPT=0" in said


async def test_failure_says_what_git_said(tmp_path: Path) -> None:
    git = script(tmp_path, 'echo "fatal: no such thing" >&2; exit 128')
    with pytest.raises(GitError, match="git show failed: fatal: no such thing") as caught:
        await git.run("show")
    assert isinstance(caught.value, WorkspaceError)
    assert caught.value.stderr == "fatal: no such thing\n"
    assert (await git.run("show", check=False)).exit_code == 128


async def test_output_is_cut_and_git_ended_at_the_limit(tmp_path: Path) -> None:
    git = script(tmp_path, "echo $$ > pid; exec cat /dev/zero")
    said = await git.run("cat", cwd=tmp_path, max_bytes=1000)
    assert said.truncated
    assert said.stdout == b"\0" * 1000
    assert ended(int((tmp_path / "pid").read_text()))


async def test_output_of_just_the_limit_is_whole(tmp_path: Path) -> None:
    said = await script(tmp_path, "printf 12345").run("x", max_bytes=5)
    assert (said.stdout, said.truncated) == (b"12345", False)


async def test_noise_on_both_streams_does_not_block(tmp_path: Path) -> None:
    git = script(tmp_path, "head -c 3000000 /dev/zero >&2; cat; head -c 3000000 /dev/zero")
    said = await git.run("x", stdin=b"y" * 3_000_000)
    assert len(said.stdout) == 6_000_000
    assert len(said.stderr) == 16_000


async def test_unread_input_is_no_error(tmp_path: Path) -> None:
    said = await script(tmp_path, "exit 0").run("x", stdin=b"y" * 5_000_000)
    assert said.exit_code == 0


async def test_a_call_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    git = script(tmp_path, "sleep 1000 & echo $$ $! > pids; exec sleep 1000")
    with pytest.raises(GitError, match=r"git fetch took more than 0\.3 s"):
        await git.run("fetch", cwd=tmp_path, timeout_s=0.3)
    for pid in (tmp_path / "pids").read_text().split():
        assert ended(int(pid))


@pytest.mark.parametrize("stubborn", ["", "trap '' TERM; "])
async def test_cancelled_call_leaves_no_process(tmp_path: Path, stubborn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toka_runtime.supervisor.git._GRACE_S", 0.1)
    fifo = tmp_path / "started"
    os.mkfifo(fifo)
    git = script(tmp_path, f"{stubborn}sleep 1000 & echo $$ $! > {fifo}; wait; wait")
    call = spawn(git.run("x"), name="call")
    pids = [int(pid) for pid in (await asyncio.to_thread(fifo.read_text)).split()]
    await cancel_and_wait(call)
    assert call.cancelled()
    assert all(ended(pid) for pid in pids)


async def test_a_call_that_is_cancelled_at_once_leaves_no_process(tmp_path: Path) -> None:
    git = script(tmp_path, "echo $$ > pid; exec sleep 1000")
    call = spawn(git.run("x", cwd=tmp_path), name="call")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await cancel_and_wait(call)
    assert call.cancelled()
    started = (tmp_path / "pid").read_text() if (tmp_path / "pid").exists() else ""
    assert not started or ended(int(started))


async def test_a_program_that_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(GitError, match="git cannot be started"):
        await Git(str(tmp_path / "nothing")).run("status")


@pytest.mark.parametrize(("said", "ok"), [("git version 2.36.0", True), ("git version 2.35.9", False), ("git", False)])
async def test_versions(tmp_path: Path, said: str, ok: bool) -> None:
    git = script(tmp_path, f"echo {said}")
    if ok:
        await git.check_version()
    else:
        with pytest.raises(WorkspaceError, match=r"too old: 2\.36 or newer"):
            await git.check_version()


def ended(pid: int) -> bool:
    """It is gone, or goes within two seconds."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 2)[0])
    finally:
        os.close(handle)
