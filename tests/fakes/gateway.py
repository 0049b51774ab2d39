"""A model gateway whose answers a test writes: the far side of `llm.base.ModelGateway`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from toka_runtime.llm.base import Delta, Finished, ModelEvent, ModelRequest
from toka_runtime.protocol.ids import CallId, RunId
from toka_runtime.protocol.usage import TokenUsage

Answer = Finished | BaseException | asyncio.Event
"""An Event: the call hangs until it is set, and then answers with an empty turn."""


def tool_turn(*calls: tuple[str, dict[str, Any]], text: str = "") -> Finished:
    """A turn with tool calls (name, input)."""
    blocks: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    for number, (name, arguments) in enumerate(calls):
        blocks.append({"type": "tool_use", "id": f"toolu_{number}_{id(calls):x}", "name": name, "input": arguments})
    usage = TokenUsage(input_tokens=10, output_tokens=5)
    return Finished(content=tuple(blocks), stop_reason="tool_use", model="fake", usage=usage, cost_usd=0.001)


def finish(status: str = "done", summary: str = "did it") -> Finished:
    return tool_turn(("finish", {"status": status, "summary": summary, "evidence": []}))


def say(text: str) -> Finished:
    return Finished(content=({"type": "text", "text": text},), stop_reason="end_turn", model="fake")


class FakeGateway:
    """`brain(request)` decides each turn. Every request is kept in `requests`; `called` is set at each call."""

    def __init__(self, brain: Callable[[ModelRequest], Answer]) -> None:
        self._brain = brain
        self.requests: list[ModelRequest] = []
        self.called = asyncio.Event()
        self.cancelled = 0
        self.usd_per_token = 0.0
        self.closed = False
        self.held: set[RunId] = set()

    async def hold(self, run: RunId) -> None:
        self.held.add(run)

    def release(self, run: RunId) -> None:
        self.held.discard(run)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        self.requests.append(request)
        self.called.set()
        answer = self._brain(request)
        if isinstance(answer, asyncio.Event):
            try:
                await answer.wait()
            except (asyncio.CancelledError, GeneratorExit):
                self.cancelled += 1
                raise
            answer = say("")
        if isinstance(answer, BaseException):
            raise answer
        for index, block in enumerate(answer.content):
            if block["type"] == "text":
                yield Delta(kind="text", text=block["text"], block=index)
        yield answer

    def last_usage(self, call: CallId, run: RunId | None = None) -> TokenUsage:
        return TokenUsage(input_tokens=10, output_tokens=1, estimated=True)

    async def quote(self, model: str, usage: TokenUsage) -> float | None:
        return usage.total_tokens * self.usd_per_token

    async def aclose(self) -> None:
        self.closed = True


def tool_results(request: ModelRequest) -> int:
    """How many tool results the conversation holds: the usual way to script turns without state."""
    return sum(
        block.get("type") == "tool_result"
        for message in request.messages
        if isinstance(message["content"], list)
        for block in message["content"]
    )
