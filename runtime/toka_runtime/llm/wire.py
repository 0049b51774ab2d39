"""What the runtime and the gateway process say to each other.

runtime → gateway: hello, call, cancel, quote. gateway → runtime: ready or failed; for each call by its number: deltas,
spent, retrying, and at last finished or error; quoted for a quote. After a cancel nothing more is said about a call.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from toka_runtime import errors
from toka_runtime.errors import ModelError, ModelRefused, PromptTooLong
from toka_runtime.llm.base import Delta, Finished, ModelEvent, ModelRequest, Retrying
from toka_runtime.protocol.usage import TokenUsage
from toka_runtime.worker.frames import MAX_FRAME_BYTES, Frame

_SLICE_S = 0.0005


async def call_frame(number: int, request: ModelRequest) -> bytes:
    """The bytes of a `call` frame. A conversation can be megabytes: it is encoded message by message, leaving the event
    loop in between. Raises PromptTooLong for what no provider would take either, ModelRefused for what is no JSON."""
    head = request.model_dump(mode="json", exclude={"messages"})
    parts: list[bytes] = []
    began = time.perf_counter()
    for message in request.messages:
        parts.append(_json(message))
        if time.perf_counter() - began > _SLICE_S:
            await asyncio.sleep(0)
            began = time.perf_counter()
    opening = _json({"t": "call", "id": number, "request": head})[:-2]
    body = opening + b',"messages":[' + b",".join(parts) + b"]}}"
    if len(body) > MAX_FRAME_BYTES:
        raise PromptTooLong(f"the conversation is {len(body) / 1e6:.0f} MB long")
    return len(body).to_bytes(4, "big") + body


def event_frame(number: int, event: Retrying | Finished) -> Frame:
    kind = "finished" if isinstance(event, Finished) else "retrying"
    return {"t": kind, "id": number, "event": event.model_dump(mode="json")}


def error_frame(number: int, error: ModelError) -> Frame:
    usage = error.usage.model_dump(mode="json")
    return {"t": "error", "id": number, "usage": usage, **error_fields(error)}


def error_fields(error: ModelError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "hint": error.hint}


def read_error(frame: Frame) -> ModelError:
    kind = _ERRORS.get(str(frame.get("code")), ModelError)
    error = kind(str(frame.get("message", "")), hint=str(frame.get("hint", "")))
    error.usage = TokenUsage.model_validate(frame.get("usage") or {})
    return error


def read_events(frame: Frame) -> list[ModelEvent]:
    match frame["t"]:
        case "deltas":
            return [Delta(kind=kind, block=block, text=text) for kind, block, text in frame["deltas"]]
        case "retrying":
            return [Retrying.model_validate(frame["event"])]
        case "finished":
            return [Finished.model_validate(frame["event"])]
        case _:
            return []


def _json(value: Any) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelRefused(f"the request holds what is no JSON: {error}") from None
    # Lone surrogates (broken file names) have no UTF-8.
    return text.encode(errors="replace")


def error_tree(kind: type[ModelError]) -> dict[str, type[ModelError]]:
    """Code → class, for a class and all below it."""
    found = {kind.code: kind}
    for below in kind.__subclasses__():
        found.update(error_tree(below))
    return found


_ERRORS = error_tree(errors.ModelError)
