"""When the next try may begin: back-off for one call, and one queue in which all calls wait for their turn to start."""

from __future__ import annotations

import asyncio
import heapq
import random
from itertools import count

from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.clock import Clock
from toka_runtime.protocol.spec import Priority

BASE_DELAY_S = 0.5
RAMP_WIDTH = 8
RAMP_HOLD_S = 0.2
RANK_S = 10.0
"""A call goes before those of the next lower priority that came up to so much earlier, never before older ones."""
_SPREAD_S = 1.0
_INSTANT_S = 1e-6


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


class StartQueue:
    """Where all calls of a gateway wait to begin a try.

    Who is first: the earliest arrival, a less urgent priority counting as `RANK_S` a rank later. So urgent calls
    overtake, and no call is overtaken by one that came more than `3 × RANK_S` after it: nobody starves.

    At most `RAMP_WIDTH` are in the act of starting. A place is given back when the stream is open, or after `hold_s`: a
    server that thinks long before its first byte must not make the others queue. When the provider tells one call to
    slow down, none begins until that time is over; then one goes ahead, and twice as many with each that is let in.
    """

    def __init__(self, clock: Clock, *, hold_s: float = RAMP_HOLD_S) -> None:
        self.clock = clock
        self._hold_s = hold_s
        self._waiting: list[tuple[float, int, Turn]] = []
        self._numbers = count()
        self._starting = 0
        self._width = RAMP_WIDTH
        self._cool_until = 0.0

    def join(self, priority: Priority, arrived: float) -> Turn:
        """`arrived`: when the call came, on the queue's clock; a call that tries again keeps its place. Give the turn
        back with `leave`, whatever happens."""
        turn = Turn(self, (arrived + RANK_S * priority.rank, next(self._numbers)))
        heapq.heappush(self._waiting, (*turn.order, turn))
        self.admit()
        return turn

    def cool_down(self, seconds: float) -> None:
        """The provider has asked for it: no try begins for so long."""
        self._cool_until = max(self._cool_until, self.clock.monotonic() + seconds)
        self._width = 1
        for _, _, turn in self._waiting:
            turn.stir()

    def cooling_s(self) -> float:
        """How long no try may begin; 0 when it may."""
        left = self._cool_until - self.clock.monotonic()
        return left if left > _INSTANT_S else 0.0

    def expected_s(self, turn: Turn) -> float:
        """About how long this one has to wait, should every start before it take its full time."""
        ahead = sum(other.waits and other.order < turn.order for _, _, other in self._waiting)
        return self.cooling_s() + (ahead // self._width + 1) * self._hold_s

    def admit(self) -> None:
        """Let those begin whose turn it is."""
        while self._waiting and self._starting < self._width and not self.cooling_s():
            turn = heapq.heappop(self._waiting)[-1]
            if turn.waits:
                self._starting += 1
                turn.begin(self._hold_s)

    def release(self, *, opened: bool) -> None:
        self._starting -= 1
        if opened:
            self._width = min(RAMP_WIDTH, 2 * self._width)
        self.admit()


class Turn:
    """One try's place in the queue, then its place among those that start."""

    def __init__(self, queue: StartQueue, order: tuple[float, int]) -> None:
        self.order = order
        self.waits = True
        self._queue = queue
        self._stirred = asyncio.Event()
        self._hold: asyncio.TimerHandle | None = None
        """Set while it has a place among those that start."""

    async def comes(self, within_s: float) -> bool:
        """True as soon as it may begin; False when it still may not after so long."""
        clock = self._queue.clock
        until = clock.monotonic() + within_s
        while True:
            self._queue.admit()
            left = until - clock.monotonic()
            if not self.waits or left <= _INSTANT_S:
                return not self.waits
            self._stirred.clear()
            sleeping = spawn(clock.sleep(min(left, self._queue.cooling_s() or left)))
            stirring = spawn(self._stirred.wait())
            try:
                await asyncio.wait({sleeping, stirring}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await cancel_and_wait(sleeping)
                await cancel_and_wait(stirring)

    def opened(self) -> None:
        """The provider has let it in."""
        self._give_back(opened=True)

    def leave(self) -> None:
        """It begins no more, or has begun. Safe to call at any time, and twice."""
        self.waits = False
        self._give_back(opened=False)

    def begin(self, hold_s: float) -> None:
        """For the queue: its turn has come."""
        self.waits = False
        self._hold = asyncio.get_running_loop().call_later(hold_s, self.leave)
        self.stir()

    def stir(self) -> None:
        """For the queue: what it waits for has changed."""
        self._stirred.set()

    def _give_back(self, *, opened: bool) -> None:
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None
            self._queue.release(opened=opened)
