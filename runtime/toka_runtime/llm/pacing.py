"""When the next try may begin: back-off for one call, a cool-down for all, and a ramp for many starts at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from toka_runtime.clock import Clock

BASE_DELAY_S = 0.5
RAMP_WIDTH = 8
RAMP_HOLD_S = 0.2
_SPREAD_S = 1.0


class Backoff:
    """Full jitter under a doubling ceiling; what the provider asks for is honoured up to the cap, with jitter on top
    so that a hundred calls don't come back in the same instant."""

    def __init__(self, cap_s: float, rng: random.Random) -> None:
        self._cap_s = cap_s
        self._rng = rng

    def delay_s(self, failed: int, asked_s: float | None) -> float:
        """`failed`: tries so far, from 1. `asked_s`: Retry-After, uncapped."""
        ceiling = min(self._cap_s, BASE_DELAY_S * 2.0 ** min(failed - 1, 20))
        if asked_s is None:
            return self._rng.uniform(0.0, ceiling)
        return min(self._cap_s, asked_s + self._rng.uniform(0.0, min(_SPREAD_S, 0.1 * asked_s + 0.05)))


class CoolDown:
    """One for the whole gateway: when the provider tells one call to slow down, all hold back."""

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self._until = 0.0

    def hold(self, seconds: float) -> None:
        self._until = max(self._until, self._clock.monotonic() + seconds)

    def remaining_s(self) -> float:
        """0 when calls may begin; otherwise the wait, spread a little from call to call."""
        left = self._until - self._clock.monotonic()
        return left + self._rng.uniform(0.0, min(_SPREAD_S, left)) if left > 0 else 0.0


class Ramp:
    """At most `RAMP_WIDTH` calls in the act of starting. A place is given back when the stream is open, or after
    `RAMP_HOLD_S`: a server that thinks long before its first byte must not make the others queue."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(RAMP_WIDTH)

    @asynccontextmanager
    async def place(self) -> AsyncGenerator[None]:
        await self._places.acquire()
        released = False

        def release() -> None:
            nonlocal released
            if not released:
                released = True
                self._places.release()

        timer = asyncio.get_running_loop().call_later(RAMP_HOLD_S, release)
        try:
            yield
        finally:
            timer.cancel()
            release()
