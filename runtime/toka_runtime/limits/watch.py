"""Looks at every watched tree when its time has come, in one thread for all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from toka_runtime.clock import Clock
from toka_runtime.limits.tree_watch import TreeWatch
from toka_runtime.protocol.events import LimitReached

OnReached = Callable[[LimitReached], Awaitable[None]]
Brake = Callable[[bool], Awaitable[None]]


class _Entry(NamedTuple):
    watch: TreeWatch
    on_reached: OnReached
    brake: Brake


class LimitWatch:
    """`run` it in a task of its own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: dict[TreeWatch, _Entry] = {}
        self._due: dict[TreeWatch, float] = {}
        self._added = asyncio.Event()
        self._round = asyncio.Lock()
        """Held while trees are looked at and what was found is told: nothing found is lost to a removal."""

    def add(self, watch: TreeWatch, on_reached: OnReached, brake: Brake) -> None:
        """`on_reached` is awaited for each breach, and holds up the others: it must wait neither for the tree's end nor
        for a removal. `brake` is asked to make the tree stand still (True) or run (False)."""
        if watch.needed:
            self._entries[watch] = _Entry(watch, on_reached, brake)
            self._due[watch] = self._clock.monotonic()
            self._added.set()

    async def remove(self, watch: TreeWatch) -> list[LimitReached]:
        """Look a last time: what was reached and not told yet. Nobody hears of it in another way."""
        async with self._round:
            if self._entries.pop(watch, None) is None:
                return []
            del self._due[watch]
            found = await asyncio.to_thread(watch.look, self._clock.monotonic())
            watch.close()
            return found

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if not self._due:
                self._added.clear()
                await self._added.wait()
            async with self._round:
                now = self._clock.monotonic()
                due = [watch for watch, at in self._due.items() if at <= now]
                found = await asyncio.to_thread(_look, due, now)
                for watch, reached in zip(due, found, strict=True):
                    await self._tell(watch, reached)
            if self._due:
                await self._clock.sleep(max(0.0, min(self._due.values()) - self._clock.monotonic()))

    async def _tell(self, watch: TreeWatch, reached: list[LimitReached]) -> None:
        entry = self._entries[watch]
        self._due[watch] = self._clock.monotonic() + watch.interval_s
        await entry.brake(watch.still)
        for event in reached:
            await entry.on_reached(event)


def _look(due: list[TreeWatch], now: float) -> list[list[LimitReached]]:
    return [watch.look(now) for watch in due]
