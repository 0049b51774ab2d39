"""Make a conversation fit the context again. Deterministic, without a model call; the task itself always stays.

From mild to harsh: old tool results and big tool inputs become digests; middle turns are dropped, with a note of what
was done in them; then fewer of the last turns are spared; at last results of the last turn are cut. Pairing of
`tool_use` and `tool_result` holds throughout. Standard library only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toka_runtime.worker.conversation import Block, Message, as_blocks, text_block, tool_calls

SPARED_TURNS = (4, 2, 1)
"""How many of the last turns stay whole: the first number, then fewer while it does not fit."""
CUT_RESULTS_TO = (16_000, 6_000, 2_000, 500)
"""Characters that a result of the last turns may keep when nothing else helps."""
SHORT = 400
"""Texts up to this many characters are never replaced by a digest."""
NOTED_CALLS = 60
NOTE_OPENING = "[Note of the runtime:"
_NOTE = re.compile(re.escape(NOTE_OPENING) + r" (\d+) earlier turns")

Count = Callable[[list[Message]], int]
Turn = list[Message]


@dataclass(frozen=True, slots=True)
class Compacted:
    messages: list[Message]
    shortened: int
    """Results and inputs replaced by digests or cut."""
    dropped: int
    """Turns left out."""
    fits: bool


def compact(messages: list[Message], target_tokens: int, count: Count) -> Compacted:
    """`messages` begin with the task. Unchanged messages stay the same objects. `count` estimates tokens."""
    first, turns = messages[0], _turns(messages[1:])
    shortened = dropped = 0

    def joined() -> list[Message]:
        return [first, *(message for turn in turns for message in turn)]

    def fits() -> bool:
        return count(joined()) <= target_tokens

    for spared in SPARED_TURNS:
        for index in range(max(0, len(turns) - spared)):
            if fits():
                return Compacted(joined(), shortened, dropped, True)
            turns[index], changed = _digested(turns[index])
            shortened += changed
        while len(turns) > spared and not fits():
            first = _with_note(first, turns.pop(0))
            dropped += 1
        if fits():
            return Compacted(joined(), shortened, dropped, True)
    for limit in CUT_RESULTS_TO:
        for index, turn in enumerate(turns):
            turns[index], changed = _cut(turn, limit)
            shortened += changed
        if fits():
            return Compacted(joined(), shortened, dropped, True)
    return Compacted(joined(), shortened, dropped, False)


def _turns(messages: list[Message]) -> list[Turn]:
    """Each begins with an assistant message and holds what answers it."""
    turns: list[Turn] = []
    for message in messages:
        if message["role"] == "assistant" or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns


def _digested(turn: Turn) -> tuple[Turn, int]:
    """Results and long inputs as digests; thinking left out where something else remains."""
    changed = 0

    def block_digest(block: Block) -> Block:
        nonlocal changed
        if block.get("type") == "tool_result":
            text = _result_text(block)
            if len(text) > SHORT:
                changed += 1
                return {**block, "content": _digest(text)}
        elif block.get("type") == "tool_use":
            shorter = _shorter_value(block["input"])
            if shorter != block["input"]:
                changed += 1
                return {**block, "input": shorter}
        return block

    return [_mapped(_without_thinking(message), block_digest) for message in turn], changed


def _cut(turn: Turn, limit: int) -> tuple[Turn, int]:
    changed = 0

    def cut_block(block: Block) -> Block:
        nonlocal changed
        if block.get("type") == "tool_result" and len(text := _result_text(block)) > limit:
            changed += 1
            left_out = len(text) - limit
            half = limit // 2
            cut = f"{text[:half]}\n[… {left_out} characters left out to fit the context …]\n{text[-half:]}"
            return {**block, "content": cut}
        if block.get("type") == "tool_use":
            shorter = _shorter_value(block["input"], limit)
            if shorter != block["input"]:
                changed += 1
                return {**block, "input": shorter}
        return block

    return [_mapped(message, cut_block) for message in turn], changed


def _mapped(message: Message, change: Callable[[Block], Block]) -> Message:
    """The same object when no block changes."""
    content = message["content"]
    if isinstance(content, str):
        return message
    blocks = [change(block) for block in content]
    if all(new is old for new, old in zip(blocks, content, strict=True)):
        return message
    return {**message, "content": blocks}


def _without_thinking(message: Message) -> Message:
    content = message["content"]
    if message["role"] != "assistant" or isinstance(content, str):
        return message
    kept = [block for block in content if block.get("type") not in {"thinking", "redacted_thinking"}]
    return {**message, "content": kept} if kept and len(kept) < len(content) else message


def _with_note(first: Message, turn: Turn) -> Message:
    """The task message, with one closing note that counts the dropped turns and lists their calls."""
    blocks = as_blocks(first["content"])
    dropped, lines = 0, list[str]()
    last = str(blocks[-1].get("text", "")) if blocks else ""
    if (found := _NOTE.match(last)) is not None:
        dropped = int(found[1])
        lines = [line for line in last.splitlines()[1:] if line.startswith("- ")]
        blocks = blocks[:-1]
    dropped += 1
    for message in turn:
        if message["role"] == "assistant":
            lines += [f"- {_call_line(call)}" for call in tool_calls(message["content"])]
    lines = lines[-NOTED_CALLS:]
    note = (
        f"{NOTE_OPENING} {dropped} earlier turns were left out to fit the context. "
        "What they wrote to disk is still there. Their last tool calls:]"
    )
    return {**first, "content": [*blocks, text_block("\n".join([note, *lines]))]}


def _call_line(call: Block) -> str:
    values = ", ".join(f"{key}={_brief(value)}" for key, value in call["input"].items())
    return f"{call['name']}({values})"[:160]


def _brief(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:59] + "…"


def _result_text(block: Block) -> str:
    content = block.get("content", "")
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content if part.get("type") == "text")


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()[:12]
    return f"[shortened: {len(text)} characters, SHA-256 {digest}…; it began: {_brief(text[:200])}]"


def _shorter_value(value: Any, limit: int = SHORT) -> Any:
    """JSON with long strings replaced by digests; equal to `value` when there are none."""
    if isinstance(value, str):
        return _digest(value) if len(value) > limit else value
    if isinstance(value, dict):
        return {key: _shorter_value(item, limit) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]  # JSON
    if isinstance(value, list):
        return [_shorter_value(item, limit) for item in value]  # pyright: ignore[reportUnknownVariableType]  # JSON
    return value
