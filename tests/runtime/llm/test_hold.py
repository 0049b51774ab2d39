"""Between the acknowledgement of a hold and the release no request leaves, on a real wire."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest

from fakes.engines import API_KEY, collect
from fakes.messages_server import Answer, FakeMessagesServer, error_body
from fakes.model_requests import hello_turn, model_request
from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.clock import SystemClock
from toka_runtime.errors import GatewayLost
from toka_runtime.llm import gateway as gateway_module
from toka_runtime.llm import link as link_module
from toka_runtime.llm.base import Finished, GatewaySettings
from toka_runtime.llm.gateway import Gateway
from toka_runtime.protocol.ids import RunId

RUN = RunId("mine")
BASE = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "PYTHONPATH")}
OVERLOADED = Answer(status=529, body=error_body("overloaded_error", "Overloaded"))
TRIES_FOR_EVER: dict[str, Any] = {"max_attempts": 10_000, "max_retry_delay_s": 0.01}


@pytest.fixture
async def stack() -> AsyncGenerator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def gateway_to(stack: AsyncExitStack, server: FakeMessagesServer) -> Gateway:
    await stack.enter_async_context(server)
    settings = GatewaySettings(provider="anthropic", base_url=server.url, **TRIES_FOR_EVER)
    gateway = Gateway(settings, SystemClock(), environ={**BASE, "ANTHROPIC_API_KEY": API_KEY})
    stack.push_async_callback(gateway.aclose)
    await gateway.start()
    return gateway


def calling(stack: AsyncExitStack, gateway: Gateway, run: str) -> asyncio.Task[Any]:
    """A call of the run, which says so in its prompt."""
    call = spawn(collect(gateway, model_request(run=run, messages=[{"role": "user", "content": run}])))
    stack.push_async_callback(cancel_and_wait, call)
    return call


def of(server: FakeMessagesServer, run: str) -> int:
    return sum(run in str(each.body["messages"]) for each in server.received)


async def until_more(server: FakeMessagesServer, run: str, more: int = 1) -> None:
    wanted = of(server, run) + more
    async with asyncio.timeout(20):
        while of(server, run) < wanted:
            await asyncio.sleep(0.001)


async def read_out() -> None:
    """What was in the server's sockets when this began is read."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_call_that_retries_makes_no_request_until_it_is_released(stack: AsyncExitStack) -> None:
    server = FakeMessagesServer(OVERLOADED)
    gateway = await gateway_to(stack, server)
    calling(stack, gateway, "mine")
    await until_more(server, "mine", 2)
    await gateway.hold(RUN)
    await read_out()
    told = of(server, "mine")
    # Meanwhile others go on, and it would have, too.
    calling(stack, gateway, "other")
    await until_more(server, "other", 8)
    assert of(server, "mine") == told
    gateway.release(RUN)
    await until_more(server, "mine")


async def test_a_held_run_begins_no_call_and_goes_on_with_what_streams(stack: AsyncExitStack) -> None:
    server = FakeMessagesServer(Answer(events=hello_turn()))
    gateway = await gateway_to(stack, server)
    await gateway.hold(RUN)
    mine = calling(stack, gateway, "mine")
    other = calling(stack, gateway, "other")
    assert isinstance((await other)[-1], Finished)
    await read_out()
    assert of(server, "mine") == 0
    gateway.release(RUN)
    assert isinstance((await mine)[-1], Finished)


async def test_a_new_gateway_process_knows_who_is_held(stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "RESTART_PAUSE_S", 0.0)
    server = FakeMessagesServer(Answer(events=hello_turn()))
    gateway = await gateway_to(stack, server)
    await gateway.hold(RUN)
    assert gateway.pid
    os.kill(gateway.pid, signal.SIGKILL)
    with suppress(GatewayLost):
        await calling(stack, gateway, "other")
    mine = calling(stack, gateway, "mine")
    assert isinstance((await calling(stack, gateway, "other"))[-1], Finished)
    assert of(server, "mine") == 0
    gateway.release(RUN)
    assert isinstance((await mine)[-1], Finished)


async def test_a_gateway_that_does_not_confirm_is_said(stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "HOLD_S", 0.05)
    gateway = await gateway_to(stack, FakeMessagesServer(OVERLOADED))
    assert gateway.pid
    os.kill(gateway.pid, signal.SIGSTOP)
    try:
        with pytest.raises(GatewayLost, match="not confirmed"):
            await gateway.hold(RUN)
    finally:
        os.kill(gateway.pid, signal.SIGCONT)


async def test_two_hundred_holds_at_random_moments(stack: AsyncExitStack) -> None:
    server = FakeMessagesServer(OVERLOADED)
    gateway = await gateway_to(stack, server)
    for _ in range(3):
        calling(stack, gateway, "mine")
    calling(stack, gateway, "other")
    rng = random.Random(4)
    await until_more(server, "mine")
    for _ in range(200):
        await asyncio.sleep(rng.uniform(0.0, 0.008))
        await gateway.hold(RUN)
        await read_out()
        told = of(server, "mine")
        await asyncio.sleep(rng.uniform(0.0, 0.012))
        assert of(server, "mine") == told
        gateway.release(RUN)
    await until_more(server, "mine")
