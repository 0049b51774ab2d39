"""Tasks have owners; failures are told; endings are seen through."""

from __future__ import annotations

import asyncio
import gc

import pytest

from toka_runtime.aio import TaskOwner, cancel_and_wait, see_through, spawn, to_the_end


async def test_a_failure_is_reported_with_its_name() -> None:
    told: list[tuple[str, str]] = []
    heard = asyncio.Event()

    def on_failure(name: str, error: BaseException) -> None:
        told.append((name, str(error)))
        heard.set()

    async def fail() -> None:
        raise ValueError("broken")

    owner = TaskOwner(on_failure)
    owner.spawn(fail(), name="worker")
    await heard.wait()
    assert told == [("worker", "broken")]


async def test_close_cancels_and_waits() -> None:
    ended: list[str] = []

    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("yes")

    owner = TaskOwner(lambda name, error: None)
    owner.spawn(run(), name="a")
    await asyncio.sleep(0)
    await owner.aclose()
    await owner.aclose()
    assert ended == ["yes"]


async def test_see_through_outlives_the_cancellation_of_its_caller() -> None:
    go = asyncio.Event()

    async def clean() -> str:
        await go.wait()
        return "clean"

    task = spawn(see_through(clean()))
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    go.set()
    assert await task == "clean"


async def test_to_the_end_raises_the_cancellation_after_the_work() -> None:
    go, done = asyncio.Event(), list[str]()

    async def work() -> None:
        await go.wait()
        done.append("done")

    task = spawn(to_the_end(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["done"]


async def test_to_the_end_without_a_cancellation_is_a_plain_call() -> None:
    async def fail() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await to_the_end(fail())


async def test_an_error_that_nobody_waits_for_any_more_is_not_printed() -> None:
    printed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: printed.append(context["message"]))

    async def fail() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("broken") from None

    task = spawn(fail())
    await asyncio.sleep(0)
    await cancel_and_wait(task)
    del task
    gc.collect()
    assert printed == []
