"""The real SDK over real sockets: against llmock for what a well-meant server does wrong, and against a server of our
own for exact headers and wire faults."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from typing import Any

import pytest
from llmock.pytest_plugin import LLMock

from fakes.engines import API_KEY, MakeEngine, collect, retries
from fakes.messages_server import Answer, FakeMessagesServer, error_body
from fakes.model_requests import LIST_FILES, hello_turn, model_request, text_block, tool_turn, turn
from toka_runtime.aio import spawn
from toka_runtime.errors import (
    CredentialMissing,
    ModelRefused,
    ModelStreamBroken,
    ModelUnavailable,
    PromptTooLong,
)
from toka_runtime.llm.base import Delta, Finished

# -- llmock: a server with tool use, quotas and faults ------------------------------------------------------------


async def test_text(llmock: LLMock, anthropic_engine: MakeEngine) -> None:
    llmock.reply("A short answer.")
    events = await collect(anthropic_engine(llmock.base_url("anthropic")))
    assert events[-1].content == ({"type": "text", "text": "A short answer."},)
    assert events[-1].stop_reason == "end_turn"
    assert events[-1].usage.input_tokens > 0
    assert not events[-1].usage.estimated


async def test_a_tool_call(llmock: LLMock, anthropic_engine: MakeEngine) -> None:
    llmock.call_tool("list_files", {"path": "docs/a rather long path, cut into several pieces"}, text="Looking.")
    finished = (await collect(anthropic_engine(llmock.base_url("anthropic"))))[-1]
    assert finished.stop_reason == "tool_use"
    assert [block["type"] for block in finished.content] == ["text", "tool_use"]
    assert finished.content[1]["input"] == {"path": "docs/a rather long path, cut into several pieces"}


async def test_a_malformed_tool_call_is_asked_again(llmock: LLMock, anthropic_engine: MakeEngine) -> None:
    llmock.call_tool("list_files", {"path": "docs"}, times=2).break_tool_call()
    events = await collect(anthropic_engine(llmock.base_url("anthropic")))
    assert [(retry.code, retry.discard) for retry in retries(events)] == [("model.stream_broken", True)]
    assert events[-1].content[0]["input"] == {"path": "docs"}


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 529])
async def test_outages_are_tried_again(llmock: LLMock, anthropic_engine: MakeEngine, status: int) -> None:
    llmock.fail(status, times=2, retry_after=0.01).reply("There.")
    events = await collect(anthropic_engine(llmock.base_url("anthropic")))
    assert [retry.discard for retry in retries(events) if retry.attempt] == [False, False]
    assert isinstance(events[-1], Finished)
    llmock.assert_resilient()


async def test_the_cap_on_retry_after_holds(llmock: LLMock, anthropic_engine: MakeEngine) -> None:
    llmock.rate_limit(retry_after=3600).reply("There.")
    async with asyncio.timeout(5):
        events = await collect(anthropic_engine(llmock.base_url("anthropic"), max_retry_delay_s=0.1))
    assert retries(events)[0].delay_s <= 0.1
    assert "3600 s" in retries(events)[0].message


@pytest.mark.parametrize(("status", "error"), [(401, ModelRefused), (403, ModelRefused), (404, ModelRefused)])
async def test_refusals_are_final(
    llmock: LLMock, anthropic_engine: MakeEngine, status: int, error: type[Exception]
) -> None:
    llmock.fail(status, times=None)
    with pytest.raises(error) as failed:
        await collect(anthropic_engine(llmock.base_url("anthropic")))
    assert failed.value.hint  # type: ignore[attr-defined]
    assert len(llmock.requests) == 1


async def test_a_prompt_that_is_too_long(llmock: LLMock, anthropic_engine: MakeEngine) -> None:
    llmock.limits(context_window=10)
    request = model_request(messages=({"role": "user", "content": "word " * 500},))
    with pytest.raises(PromptTooLong) as failed:
        await collect(anthropic_engine(llmock.base_url("anthropic")), request)
    assert failed.value.code == "model.prompt_too_long"


@pytest.mark.parametrize("fault", ["truncate", "disconnect", "corrupt"])
@pytest.mark.parametrize("after", [0, 3, 5])
async def test_a_broken_stream_is_asked_again_and_never_a_result(
    llmock: LLMock, anthropic_engine: MakeEngine, fault: str, after: int
) -> None:
    llmock.reply("One two three four five six seven.", times=None)
    getattr(llmock, fault)(after_chunks=after)
    events = await collect(anthropic_engine(llmock.base_url("anthropic")))
    (retry,) = retries(events)
    assert retry.discard is any(isinstance(event, Delta) for event in events[: events.index(retry)])
    assert events[-1].content == ({"type": "text", "text": "One two three four five six seven."},)


async def test_a_stream_that_falls_silent_is_asked_again(llmock: LLMock, anthropic_engine: MakeEngine) -> None:
    llmock.reply("One two three.", times=None).stall(after_chunks=4, seconds=30)
    events = await collect(anthropic_engine(llmock.base_url("anthropic"), idle_timeout_s=0.3))
    assert [retry.code for retry in retries(events)] == ["model.stream_broken"]
    assert isinstance(events[-1], Finished)


# -- a server of our own: what exactly is sent, what exactly comes back -------------------------------------------


async def test_headers(anthropic_engine: MakeEngine) -> None:
    async with FakeMessagesServer(Answer(events=hello_turn())) as server:
        finished = (await collect(anthropic_engine(server.url)))[-1]
    (received,) = server.received
    assert received.path == "/v1/messages"
    assert received.headers["authorization"] == f"Bearer {API_KEY}"
    assert received.headers["anthropic-version"] == "2026-10-21"
    assert received.headers["content-type"] == "application/json"
    assert "x-api-key" not in received.headers
    assert finished.request_id == "req_1"


async def test_an_auth_token_and_no_trace_of_it_in_the_environment(anthropic_engine: MakeEngine) -> None:
    async with FakeMessagesServer(Answer(events=hello_turn())) as server:
        await collect(anthropic_engine(server.url, environ={"ANTHROPIC_AUTH_TOKEN": "token-0123456789"}))
    assert server.received[0].headers["authorization"] == "Bearer token-0123456789"
    assert not [name for name in os.environ if name.startswith("ANTHROPIC_")]


async def test_no_credential_sends_nothing(anthropic_engine: MakeEngine) -> None:
    async with FakeMessagesServer(Answer(events=hello_turn())) as server:
        with pytest.raises(CredentialMissing) as failed:
            await collect(anthropic_engine(server.url, environ={}))
    assert server.received == []
    assert "ANTHROPIC_API_KEY" in failed.value.hint


async def test_a_broken_profile_is_a_missing_credential(anthropic_engine: MakeEngine, tmp_path: Any) -> None:
    environ = {"ANTHROPIC_PROFILE": "absent", "ANTHROPIC_CONFIG_DIR": str(tmp_path)}
    with pytest.raises(CredentialMissing):
        anthropic_engine("http://127.0.0.1:1", environ=environ)


async def test_a_server_that_is_not_there(anthropic_engine: MakeEngine) -> None:
    with pytest.raises(ModelUnavailable, match="could not be reached"):
        await collect(anthropic_engine("http://127.0.0.1:1", max_attempts=2))


async def test_a_server_that_answers_without_a_stream(anthropic_engine: MakeEngine) -> None:
    async with FakeMessagesServer(Answer(body={"hello": "world"})) as server:
        with pytest.raises(ModelRefused, match="instead of a stream"):
            await collect(anthropic_engine(server.url))


@pytest.mark.parametrize(
    ("kind", "error"), [("overloaded_error", ModelUnavailable), ("authentication_error", ModelRefused)]
)
async def test_an_error_event_in_mid_stream(anthropic_engine: MakeEngine, kind: str, error: type[Exception]) -> None:
    events = [*hello_turn("One two")[:3], error_body(kind, "from the middle")]
    async with FakeMessagesServer(Answer(events=events)) as server:
        with pytest.raises(error, match="from the middle") as failed:
            await collect(anthropic_engine(server.url, max_attempts=2))
    assert len(server.received) == (2 if error is ModelUnavailable else 1)
    assert failed.value.usage.input_tokens == 100 * len(server.received)  # type: ignore[attr-defined]


@pytest.mark.parametrize("data", ['{"type": "content_bl', "[1, 2]", "null", "\x00"])
async def test_an_event_that_cannot_be_read(anthropic_engine: MakeEngine, data: str) -> None:
    async with FakeMessagesServer(Answer(events=[hello_turn()[0], data]), Answer(events=hello_turn())) as server:
        events = await collect(anthropic_engine(server.url))
    assert [retry.code for retry in retries(events)] == ["model.stream_broken"]


async def test_a_connection_that_is_reset(anthropic_engine: MakeEngine) -> None:
    async with FakeMessagesServer(Answer(events=hello_turn()[:3], end="reset")) as server:
        with pytest.raises(ModelStreamBroken):
            await collect(anthropic_engine(server.url, max_attempts=1))


async def test_cancelling_drops_the_connection_at_once(anthropic_engine: MakeEngine) -> None:
    async with FakeMessagesServer(Answer(events=hello_turn("One two three")[:4], end="stall")) as server:
        engine = anthropic_engine(server.url)
        first_text = asyncio.Event()

        async def read() -> None:
            async with aclosing(engine.stream(model_request())) as events:
                async for event in events:
                    if isinstance(event, Delta):
                        first_text.set()

        task = spawn(read(), name="read")
        await first_text.wait()
        task.cancel()
        async with asyncio.timeout(2):
            await asyncio.wait([task])
            await server.closed_by_client.wait()
        assert task.cancelled()


async def test_a_whole_answer_gives_its_connection_back(anthropic_engine: MakeEngine) -> None:
    async with FakeMessagesServer(Answer(events=hello_turn())) as server:
        engine = anthropic_engine(server.url)
        for _ in range(3):
            await collect(engine)
    assert len(server.received) == 3
    assert server.connections == 1


async def test_a_server_that_never_closes_a_whole_answer(anthropic_engine: MakeEngine) -> None:
    async with FakeMessagesServer(Answer(events=hello_turn("Done"), end="stall")) as server, asyncio.timeout(5):
        assert isinstance((await collect(anthropic_engine(server.url)))[-1], Finished)


async def test_many_streams_at_once(anthropic_engine: MakeEngine) -> None:
    async with FakeMessagesServer(Answer(events=tool_turn(path="."))) as server:
        engine = anthropic_engine(server.url)
        calls = [spawn(collect(engine, model_request(call=f"m{n}")), name=f"{n}") for n in range(40)]
        await asyncio.wait(calls)
    assert all(isinstance(call.result()[-1], Finished) for call in calls)
    assert len(server.received) == 40


async def test_a_model_about_to_be_retired_is_noticed(anthropic_engine: MakeEngine) -> None:
    async with FakeMessagesServer(Answer(events=hello_turn())) as server:
        engine = anthropic_engine(server.url)
        with pytest.warns(DeprecationWarning, match="claude-sonnet-4-5"):
            old = (await collect(engine, model_request(model="claude-sonnet-4-5")))[-1]
        new = (await collect(engine, model_request(tools=[LIST_FILES])))[-1]
    assert "deprecated" in old.notice
    assert new.notice == ""


async def test_the_same_turn_costs_the_list_price(anthropic_engine: MakeEngine) -> None:
    from toka_runtime.llm.models import DEFAULT_MODEL
    from toka_runtime.llm.pricing import price_usd
    from toka_runtime.protocol.usage import TokenUsage

    usage = TokenUsage(input_tokens=1_000_000, output_tokens=1_000_000)
    priced = price_usd(DEFAULT_MODEL, usage)
    assert priced is not None
    assert 1 < priced < 100
    cached = price_usd(DEFAULT_MODEL, TokenUsage(cache_read_tokens=1_000_000))
    assert cached is not None
    assert 0 < cached < price_usd(DEFAULT_MODEL, TokenUsage(input_tokens=1_000_000))  # type: ignore[operator]
    assert price_usd("some-local-model", usage) is None


async def test_an_answer_as_the_default_model_thinks_it(anthropic_engine: MakeEngine) -> None:
    start = {"type": "thinking", "thinking": "", "signature": ""}
    thought = [
        {"type": "content_block_start", "index": 0, "content_block": start},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Let me see."}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
        {"type": "content_block_stop", "index": 0},
    ]
    async with FakeMessagesServer(Answer(events=turn(thought, text_block(1, "Yes.")))) as server:
        events = await collect(anthropic_engine(server.url))
    assert [event.kind for event in events if isinstance(event, Delta)] == ["thinking", "text"]
    assert events[-1].content[0] == {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"}
