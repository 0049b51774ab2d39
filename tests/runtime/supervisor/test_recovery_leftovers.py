"""Processes of a dead runtime: found by identity, ended with proof; a number that somebody else has is left alone."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress

import pytest

from fakes.processes import alive
from toka_runtime.protocol.events import RuntimeStarted
from toka_runtime.protocol.ids import ProcessRef
from toka_runtime.supervisor import leftovers
from toka_runtime.supervisor.leftovers import Leftover, boot_id, end_leftovers, reference


def runtime(boot: str) -> RuntimeStarted:
    return RuntimeStarted(epoch="e", version="1", pid=1, workspace="/w", provider="rehearsal", boot_id=boot)


@contextmanager
def tree(of: set[int] | None = None) -> Generator[ProcessRef]:
    """A shell that ignores TERM, and its child in a session of its own; `of` gets both pids."""
    command = "trap '' TERM; setsid sleep 1000 & echo $!; wait"
    with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        child = int(shell.stdout.readline())
        if of is not None:
            of |= {shell.pid, child}
        process = reference(shell.pid)
        assert process is not None
        try:
            yield process
        finally:
            shell.kill()
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "ALONE_S", 0.05)


async def test_a_tree_that_is_left_is_ended_whole() -> None:
    pids: set[int] = set()
    with tree(pids) as process:
        (ended,) = await end_leftovers([Leftover("process tree", process)], runtime(boot_id()))
        assert (ended.alive, ended.survivors) == (True, ())
        assert alive(pids) == set()


async def test_a_number_that_somebody_else_has_now_is_left_alone() -> None:
    with tree() as process:
        earlier = ProcessRef(pid=process.pid, started_ticks=process.started_ticks - 1)
        (ended,) = await end_leftovers([Leftover("process tree", earlier)], runtime(boot_id()))
        assert not ended.alive
        assert alive({process.pid}) == {process.pid}


async def test_after_a_reboot_no_number_means_anybody() -> None:
    with tree() as process:
        (ended,) = await end_leftovers([Leftover("process tree", process)], runtime("another boot"))
        assert not ended.alive
        assert alive({process.pid}) == {process.pid}


async def test_one_that_is_gone_is_gone() -> None:
    with tree() as process:
        pass
    (ended,) = await end_leftovers([Leftover("process tree", process)], runtime(boot_id()))
    assert (ended.alive, ended.survivors) == (False, ())
