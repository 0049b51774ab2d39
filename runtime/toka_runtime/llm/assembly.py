"""From raw stream events of the Messages API to text as it streams and, at the end, one checked turn.

A stream is believed only as far as it goes: there is no result before `message_stop`, no tool call before its block was
closed and its joined JSON is an object, and none at all unless the turn ended in order to call tools. A turn that was
cut (`max_tokens` and the like) keeps its text; its tool calls, whole or not, are taken out and named in `cut_tools`, so
that whoever reads the content cannot run one by accident. A whole call whose input does not fit the tool's schema stays
in the content, for the model to be told, and is named in `rejected_tools`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from toka_runtime.errors import ModelStreamBroken
from toka_runtime.llm.base import Delta, Finished, RejectedTool
from toka_runtime.llm.failures import failure_of_error_event
from toka_runtime.llm.json_value import as_object
from toka_runtime.llm.tool_schema import misfit
from toka_runtime.protocol.usage import TokenUsage

CHARACTERS_PER_TOKEN = 3.5
"""For estimates of what a stream that was cut had cost: on the high side for English and code."""

_TEXT_DELTAS: dict[str, tuple[str, str, Literal["text", "thinking", "tool_input"]]] = {
    "text_delta": ("text", "text", "text"),
    "thinking_delta": ("thinking", "thinking", "thinking"),
    "input_json_delta": ("tool_use", "partial_json", "tool_input"),
}


def estimate_tokens(characters: int) -> int:
    return math.ceil(characters / CHARACTERS_PER_TOKEN)


def whole_text(text: str) -> str:
    """Text that UTF-8 can hold. A server that counts in UTF-16 may cut an emoji in two: neighbouring halves are joined
    again, what stays alone is replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


@dataclass(slots=True)
class _Block:
    start: dict[str, Any]
    pieces: list[str] = field(default_factory=list[str])
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    """signature, citations."""
    closed: bool = False

    @property
    def kind(self) -> str:
        return str(self.start.get("type", ""))


