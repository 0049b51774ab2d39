"""Who begins when calls wait: urgent ones first, nobody starved, and no herd after a cool-down."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given
from hypothesis import strategies as st

from fakes.clock import FakeClock
from fakes.engines import collect, retries
from fakes.model_requests import hello_turn, model_request
from fakes.providers import ScriptedProvider
from toka_runtime.aio import spawn
from toka_runtime.llm.base import Finished, GatewaySettings
from toka_runtime.llm.engine import Engine
from toka_runtime.llm.failures import failure_of_status
from toka_runtime.llm.pacing import RAMP_WIDTH, RANK_S, StartQueue, Turn
from toka_runtime.llm.redact import Redactor
from toka_runtime.protocol.spec import Priority

NEVER_S = 1e6


def full_queue(clock: FakeClock) -> tuple[StartQueue, list[Turn]]:
    """A queue whose places are all taken, and those who hold them."""
    queue = StartQueue(clock, hold_s=NEVER_S)
    return queue, [queue.join(Priority.CRITICAL, clock.monotonic()) for _ in range(RAMP_WIDTH)]


def begun(turns: list[Turn]) -> list[int]:
    return [number for number, turn in enumerate(turns) if not turn.waits]


async def test_urgent_calls_begin_first_and_equal_ones_in_order() -> None:
    queue, holders = full_queue(FakeClock())
    wanted = [Priority.LOW, Priority.MEDIUM, Priority.CRITICAL, Priority.LOW, Priority.CRITICAL, Priority.HIGH]
    turns = [queue.join(priority, 0.0) for priority in wanted]
    order: list[int] = []
    for holder in holders[: len(turns)]:
        holder.opened()
        order += [number for number in begun(turns) if number not in order]
    assert order == [2, 4, 5, 1, 0, 3]
    for turn in holders + turns:
        turn.leave()


async def test_a_low_call_is_served_under_a_constant_load_of_critical_ones() -> None:
    clock = FakeClock()
    queue, holders = full_queue(clock)
    low = queue.join(Priority.LOW, clock.monotonic())
    for _ in range(1000):
        # Two come for each that is let in: the queue only grows.
        await clock.advance(1.0)
        holders += [queue.join(Priority.CRITICAL, clock.monotonic()) for _ in range(2)]
        done = next(turn for turn in holders if not turn.waits)
        done.leave()
        holders.remove(done)
        if not low.waits:
            break
    assert not low.waits
    assert clock.monotonic() >= RANK_S, "critical ones were preferred"
    for turn in [*holders, low]:
        turn.leave()


@given(st.lists(st.tuples(st.sampled_from(list(Priority)), st.floats(0, 200)), min_size=1, max_size=40))
def test_nobody_is_overtaken_by_one_that_came_long_after(calls: list[tuple[Priority, float]]) -> None:
    async def order() -> list[tuple[Priority, float]]:
        queue = StartQueue(FakeClock(), hold_s=NEVER_S)
        queue.cool_down(1.0)
        turns = [queue.join(priority, arrived) for priority, arrived in calls]
        ranked = sorted(range(len(calls)), key=lambda number: turns[number].order)
        return [calls[number] for number in ranked]

    begin = asyncio.run(order())
    for number, (urgency, came) in enumerate(begin):
        for earlier_urgency, earlier_came in begin[:number]:
            bonus = (urgency.rank - earlier_urgency.rank) * RANK_S
            assert earlier_came <= came + max(0.0, bonus) + 1e-6


async def test_after_a_cool_down_one_goes_ahead_and_twice_as_many_with_each_let_in() -> None:
    clock = FakeClock()
    queue = StartQueue(clock, hold_s=NEVER_S)
    queue.cool_down(10.0)
    turns = [queue.join(Priority.MEDIUM, 0.0) for _ in range(20)]
    waiting = [spawn(turn.comes(NEVER_S), name="turn") for turn in turns]
    await clock.advance(9.9)
    assert begun(turns) == []
    await clock.advance(0.2)
    assert begun(turns) == [0]
    turns[0].opened()
    assert begun(turns) == [0, 1, 2]
    turns[1].opened()
    turns[2].opened()
    assert begun(turns) == list(range(3 + RAMP_WIDTH))
    for turn in turns:
        turn.leave()
    for task in waiting:
        task.cancel()


async def test_who_leaves_the_queue_gives_its_place_to_the_next_once() -> None:
    queue, holders = full_queue(FakeClock())
    first, second, third = (queue.join(Priority.MEDIUM, 0.0) for _ in range(3))
    first.leave()
    holders[0].opened()
    holders[0].leave()
    assert (second.waits, third.waits) == (False, True)
    for turn in [*holders, second, third]:
        turn.leave()


def engine_of(provider: ScriptedProvider, clock: FakeClock) -> Engine:
    settings = GatewaySettings(provider="anthropic")
    return Engine(provider, settings, clock, Redactor({}), default_model="m", rng=random.Random(1))


async def test_all_calls_wait_once_after_a_refusal_and_begin_by_priority() -> None:
    clock = FakeClock()
    provider = ScriptedProvider(failure_of_status(429, {"retry-after": "10"}, "rate_limit_error", "slow"), hello_turn())
    engine = engine_of(provider, clock)
    calls = [spawn(collect(engine, model_request(call="first")), name="first")]
    await clock.until_sleeping()
    for name, priority in (("low", Priority.LOW), ("medium", Priority.MEDIUM), ("critical", Priority.CRITICAL)):
        calls.append(spawn(collect(engine, model_request(call=name, priority=priority)), name=name))
    await clock.until_sleeping(4)
    await clock.advance(9.9)
    assert len(provider.requests) == 1
    await clock.advance(2.0)
    events = [await call for call in calls]
    assert all(isinstance(each[-1], Finished) for each in events)
    assert [request.context.call for request in provider.requests] == ["first", "critical", "first", "medium", "low"]
    assert [len(retries(each)) for each in events] == [1, 1, 1, 1], "each is told of one wait"


async def test_a_wait_for_other_calls_is_told_after_a_second() -> None:
    clock = FakeClock()
    provider = ScriptedProvider(hello_turn())
    engine = engine_of(provider, clock)
    engine.queue, holders = full_queue(clock)
    call = spawn(collect(engine, model_request(priority=Priority.LOW)), name="call")
    await clock.until_sleeping()
    await clock.advance(1.5)
    for holder in holders:
        holder.leave()
    (told,) = retries(await call)
    assert (told.code, told.attempt, told.shared) == ("model.cooling_down", 0, True)
    assert told.delay_s >= 1.0
