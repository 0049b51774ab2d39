"""The steps of a run, a model call or a tool call each: where a soft pause begins, and what an operator breaks off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from toka_runtime.aio import cancel_and_wait, spawn

T = TypeVar("T")
Turn = tuple[int, int]
"""(task, turn)"""


class Interrupted(Exception):
    """An operator has broken the step off. Internal to the supervisor: it becomes an answer to the worker."""


class Steps:
    """Of one run: one step at a time."""

    def __init__(self, pause: Callable[[], Awaitable[None]]) -> None:
        """`pause` returns when the next step may begin."""
        self._pause = pause
        self._current: asyncio.Task[Any] | None = None
        self._turn: Turn = (-1, -1)
        self._broken_off: Turn | None = None

    async def before(self, turn: Turn) -> None:
        """Wait until the step may begin; one of a turn that is broken off is not waited for, as it does not."""
        if turn != self._broken_off:
            await self._pause()
        self._turn = turn

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Carry the step out. Raises Interrupted, when it was broken off and has ended, or is of such a turn."""
        if self._turn == self._broken_off:
            work.close()
            raise Interrupted
        self._current = current = spawn(work)
        try:
            await asyncio.wait([current])
            if current.cancelled():
                raise Interrupted
            return current.result()
        finally:
            self._current = None
            await cancel_and_wait(current)

    def interrupt(self) -> None:
        """Break off the step that runs and what is left of its turn."""
        self._broken_off = self._turn
        if self._current is not None:
            self._current.cancel()
