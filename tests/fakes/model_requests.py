"""Model requests and raw event streams, as the runtime and the API make them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from toka_runtime.llm.base import CallContext, ModelRequest
from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.ids import AgentName, CallId, RunId
from toka_runtime.protocol.spec import Priority

RawEvent = dict[str, Any]

LIST_FILES = {
    "name": "list_files",
    "description": "List files.",
    "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
}


def model_request(
    *,
    agent: str = "builder",
    run: str = "r1",
    call: str = "m1",
    task: int = 0,
    attempt: int = 1,
    turn: int = 1,
    description: str = "Update the documentation",
    rights: Rights | None = None,
    priority: Priority = Priority.MEDIUM,
    system: Sequence[str] = ("You are an agent.",),
    messages: Iterable[dict[str, Any]] = ({"role": "user", "content": "Do the task."},),
    tools: Iterable[dict[str, Any]] = (LIST_FILES,),
    model: str = "",
    max_tokens: int = 1000,
) -> ModelRequest:
    return ModelRequest(
        context=CallContext(
            agent=AgentName(agent),
            run=RunId(run),
            call=CallId(call),
            task=task,
            task_total=2,
            task_description=description,
            attempt=attempt,
            turn=turn,
            rights=rights or Rights(),
            priority=priority,
        ),
        model=model,
        system=tuple(system),
        messages=tuple(messages),
        tools=tuple(tools),
        max_tokens=max_tokens,
    )


def text_block(index: int, *pieces: str) -> list[RawEvent]:
    return [
        {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": p}} for p in pieces),
        {"type": "content_block_stop", "index": index},
    ]


def tool_block(index: int, name: str, *pieces: str, call_id: str = "toolu_1") -> list[RawEvent]:
    start = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
    delta = "input_json_delta"
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": {"type": delta, "partial_json": p}} for p in pieces),
        {"type": "content_block_stop", "index": index},
    ]


def turn(
    *blocks: list[RawEvent], stop: str = "end_turn", input_tokens: int = 100, output_tokens: int = 20, **usage: int
) -> list[RawEvent]:
    """A whole stream."""
    first = {"input_tokens": input_tokens, "output_tokens": 1, **usage}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-test", "content": []}
    return [
        {"type": "message_start", "message": {**message, "stop_reason": None, "usage": first}},
        *(event for block in blocks for event in block),
        {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": output_tokens}},
        {"type": "message_stop"},
    ]


def hello_turn(text: str = "Hello there, world") -> list[RawEvent]:
    return turn(text_block(0, *(word + " " for word in text.split())))


def tool_turn(name: str = "list_files", **arguments: Any) -> list[RawEvent]:
    text = json.dumps(arguments)
    return turn(text_block(0, "Looking."), tool_block(1, name, text[:5], text[5:]), stop="tool_use")
