"""Time that stands still while an agent is paused."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.clock import Clock

T = TypeVar("T")


class PauseGate:
    """Open while an agent may go on. Closing it stops its clocks and holds back new model calls."""

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

    async def until_open(self) -> None:
        await self._open.wait()

    async def until_closed(self) -> None:
        await self._closed.wait()


class DeadlineExceeded(Exception):
    """The time was up. Internal to the supervisor: it becomes a state with reason `timeout`."""


async def elapse(seconds: float, gate: PauseGate, clock: Clock) -> None:
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
    """The result of `work`, or `DeadlineExceeded` after `seconds` of unpaused time (None: no limit). When time is up
    the work is cancelled and awaited first."""
    if seconds is None:
        return await work
    working = spawn(work)
    ticking = spawn(elapse(seconds, gate, clock))
    try:
        await asyncio.wait({working, ticking}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise DeadlineExceeded(f"{seconds:g} s")
    finally:
        await cancel_and_wait(ticking)
        await cancel_and_wait(working)
