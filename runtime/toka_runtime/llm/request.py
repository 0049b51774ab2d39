"""The body of a Messages API request: what is sent, in which order, with which cache breakpoints.

No sampling parameters (the API refuses them) and nothing that a worker's messages could smuggle in: only the fields
below are ever sent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from toka_runtime.llm.base import ModelRequest
from toka_runtime.llm.json_value import as_list, as_object
from toka_runtime.llm.redact import Redactor

Block = dict[str, Any]
Body = dict[str, Any]

_CACHE = {"type": "ephemeral"}
_ENCODED = frozenset(("signature", "data", "encrypted_content"))
"""Fields of encoded bytes: a look-alike of a key in them is chance, and a changed signature is refused."""


def request_body(request: ModelRequest, model: str) -> Body:
    """Keyword arguments of `messages.create`. Breakpoints on the last tool, the last system block and the newest user
    turn: three of the four that the API allows; those that came with the messages are removed."""
    body: Body = {
        "model": model,
        "max_tokens": request.max_tokens,
        "messages": _messages(request.messages),
        "stream": True,
    }
    if system := [{"type": "text", "text": text} for text in request.system if text.strip()]:
        body["system"] = _with_breakpoint(system)
    if request.tools:
        fields = ("name", "description", "input_schema")
        tools = [{name: tool[name] for name in fields if name in tool} for tool in request.tools]
        body["tools"] = _with_breakpoint(tools)
    return body


def digest_of(body: Any) -> str:
    """SHA-256, hexadecimal, of the canonical JSON."""
    text = json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def redact_request(request: ModelRequest, redactor: Redactor) -> tuple[ModelRequest, int]:
    """(the request without secrets, how many were taken out)."""
    system, in_system = redactor.redact_value(request.system)
    tools, in_tools = redactor.redact_value(request.tools)
    messages, in_messages = _redact_content(request.messages, redactor)
    clean = request.model_copy(update={"system": tuple(system), "tools": tuple(tools), "messages": tuple(messages)})
    return clean, in_system + in_tools + in_messages


def _redact_content(value: Any, redactor: Redactor) -> tuple[Any, int]:
    if isinstance(value, str):
        return redactor.redact(value)
    total = 0
    if isinstance(value, (list, tuple)):
        items: list[Any] = []
        for item in as_list(value):
            clean, count = _redact_content(item, redactor)
            total += count
            # Thinking goes back unchanged or not at all.
            if not (count and as_object(item).get("type") in ("thinking", "redacted_thinking")):
                items.append(clean)
        return items, total
    if isinstance(value, dict):
        result: dict[str, Any] = {}
        for key, item in as_object(value).items():
            encoded = key in _ENCODED and isinstance(item, str)
            result[key], count = redactor.redact_known(item) if encoded else _redact_content(item, redactor)
            total += count
        return result, total
    return value, 0


def _messages(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = [
        {"role": message.get("role"), "content": content}
        for message in messages
        if (content := _blocks(message.get("content")))
    ]
    newest = next((at for at in range(len(kept) - 1, -1, -1) if kept[at]["role"] == "user"), None)
    if newest is not None:
        kept[newest]["content"] = _with_breakpoint(kept[newest]["content"])
    return kept


def _blocks(content: Any) -> list[Block]:
    """As blocks, without empty text, which the API refuses."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content.strip() else []
    blocks: list[Block] = []
    for block in map(as_object, as_list(content)):
        if not block or (block.get("type") == "text" and not str(block.get("text") or "").strip()):
            continue
        blocks.append({key: value for key, value in block.items() if key != "cache_control"})
    return blocks


def _with_breakpoint(blocks: Sequence[Block]) -> list[Block]:
    return [*blocks[:-1], {**blocks[-1], "cache_control": dict(_CACHE)}]
