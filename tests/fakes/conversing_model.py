"""llmock with a mind: it answers by what the conversation holds, so that agents who talk to it at once each get
their own turn. Faults that a test queues in llmock come first, as ever."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from llmock.scenarios import Fail, Plan, Reply, RequestInfo, ScenarioQueue, StreamFault, ToolCall
from llmock.testing import LLMockServer

Body = dict[str, Any]
Mind = Callable[[Body], Reply]
"""(body of a Messages request) → what the model says. Called in the server's thread."""

_BODY: ContextVar[Body] = ContextVar("body")


class ConversingModel:
    """A real HTTP server on loopback. `requests`: every body it was sent, in order, those it failed included."""

    def __init__(self, server: LLMockServer, queue: _Queue) -> None:
        self._queue = queue
        self.base_url = server.base_url("anthropic")
        self.requests = queue.requests

    def fail(self, status: int, *, times: int = 1, retry_after: float = 0.01) -> None:
        self._queue.add(Fail(status, retry_after=retry_after, times=times))

    def cut(self, *, after_chunks: int, times: int = 1) -> None:
        """The next streams end early, as if they were whole."""
        self._queue.add(StreamFault("truncate", after_chunks=after_chunks, times=times))


@contextlib.contextmanager
def conversing_model(mind: Mind) -> Generator[ConversingModel]:
    server = LLMockServer()
    queue = _Queue(mind)
    server.state.scenarios = queue
    server.app.add_middleware(_Reading)
    with server:
        yield ConversingModel(server, queue)


def results(body: Body) -> list[Body]:
    """The tool results of the conversation, in order."""
    return [
        block
        for message in body["messages"]
        if isinstance(message["content"], list)
        for block in message["content"]
        if block.get("type") == "tool_result"
    ]


def first_words(body: Body) -> str:
    """The task's prompt."""
    content = body["messages"][0]["content"]
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def offered(body: Body) -> set[str]:
    return {tool["name"] for tool in body.get("tools", ())}


def call(*calls: tuple[str, Body], text: str | None = None) -> Reply:
    return Reply(text=text, tool_calls=tuple(ToolCall(name, arguments) for name, arguments in calls))


def finish(status: str = "done", summary: str = "done as asked") -> Reply:
    return call(("finish", {"status": status, "summary": summary, "evidence": ["looked at it"]}))


class _Queue(ScenarioQueue):
    def __init__(self, mind: Mind) -> None:
        super().__init__()
        self._mind = mind
        self.requests: list[Body] = []

    def plan_for(self, info: RequestInfo) -> Plan:
        plan = super().plan_for(info)
        body = _BODY.get()
        self.requests.append(body)
        if plan.fail is not None or plan.reply is not None:
            return plan
        return replace(plan, reply=self._mind(body))


class _Reading:
    """Lets the queue see the body, which llmock does not hand to it."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        messages: list[Any] = []
        while not messages or messages[-1].get("more_body", False):
            messages.append(await receive())
        _BODY.set(json.loads(b"".join(message.get("body", b"") for message in messages)))

        async def again() -> Any:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, again, send)
