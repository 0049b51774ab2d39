"""Tries, waits, discards, costs: one call seen from inside the gateway, with time that moves only when told."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from typing import Any

import pytest

from fakes.clock import FakeClock
from fakes.engines import collect
from fakes.model_requests import hello_turn, model_request, text_block, tool_block, turn
from fakes.providers import HANG, ScriptedProvider
from toka_runtime.aio import spawn
from toka_runtime.errors import ModelError, ModelRefused, ModelStreamBroken, ModelUnavailable
from toka_runtime.llm.base import Delta, Finished, GatewaySettings, ModelRequest, Retrying
from toka_runtime.llm.engine import Engine, Spent
from toka_runtime.llm.failures import TryFailed, failure_of_status
from toka_runtime.llm.pacing import RAMP_WIDTH, Backoff
from toka_runtime.llm.redact import Redactor


def engine_of(provider: ScriptedProvider, clock: FakeClock | None = None, **settings: Any) -> Engine:
    return Engine(
        provider,
        GatewaySettings(provider="anthropic", **settings),
        clock or FakeClock(),
        Redactor({"SECRET": "the-secret-value"}),
        default_model="default-model",
        rng=random.Random(1),
    )


async def collect_in_time(engine: Engine, clock: FakeClock, request: ModelRequest | None = None) -> list[Any]:
    """Like `collect`, moving time on whenever the call waits."""
    task = spawn(collect(engine, request), name="call")
    while not task.done():
        sleeping = spawn(clock.until_sleeping(), name="sleeping")
        await asyncio.wait({task, sleeping}, return_when=asyncio.FIRST_COMPLETED)
        sleeping.cancel()
        await clock.advance(1.0)
    return task.result()


def outage(status: int = 503, **headers: str) -> TryFailed:
    return failure_of_status(status, {name.replace("_", "-"): value for name, value in headers.items()}, "x", "down")


async def test_a_call_ends_with_everything_that_is_known_about_it() -> None:
    events = await collect(engine_of(ScriptedProvider(hello_turn("Hello there"))))
    *early, finished = events
    assert "".join(event.text for event in early if isinstance(event, Delta)) == "Hello there "
    assert isinstance(finished, Finished)
    assert (finished.request_id, finished.usage.input_tokens, finished.usage.output_tokens) == ("req_1", 100, 20)
    assert len(finished.request_digest) == 64
    assert finished.first_token_s is not None


async def test_the_default_model_is_used_when_the_request_names_none() -> None:
    provider = ScriptedProvider(hello_turn())
    await collect(engine_of(provider))
    await collect(engine_of(provider), model_request(model="another"))
    assert [request.model for request in provider.requests] == ["default-model", "another"]


async def test_secrets_don_t_reach_the_provider() -> None:
    provider = ScriptedProvider(hello_turn())
    request = model_request(
        system=("the-secret-value",),
        messages=(
            {"role": "user", "content": "read it"},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "t", "name": "x", "input": {"a": "the-secret-value"}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "A=the-secret-value"}]},
        ),
    )
    finished = (await collect(engine_of(provider), request))[-1]
    assert "the-secret-value" not in provider.requests[0].model_dump_json()
    assert finished.redactions == 3


async def test_thinking_with_a_secret_in_it_goes_back_not_at_all() -> None:
    provider = ScriptedProvider(hello_turn())
    thought = {"type": "thinking", "thinking": "so it is the-secret-value", "signature": "c2ln"}
    clean = {
        "type": "thinking",
        "thinking": "sk-ant- is a prefix",
        "signature": "eyJhbGciOiJI.eyJzdWIiOiIx.dBjftJeZ4CVP",
    }
    message = {"role": "assistant", "content": [thought, clean, {"type": "text", "text": "Well."}]}
    await collect(engine_of(provider), model_request(messages=({"role": "user", "content": "?"}, message)))
    assert provider.requests[0].messages[1]["content"] == [clean, {"type": "text", "text": "Well."}]


async def test_failures_before_the_first_text_are_retried_and_shown() -> None:
    clock = FakeClock()
    provider = ScriptedProvider(outage(529), outage(500), hello_turn())
    events = await collect_in_time(engine_of(provider, clock), clock)
    retries = [event for event in events if isinstance(event, Retrying) and event.attempt]
    assert [(r.attempt, r.code, r.discard) for r in retries if r.code != "model.cooling_down"] == [
        (1, "model.unavailable", False),
        (2, "model.unavailable", False),
    ]
    assert isinstance(events[-1], Finished)
    assert len(provider.requests) == 3


async def test_a_stream_that_ends_early_is_retried_and_its_text_is_void() -> None:
    clock = FakeClock()
    provider = ScriptedProvider(hello_turn("Half of it")[:4], hello_turn("All of it"))
    events = await collect_in_time(engine_of(provider, clock), clock)
    (retry,) = [event for event in events if isinstance(event, Retrying)]
    assert (retry.code, retry.discard) == ("model.stream_broken", True)
    before = events[: events.index(retry)]
    assert any(isinstance(event, Delta) for event in before)
    finished = events[-1]
    assert finished.content == ({"type": "text", "text": "All of it "},)
    # Both tries are paid for; the first could only be estimated.
    assert finished.usage.input_tokens == 200
    assert finished.usage.output_tokens > 20
    assert finished.usage.estimated


async def test_a_tool_input_cut_short_is_never_a_result() -> None:
    clock = FakeClock()
    broken = turn(tool_block(0, "list_files", '{"path": "'), stop="tool_use")
    good = turn(tool_block(0, "list_files", '{"path": "."}'), stop="tool_use")
    events = await collect_in_time(engine_of(ScriptedProvider(broken, good), clock), clock)
    assert [event.discard for event in events if isinstance(event, Retrying)] == [True]
    assert events[-1].content[0]["input"] == {"path": "."}


async def test_when_tries_are_used_up_the_error_tells_what_was_spent() -> None:
    clock = FakeClock()
    provider = ScriptedProvider(hello_turn("One two three")[:4])
    with pytest.raises(ModelStreamBroken, match="3 tries") as failed:
        await collect_in_time(engine_of(provider, clock, max_attempts=3), clock)
    assert failed.value.usage.input_tokens == 300
    assert failed.value.usage.estimated
    assert len(provider.requests) == 3


async def test_a_refusal_is_final() -> None:
    provider = ScriptedProvider(failure_of_status(401, {}, "authentication_error", "bad the-secret-value"))
    with pytest.raises(ModelRefused) as failed:
        await collect(engine_of(provider))
    assert len(provider.requests) == 1
    assert "the-secret-value" not in str(failed.value)
    assert "ANTHROPIC_API_KEY" in failed.value.hint


async def test_a_huge_retry_after_is_capped_and_said() -> None:
    clock = FakeClock()
    provider = ScriptedProvider(outage(429, retry_after="3600"), hello_turn())
    events = await collect_in_time(engine_of(provider, clock, max_retry_delay_s=7.0), clock)
    retry = next(event for event in events if isinstance(event, Retrying) and event.attempt == 1)
    assert retry.delay_s <= 7.0
    assert "3600 s, capped" in retry.message
    assert clock.monotonic() < 20


async def test_one_refusal_to_all_holds_back_every_call() -> None:
    clock = FakeClock()
    provider = ScriptedProvider(outage(429, retry_after="10"), hello_turn())
    engine = engine_of(provider, clock)
    first = spawn(collect(engine, model_request(call="a")), name="first")
    await clock.until_sleeping()
    second = spawn(collect(engine, model_request(call="b")), name="second")
    await clock.until_sleeping(2)
    await clock.advance(9.0)
    assert len(provider.requests) == 1, "the second call waits with the first"
    while not (first.done() and second.done()):
        await clock.advance(1.0)
        await asyncio.sleep(0)
    waited = [event for event in second.result() if isinstance(event, Retrying)]
    assert (waited[0].attempt, waited[0].code, waited[0].shared) == (0, "model.cooling_down", True)
    assert next(event.shared for event in first.result() if isinstance(event, Retrying)), "and so says the first"
    assert isinstance(second.result()[-1], Finished)


async def test_a_call_closed_in_mid_stream_ends_the_stream_at_once() -> None:
    provider = ScriptedProvider([*hello_turn("One two")[:3], HANG])
    engine = engine_of(provider)
    async with aclosing(engine.stream(model_request())) as events:
        async for event in events:
            if isinstance(event, Delta):
                break
        assert provider.open_now == 1
    assert provider.open_now == 0


async def test_a_call_cancelled_in_mid_stream_ends_the_stream_at_once() -> None:
    provider = ScriptedProvider([*hello_turn("One two")[:3], HANG])
    task = spawn(collect(engine_of(provider)), name="call")
    await provider.started.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert provider.open_now == 0


async def test_what_is_spent_is_known_from_the_start_of_the_stream() -> None:
    events = await collect(engine_of(ScriptedProvider(hello_turn())))
    spent = next(event for event in events if isinstance(event, Spent))
    assert events.index(spent) == 0
    assert (spent.usage.input_tokens, spent.usage.estimated) == (100, True)


async def test_starts_are_ramped_but_a_slow_server_does_not_make_others_queue() -> None:
    provider = ScriptedProvider(hello_turn())
    provider.opening = asyncio.Event()
    engine = engine_of(provider)
    calls = [spawn(collect(engine, model_request(call=f"m{n}")), name=f"call {n}") for n in range(RAMP_WIDTH * 2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(provider.requests) == RAMP_WIDTH
    # None of the first ones is answered, and still the others get their turn.
    while len(provider.requests) < len(calls):
        await asyncio.sleep(0.01)
    provider.opening.set()
    await asyncio.wait(calls)
    assert all(isinstance(call.result()[-1], Finished) for call in calls)


async def test_an_unexpected_status_without_retry_header_and_one_that_forbids_it() -> None:
    provider = ScriptedProvider(failure_of_status(500, {"x-should-retry": "false"}, "api_error", "no"))
    with pytest.raises(ModelUnavailable):
        await collect(engine_of(provider))
    assert len(provider.requests) == 1


def test_backoff_is_jittered_doubling_and_capped() -> None:
    backoff = Backoff(10.0, random.Random(3))
    for failed, ceiling in ((1, 0.5), (2, 1.0), (4, 4.0), (9, 10.0), (5000, 10.0)):
        delays = [backoff.delay_s(failed, None) for _ in range(200)]
        assert max(delays) <= ceiling
        assert min(delays) < ceiling / 4
    asked = [backoff.delay_s(1, 4.0) for _ in range(50)]
    assert min(asked) >= 4.0
    assert max(asked) <= 5.0
    assert backoff.delay_s(1, 1e9) == 10.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:10 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 10.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:10 GMT"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert failure_of_status(429, headers, "", "").retry_after_s == seconds


@pytest.mark.parametrize(
    ("status", "retryable", "code"),
    [
        (400, False, "model.refused"),
        (401, False, "model.refused"),
        (402, False, "model.refused"),
        (403, False, "model.refused"),
        (404, False, "model.refused"),
        (408, True, "model.unavailable"),
        (409, True, "model.unavailable"),
        (413, False, "model.prompt_too_long"),
        (422, False, "model.refused"),
        (429, True, "model.unavailable"),
        (500, True, "model.unavailable"),
        (529, True, "model.unavailable"),
    ],
)
def test_which_statuses_are_tried_again(status: int, retryable: bool, code: str) -> None:
    failure = failure_of_status(status, {}, "", "no")
    assert (failure.retryable, failure.error.code) == (retryable, code)


def test_every_model_error_carries_a_usage() -> None:
    assert ModelError("x").usage.total_tokens == 0


async def test_text_in_several_blocks_keeps_its_place() -> None:
    events = await collect(engine_of(ScriptedProvider(turn(text_block(0, "a"), text_block(1, "b")))))
    assert [(event.block, event.text) for event in events if isinstance(event, Delta)] == [(0, "a"), (1, "b")]
