"""Deadlines count unpaused time only."""

from __future__ import annotations

import asyncio
import gc

import pytest

from fakes.clock import FakeClock
from toka_runtime.aio import spawn
from toka_runtime.supervisor.deadline import DeadlineExceeded, PauseGate, within


async def forever(log: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        log.append("cancelled")
        raise


async def test_work_within_its_time_gives_its_result() -> None:
    async def work() -> int:
        return 7

    assert await within(work(), 1.0, PauseGate(), FakeClock()) == 7


async def test_work_is_cancelled_and_awaited_when_time_is_up() -> None:
    clock, log = FakeClock(), list[str]()
    task = spawn(within(forever(log), 10.0, PauseGate(), clock))
    await clock.until_sleeping()
    await clock.advance(9.9)
    assert not task.done()
    await clock.advance(0.2)
    with pytest.raises(DeadlineExceeded):
        await task
    assert log == ["cancelled"]


async def test_time_stands_still_while_paused() -> None:
    clock, gate, log = FakeClock(), PauseGate(), list[str]()
    task = spawn(within(forever(log), 10.0, gate, clock))
    await clock.until_sleeping()
    await clock.advance(5)
    gate.close()
    await clock.advance(1000)
    assert not task.done()
    gate.open()
    await clock.until_sleeping()
    await clock.advance(4.9)
    assert not task.done()
    await clock.advance(0.2)
    with pytest.raises(DeadlineExceeded):
        await task


async def test_failure_of_the_work_comes_through() -> None:
    async def work() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await within(work(), 1.0, PauseGate(), FakeClock())


async def test_cancelling_the_caller_cancels_the_work() -> None:
    clock, log = FakeClock(), list[str]()
    task = spawn(within(forever(log), 10.0, PauseGate(), clock))
    await clock.until_sleeping()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["cancelled"]
    assert clock.sleepers() == 0


async def test_work_that_fails_while_the_caller_is_cancelled_prints_nothing() -> None:
    printed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: printed.append(context["message"]))
    clock, go = FakeClock(), asyncio.Event()

    async def fail() -> None:
        await go.wait()
        raise ValueError("broken")

    task = spawn(within(fail(), 10.0, PauseGate(), clock))
    await clock.until_sleeping()
    go.set()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    del task
    gc.collect()
    assert printed == []
