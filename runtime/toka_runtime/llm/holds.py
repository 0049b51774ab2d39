"""Runs whose calls begin no request: a paused agent's tries wait here until it goes on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from toka_runtime.protocol.ids import RunId


class Holds:
    """Of one gateway process. What streams already goes on."""

    def __init__(self) -> None:
        self._held: dict[RunId, asyncio.Event] = {}
        """Set when the run is let go."""
        self._sending: Counter[RunId] = Counter()
        self._sent = asyncio.Event()

    def hold(self, run: RunId) -> None:
        self._held.setdefault(run, asyncio.Event())

    def release(self, run: RunId) -> None:
        if (free := self._held.pop(run, None)) is not None:
            free.set()

    def holds(self, run: RunId) -> bool:
        return run in self._held

    async def until_free(self, run: RunId) -> None:
        while (free := self._held.get(run)) is not None:
            await free.wait()

    @contextmanager
    def sending(self, run: RunId) -> Generator[None]:
        """Around the moment in which a request leaves. Enter it in the same step as a look at `holds`."""
        self._sending[run] += 1
        try:
            yield
        finally:
            self._sending[run] -= 1
            if not self._sending[run]:
                del self._sending[run]
            self._sent.set()

    async def until_silent(self, run: RunId) -> None:
        """No request of the run is about to leave: with the run held, from here on none begins."""
        while run in self._sending:
            self._sent.clear()
            await self._sent.wait()