class Assembly:
    """One stream, one try. `feed` its events in order; `finished` is the turn once it is whole."""

    def __init__(self, tools: Iterable[dict[str, Any]] = ()) -> None:
        """`tools` as in the request: their schemas are what tool inputs are checked against."""
        self._schemas = {str(tool.get("name")): tool.get("input_schema") for tool in tools}
        self._blocks: dict[int, _Block] = {}
        self._started = False
        self._model = ""
        self._stop_reason: str | None = None
        self._counts: dict[str, int] = {}
        self._counted = False
        self._characters = 0
        self.finished: Finished | None = None

    def feed(self, event: dict[str, Any]) -> Delta | None:
        """Raises ModelStreamBroken for an event that cannot be, TryFailed for an `error` event. Events of unknown types
        are ignored, as the API asks."""
        if self.finished is not None:
            return None
        match event.get("type"):
            case "content_block_delta":
                return self._delta(event)
            case "content_block_start":
                self._open(event)
            case "content_block_stop":
                self._block(event).closed = True
            case "message_start":
                self._start(event)
            case "message_delta":
                self._need_start("message_delta")
                self._stop_reason = as_object(event.get("delta")).get("stop_reason") or self._stop_reason
                self._count(event.get("usage"))
                self._counted = True
            case "message_stop":
                self._need_start("message_stop")
                self.finished = self._finish()
            case "error":
                raise failure_of_error_event(event)
            case _:
                pass
        return None

    def end(self) -> Finished:
        """The stream has no more events. Raises ModelStreamBroken when the turn is not whole."""
        if self.finished is None:
            raise ModelStreamBroken(
                "the stream ended early" if self._started else "the stream ended before it began",
            )
        return self.finished

    @property
    def usage(self) -> TokenUsage:
        """What the stream has cost so far: estimated until the provider has sent its final count."""
        output = self._counts.get("output_tokens", 0)
        return TokenUsage(
            input_tokens=self._counts.get("input_tokens", 0),
            output_tokens=output if self._counted else max(output, estimate_tokens(self._characters)),
            cache_read_tokens=self._counts.get("cache_read_input_tokens", 0),
            cache_write_tokens=self._counts.get("cache_creation_input_tokens", 0),
            estimated=self._started and not self._counted,
        )

    @property
    def started(self) -> bool:
        """`message_start` has come: input and cache tokens are known, and will be billed."""
        return self._started

    def _start(self, event: dict[str, Any]) -> None:
        if self._started:
            raise ModelStreamBroken("a second message began in one stream")
        self._started = True
        message = as_object(event.get("message"))
        self._model = str(message.get("model") or "")
        self._count(message.get("usage"))

    def _count(self, usage: Any) -> None:
        # Cumulative; a server that cannot count leaves some out or sends null.
        for name, value in as_object(usage).items():
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                self._counts[name] = value

    def _open(self, event: dict[str, Any]) -> None:
        self._need_start("content_block_start")
        index = event.get("index")
        if not isinstance(index, int) or index in self._blocks:
            raise ModelStreamBroken(f"content block {index!r} began twice or has no place")
        self._blocks[index] = _Block(as_object(event.get("content_block")))

    def _block(self, event: dict[str, Any]) -> _Block:
        index = event.get("index")
        block = self._blocks.get(index) if isinstance(index, int) else None
        if block is None or block.closed:
            raise ModelStreamBroken(f"{event.get('type')} for content block {index!r}, which is not open")
        return block

    def _delta(self, event: dict[str, Any]) -> Delta | None:
        block, delta = self._block(event), as_object(event.get("delta"))
        kind = delta.get("type")
        if kind in _TEXT_DELTAS:
            wanted, name, shown = _TEXT_DELTAS[kind]
            text = delta.get(name)
            if block.kind != wanted or not isinstance(text, str):
                raise ModelStreamBroken(f"{kind} in a content block of type {block.kind!r}")
            block.pieces.append(text)
            self._characters += len(text)
            return Delta(kind=shown, text=whole_text(text), block=event["index"]) if text else None
        if kind == "signature_delta":
            block.extra["signature"] = block.extra.get("signature", "") + str(delta.get("signature") or "")
        elif kind == "citations_delta":
            block.extra["citations"] = [*(block.extra.get("citations") or []), delta.get("citation")]
        return None

    def _need_start(self, what: str) -> None:
        if not self._started:
            raise ModelStreamBroken(f"{what} before message_start")

    def _finish(self) -> Finished:
        reason = self._stop_reason
        if reason is None:
            raise ModelStreamBroken("the message ended without a stop reason")
        whole = reason in ("end_turn", "tool_use", "stop_sequence", "pause_turn")
        content: list[dict[str, Any]] = []
        rejected: list[RejectedTool] = []
        cut: list[str] = []
        for index in sorted(self._blocks):
            block = self._blocks[index]
            if whole and not block.closed:
                raise ModelStreamBroken(f"the message ended inside a content block of type {block.kind!r}")
            if block.kind == "tool_use":
                if reason == "tool_use":
                    call = self._tool_call(block)
                    content.append(call)
                    problem = misfit(call["input"], self._schemas.get(call["name"]))
                    if problem is not None:
                        rejected.append(RejectedTool(id=call["id"], name=call["name"], reason=problem))
                else:
                    cut.append(str(block.start.get("name", "")))
            elif (plain := _plain(block)) is not None:
                content.append(plain)
        if reason == "tool_use" and not any(block["type"] == "tool_use" for block in content):
            raise ModelStreamBroken("the message ended in order to call a tool, but calls none")
        if cut and not content:
            # The API refuses an empty turn, and the model must learn what became of its call.
            content.append({"type": "text", "text": f"(The call of {', '.join(cut)} was cut off and did not run.)"})
        return Finished(
            content=tuple(content),
            stop_reason=reason,
            model=self._model,
            usage=self.usage,
            cut_tools=tuple(cut),
            rejected_tools=tuple(rejected),
        )

    def _tool_call(self, block: _Block) -> dict[str, Any]:
        name, call_id = block.start.get("name"), block.start.get("id")
        if not (isinstance(name, str) and name and isinstance(call_id, str) and call_id):
            raise ModelStreamBroken("a tool call has no name or no id")
        joined = "".join(block.pieces)
        arguments: Any = block.start.get("input")
        if joined.strip():
            try:
                arguments = json.loads(joined, parse_constant=_refuse_constant)
            except (ValueError, RecursionError):
                raise ModelStreamBroken(f"the input of tool {name} is not valid JSON") from None
        if not isinstance(arguments, dict):
            raise ModelStreamBroken(f"the input of tool {name} is not a JSON object")
        return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def _plain(block: _Block) -> dict[str, Any] | None:
    """A block of another kind, as it goes back into the conversation; None for one that must not go back."""
    joined = whole_text("".join(block.pieces))
    match block.kind:
        case "text":
            text = str(block.start.get("text") or "") + joined
            # The API refuses empty text.
            return {"type": "text", "text": text, **block.extra} if text.strip() else None
        case "thinking":
            signature = str(block.start.get("signature") or "") + block.extra.get("signature", "")
            thinking = str(block.start.get("thinking") or "") + joined
            # Thinking without its signature was cut, and would be refused.
            return {"type": "thinking", "thinking": thinking, "signature": signature} if signature else None
        case _:
            return block.start if block.closed else None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
