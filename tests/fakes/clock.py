"""A clock that moves only when told."""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta
from itertools import count


class FakeClock:
    """Implements `toka_runtime.clock.Clock`. `advance(s)` wakes sleepers in order; `sleepers()` tells how many wait."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()
        self._added = asyncio.Event()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (self._elapsed + seconds, next(self._order), future))
        self._added.set()
        await future

    def sleepers(self) -> int:
        return sum(not future.done() for _, _, future in self._waiting)

    async def until_sleeping(self, count: int = 1) -> None:
        """Wait until at least `count` sleepers are waiting."""
        while self.sleepers() < count:
            self._added.clear()
            await self._added.wait()

    async def advance(self, seconds: float) -> None:
        """Move time on, waking every sleeper that is due, in order, and letting each run."""
        await self._settle()
        target = self._elapsed + seconds
        while self._waiting and self._waiting[0][0] <= target:
            due, _, future = heapq.heappop(self._waiting)
            self._elapsed = max(self._elapsed, due)
            if not future.done():
                future.set_result(None)
                await self._settle()
        self._elapsed = target
        await self._settle()

    @staticmethod
    async def _settle() -> None:
        """Let everything that is ready run, a few steps deep, so that it sees the time as it is now."""
        for _ in range(10):
            await asyncio.sleep(0)
