"""Telling denials: the first at once, the same again as a count. Never dropped, also when several tell at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.clock import Clock
from toka_runtime.errors import StoreError
from toka_runtime.protocol.capability import Denial
from toka_runtime.protocol.events import Event, OperationDenied

FOLD_S = 1.0
"""Equal denials within so long are told together."""
_MAX_KINDS = 256

Emit = Callable[[Event], Awaitable[None]]


@dataclass
class _Folded:
    denial: Denial
    task: int
    told_at: float
    key: tuple[object, ...]
    waiting: int = 0
    """How many have not been told yet."""


class DenialLog:
    """For one run. `flush` before the run ends."""

    def __init__(self, emit: Emit, clock: Clock) -> None:
        self._emit = emit
        self._clock = clock
        self._kinds: dict[tuple[object, ...], _Folded] = {}
        self._timer: asyncio.Task[None] | None = None
        self._asleep = False
        """The timer waits for time only, so it can be cancelled without losing count."""

    async def tell(self, denial: Denial, task: int, count: int = 1) -> None:
        """`count`: so many equal ones at once. Raises StoreError when an event cannot be written; what was not told
        stays counted."""
        operation = denial.operation
        key = (operation.kind, operation.target, operation.tool, denial.capability, denial.layer, denial.rule, task)
        folded = self._kinds.get(key)
        if folded is None:
            folded = self._kinds[key] = _Folded(denial, task, self._clock.monotonic(), key, waiting=count)
            await self._make_room()
            await self._tell(folded)
            return
        folded.waiting += count
        folded.denial = denial
        if self._clock.monotonic() - folded.told_at >= FOLD_S:
            await self._tell(folded)
        elif self._timer is None or self._timer.done():
            self._timer = spawn(self._tell_later(), name="denials")

    async def flush(self) -> None:
        """Tell what is still counted. Raises StoreError."""
        timer, self._timer = self._timer, None
        if timer is not None:
            if self._asleep:
                await cancel_and_wait(timer)
            else:
                await asyncio.wait([timer])
        for folded in list(self._kinds.values()):
            await self._tell(folded)

    async def _tell(self, folded: _Folded) -> None:
        count, folded.waiting = folded.waiting, 0
        if not count:
            return
        before, folded.told_at = folded.told_at, self._clock.monotonic()
        try:
            await self._emit(OperationDenied(denial=folded.denial, task=folded.task, count=count))
        except StoreError:
            # It may have been put out, or have a successor, since the writing began.
            kept = self._kinds.setdefault(folded.key, folded)
            kept.waiting += count
            kept.told_at = before
            raise

    async def _tell_later(self) -> None:
        while self._timer is not None and any(folded.waiting for folded in self._kinds.values()):
            self._asleep = True
            try:
                await self._clock.sleep(FOLD_S)
            finally:
                self._asleep = False
            for folded in list(self._kinds.values()):
                try:
                    await self._tell(folded)
                except StoreError:
                    # Counted still. The next operation meets the same store, and its error ends the run.
                    return

    async def _make_room(self) -> None:
        while len(self._kinds) > _MAX_KINDS:
            key = min(self._kinds, key=lambda key: self._kinds[key].told_at)
            # Taken out first: others tell while this waits, and would count on what is about to go.
            await self._tell(self._kinds.pop(key))
