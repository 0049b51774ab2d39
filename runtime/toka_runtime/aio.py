"""The one place where tasks are made. Every task has an owner that awaits it or cancels it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
OnFailure = Callable[[str, BaseException], None]


def spawn(coroutine: Coroutine[Any, Any, T], *, name: str = "") -> asyncio.Task[T]:
    """The only place that makes a task. The caller owns it: await it, or `cancel_and_wait`."""
    return asyncio.get_running_loop().create_task(coroutine, name=name or None)


class TaskOwner:
    """Owns tasks that come and go, where a TaskGroup is too strict: one failure must not end its neighbours.

    A task that fails is reported to `on_failure(name, error)` at once; it is never silent.
    `aclose()` cancels what still runs and waits for it.
    """

    def __init__(self, on_failure: OnFailure) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._on_failure = on_failure

    def spawn(self, coroutine: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        task = spawn(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(task.get_name(), error)

    async def wait(self, timeout_s: float) -> None:
        """Wait until every task has ended by itself, at most so long."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)

    async def aclose(self) -> None:
        """Cancel every task that still runs, and wait until each has ended. Safe to call twice."""
        current = asyncio.current_task()
        while tasks := [task for task in self._tasks if task is not current]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def see_through(coroutine: Coroutine[Any, Any, T], *, name: str = "") -> T:
    """The result of work that must not be cut short, whatever happens to the caller: a cancellation of the caller is
    held back until the work is done, and then dropped (the caller is ending already)."""
    task = spawn(coroutine, name=name)
    await _outlast(task)
    return task.result()


async def to_the_end(coroutine: Coroutine[Any, Any, T], *, name: str = "") -> T:
    """Like `see_through`, for a caller that goes on afterwards: a cancellation is raised once the work is done, with
    the work's own error, if there is one, as its cause."""
    task = spawn(coroutine, name=name)
    cancelled = await _outlast(task)
    if cancelled is None or task.cancelled():
        return task.result()
    raise cancelled from task.exception()


async def _outlast(task: asyncio.Task[Any]) -> asyncio.CancelledError | None:
    """Wait for the end of the task; the last cancellation of the caller meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled


async def cancel_and_wait(task: asyncio.Task[Any]) -> None:
    """Cancel one task and wait for its end. How it ended is nobody's any more: an error that it met instead, or had
    met before, is dropped here (asyncio would print it to the terminal when the task is collected)."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()
