"""Time that stands still while an agent is paused."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.clock import Clock

T = TypeVar("T")


class Valve:
    """Open or closed; either can be waited for."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._closed = asyncio.Event()
        self._open.set()

    def close(self) -> None:
        self._open.clear()
        self._closed.set()

    def open(self) -> None:
        self._closed.clear()
        self._open.set()

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    async def until_open(self) -> None:
        await self._open.wait()

    async def until_closed(self) -> None:
        await self._closed.wait()


class PauseGate(Valve):
    """Open while an agent may go on. Closing it stops its clocks and holds back new model calls."""

    def __init__(self) -> None:
        super().__init__()
        self.counting = Valve()
        """Open while the agent's time limits run: not while it is frozen, not while it waits for an operator."""
        self._holds = 0

    def close(self) -> None:
        super().close()
        self.counting.close()

    def open(self) -> None:
        super().open()
        if not self._holds:
            self.counting.open()

    @contextmanager
    def hold(self) -> Generator[None]:
        """The time limits stand still within, though the agent is not frozen."""
        self._holds += 1
        self.counting.close()
        try:
            yield
        finally:
            self._holds -= 1
            if not self._holds and self.is_open:
                self.counting.open()


@dataclass(frozen=True, slots=True)
class FreezableClock:
    """The time of one run, as its approvals and grants count it (`broker.approvals.RunClock`)."""

    gate: PauseGate
    clock: Clock

    async def elapse(self, seconds: float) -> None:
        await elapse(seconds, self.gate, self.clock)

    async def until_open(self) -> None:
        await self.gate.until_open()

    def hold(self) -> AbstractContextManager[None]:
        return self.gate.hold()


class DeadlineExceeded(Exception):
    """The time was up. Internal to the supervisor: it becomes a state with reason `timeout`."""


async def elapse(seconds: float, gate: Valve, clock: Clock) -> None:
    """Return when `seconds` have passed, not counting time for which the gate was closed."""
    remaining = seconds
    while remaining > 0:
        await gate.until_open()
        began = clock.monotonic()
        sleeping = spawn(clock.sleep(remaining))
        closing = spawn(gate.until_closed())
        try:
            await asyncio.wait({sleeping, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(sleeping)
            await cancel_and_wait(closing)
        remaining -= clock.monotonic() - began


async def within(work: Coroutine[Any, Any, T], seconds: float | None, gate: PauseGate, clock: Clock) -> T:
    """The result of `work`, or `DeadlineExceeded` after `seconds` in which it was neither frozen nor waiting for an
    operator (None: no limit). When time is up the work is cancelled and awaited first."""
    if seconds is None:
        return await work
    working = spawn(work)
    ticking = spawn(elapse(seconds, gate.counting, clock))
    try:
        await asyncio.wait({working, ticking}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise DeadlineExceeded(f"{seconds:g} s")
    finally:
        await cancel_and_wait(ticking)
        await cancel_and_wait(working)
