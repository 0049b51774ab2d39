"""Provider `rehearsal`: no model. Plays a script (`rehearsal_script`) as a genuine stream of raw events, so that
gateway, worker, tools, denials and screens are the production path and only the brain is missing. Stateless: what comes
next depends on the request alone. Every text says that there is no model; the usage is zero."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager

from toka_runtime.clock import Clock
from toka_runtime.llm.base import ModelRequest
from toka_runtime.llm.provider import Opened, RawEvent
from toka_runtime.llm.rehearsal_script import Step, next_step

MODEL = "rehearsal"
_TEXT_PIECE = re.compile(r"(?:\S+\s*){1,3}|\s+")
_INPUT_PIECE_CHARS = 24


class RehearsalProvider:
    name = "rehearsal"
    free = True

    def __init__(self, clock: Clock, delay_s: float) -> None:
        """`delay_s`: pause between streamed pieces."""
        self._clock = clock
        self._delay_s = delay_s

    def notice(self, model: str) -> str:
        return ""

    @asynccontextmanager
    async def open(self, request: ModelRequest, attempt: int) -> AsyncGenerator[Opened]:
        yield Opened(events=self._events(request))

    async def _events(self, request: ModelRequest) -> AsyncIterator[RawEvent]:
        for event in stream_events(next_step(request), request):
            if event["type"] == "content_block_delta" and self._delay_s > 0:
                await self._clock.sleep(self._delay_s)
            yield event

    async def aclose(self) -> None:
        pass


def stream_events(step: Step, request: ModelRequest) -> Iterator[RawEvent]:
    """One turn, exactly as the Messages API would stream it."""
    context = request.context
    place = f"{context.agent}-{context.task}-{context.attempt}-{step.number}"
    usage = {
        "input_tokens": 0,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 0,
    }
    message: RawEvent = {
        "id": f"msg_rehearsal_{place}",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    yield {"type": "message_start", "message": message}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for piece in _TEXT_PIECE.findall(step.text):
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
    yield {"type": "content_block_stop", "index": 0}
    for index, call in enumerate(step.calls, 1):
        start: RawEvent = {"type": "tool_use", "id": f"toolu_rehearsal_{place}_{index}", "name": call.tool, "input": {}}
        yield {"type": "content_block_start", "index": index, "content_block": start}
        text = json.dumps(call.arguments, ensure_ascii=False)
        for at in range(0, len(text), _INPUT_PIECE_CHARS):
            delta = {"type": "input_json_delta", "partial_json": text[at : at + _INPUT_PIECE_CHARS]}
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    reason = "tool_use" if step.calls else "end_turn"
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": reason, "stop_sequence": None},
        "usage": {"output_tokens": 0},
    }
    yield {"type": "message_stop"}
