"""Processes that a killed runtime left: found by pid, start time and boot, ended, and proven to be gone.

All of them end with their runtime by themselves (a lifeline of each, or the kernel's parent-death signal). This makes
sure of it before anything goes on in the same folders.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from toka_runtime.protocol.events import Envelope, ProcessEnded, ProcessStarted, RuntimeStarted, ServiceStarted
from toka_runtime.protocol.ids import AgentName, ProcessRef, RunId
from toka_runtime.sandbox.requests import process_end
from toka_runtime.sandbox.tree import kill_subtree, proc_stat
from toka_runtime.store.events import EventStore

ALONE_S = 2.0
"""What they get to end by themselves."""
KILL_S = 5.0
_PAGE = 1000
_KINDS = ("runtime.service_started", "agent.process_started", "agent.process_ended")


@dataclass(frozen=True, slots=True)
class Leftover:
    what: str
    process: ProcessRef
    agent: AgentName | None = None
    run: RunId | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    leftover: Leftover
    alive: bool
    """It was still there."""
    survivors: tuple[int, ...] = ()
    """Pids whose end could not be shown."""


def boot_id() -> str:
    """ "" where the kernel does not tell."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def reference(pid: int) -> ProcessRef | None:
    """The process that has this number now; None: nobody has."""
    stat = proc_stat(pid)
    return None if stat is None else ProcessRef(pid=pid, started_ticks=stat.started_ticks)


async def find_leftovers(store: EventStore, before: RuntimeStarted) -> list[Leftover]:
    """Every process that the last runtime told of and not of its end. Raises StoreError."""
    (started,) = await store.read(kinds=(before.kind,), limit=1, newest_first=True)
    found: dict[ProcessRef, Leftover] = {}
    seq = started.seq
    while page := await store.read(after_seq=seq, kinds=_KINDS, limit=_PAGE):
        for envelope in page:
            _note(found, envelope)
        seq = page[-1].seq
    return list(found.values())


def _note(found: dict[ProcessRef, Leftover], envelope: Envelope) -> None:
    match event := envelope.event:
        case ServiceStarted():
            found[event.process] = Leftover(event.service, event.process)
        case ProcessStarted():
            what = f"process tree of {envelope.agent}"
            found[event.process] = Leftover(what, event.process, envelope.agent, envelope.run)
        case ProcessEnded(survivors=()):
            found.pop(event.process, None)
        case _:
            pass


async def end_leftovers(leftovers: list[Leftover], before: RuntimeStarted) -> list[Ended]:
    """All at once; blocking parts in threads. A number that somebody else has now is left alone."""
    if before.boot_id and before.boot_id != boot_id():
        # Another boot: nobody of then can be here.
        return [Ended(leftover, alive=False) for leftover in leftovers]
    return list(await asyncio.gather(*(_end(leftover) for leftover in leftovers)))


async def _end(leftover: Leftover) -> Ended:
    process = leftover.process
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:
        return Ended(leftover, alive=False)
    end = process_end(pidfd)
    try:
        # Held now: what is read here is of the process that would be signalled.
        if reference(process.pid) != process or await _ended(end, ALONE_S):
            return Ended(leftover, alive=False)
        swept = await asyncio.to_thread(kill_subtree, process.pid, KILL_S)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        gone = await _ended(end, KILL_S)
        survivors = {*swept.survivors} - {process.pid}
        if not gone:
            survivors.add(process.pid)
        return Ended(leftover, alive=True, survivors=tuple(sorted(survivors)))
    except PermissionError:
        return Ended(leftover, alive=True, survivors=(process.pid,))
    finally:
        end.cancel()
        os.close(pidfd)


async def _ended(end: asyncio.Future[None], timeout_s: float) -> bool:
    await asyncio.wait([end], timeout=timeout_s)
    return end.done()
