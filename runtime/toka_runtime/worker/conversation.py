"""One task's conversation, in the Messages shape, kept valid at every moment and mirrored by the runtime in deltas.

Valid means: it begins with a user message, roles alternate, and every `tool_use` is answered by one `tool_result` in
the very next message. Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

Message = dict[str, Any]
Block = dict[str, Any]

BYTES_PER_TOKEN = 4
"""Of JSON text in UTF-8; corrected by what the provider counts (`Conversation.calibrate`)."""

UNKNOWN_OUTCOME = (
    "The run was interrupted during this call: its outcome is unknown. "
    "Look at the present state before you decide to repeat it."
)
CONTINUE_AFTER_RESUME = "The run was interrupted and goes on now. Continue the task; call `finish` when it is done."


class Conversation:
    """Messages, what of them the runtime has already seen, and how many tokens they are."""

    def __init__(self, messages: Iterable[Message], *, overhead: Sequence[Any] = ()) -> None:
        """`messages` are those that the runtime already holds; `overhead` (system, tools) counts as tokens only."""
        self.messages: list[Message] = list(messages)
        self._seen = len(self.messages)
        self._overhead = size_tokens(overhead)
        self._sizes = [size_tokens(message) for message in self.messages]
        self._scale = 1.0

    def append(self, role: str, content: str | list[Block]) -> None:
        """Add a turn; content of the same role as the last message joins that message, so that roles alternate."""
        if self.messages and self.messages[-1]["role"] == role:
            last = self.messages[-1]
            self.replace([*self.messages[:-1], {**last, "content": [*as_blocks(last["content"]), *as_blocks(content)]}])
            return
        message = {"role": role, "content": content}
        self.messages.append(message)
        self._sizes.append(size_tokens(message))

    def replace(self, messages: list[Message]) -> None:
        """Put other messages in place; the part at the front that is the same objects is not sent again."""
        same = 0
        for old, new in zip(self.messages, messages, strict=False):
            if old is not new:
                break
            same += 1
        self._sizes[same:] = [size_tokens(message) for message in messages[same:]]
        self.messages = messages
        self._seen = min(self._seen, same)

    def delta(self) -> tuple[int, list[Message]]:
        """(how many messages the runtime shall keep, what it shall append); counts as seen from now on."""
        base, self._seen = self._seen, len(self.messages)
        return base, self.messages[base:]

    @property
    def tokens(self) -> int:
        """Estimate of the whole prompt."""
        return int((self._overhead + sum(self._sizes)) * self._scale)

    def message_tokens(self, messages: Iterable[Message]) -> int:
        """Estimate of the prompt if it had these messages."""
        known = {id(message): size for message, size in zip(self.messages, self._sizes, strict=True)}
        total = sum(known[id(message)] if id(message) in known else size_tokens(message) for message in messages)
        return int((self._overhead + total) * self._scale)

    def calibrate(self, measured_tokens: int) -> None:
        """The provider counted the prompt as it is now."""
        estimated = self._overhead + sum(self._sizes)
        if measured_tokens > 0 and estimated > 0:
            self._scale = min(4.0, max(0.25, measured_tokens / estimated))


def size_tokens(value: Any) -> float:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")) / BYTES_PER_TOKEN


def as_blocks(content: Any) -> list[Block]:
    if isinstance(content, str):
        return [text_block(content)] if content.strip() else []
    return list(content)


def text_block(text: str) -> Block:
    return {"type": "text", "text": text}


def tool_result(call_id: str, content: str, *, is_error: bool = False) -> Block:
    block: Block = {"type": "tool_result", "tool_use_id": call_id, "content": content or "(no output)"}
    if is_error:
        block["is_error"] = True
    return block


def tool_calls(content: Any) -> list[Block]:
    return [block for block in as_blocks(content) if block.get("type") == "tool_use"]


def clean_answer(content: Any, used_ids: set[str]) -> tuple[list[Block], dict[str, str]]:
    """The blocks of a model's answer, fit to be sent back: no empty text (the API refuses it), every tool call with an
    id of its own, a name and an object as input. Blocks of unknown types stay as they are. `used_ids` grows.

    Also what is wrong with a call, by its id: such a call must not run.
    """
    blocks: list[Block] = []
    problems: dict[str, str] = {}
    for block in _dicts(content):
        if block.get("type") == "text" and not str(block.get("text") or "").strip():
            continue
        if block.get("type") == "tool_use":
            block = dict(block)
            call_id = block.get("id")
            if not isinstance(call_id, str) or not call_id or call_id in used_ids:
                call_id = _new_id(used_ids)
                block["id"] = call_id
            used_ids.add(call_id)
            if not isinstance(block.get("name"), str) or not block["name"]:
                block["name"] = "unnamed"
                problems[call_id] = "the call has no tool name"
            if not isinstance(block.get("input"), dict):
                problems[call_id] = f"the input is not a JSON object but {type(block.get('input')).__name__}"
                block["input"] = {}
        blocks.append(block)
    return blocks, problems


def call_ids(messages: Iterable[Message]) -> set[str]:
    return {str(block.get("id")) for message in messages for block in tool_calls(message.get("content"))}


def resumable(history: Sequence[Message], prompt: str) -> list[Message]:
    """The history of an interrupted task, made valid and ready for the next model call. Messages that are good stay the
    same objects. Calls without a result are answered with an unknown outcome."""
    messages: list[Message] = []
    used_ids: set[str] = set()
    for message in history:
        open_calls = _open_calls(messages)
        if message.get("role") == "assistant":
            if not messages:
                messages.append({"role": "user", "content": prompt})
            if open_calls:
                messages.append({"role": "user", "content": _unknown(open_calls)})
            blocks = _assistant_blocks(message.get("content"), used_ids)
            _add(messages, "assistant", blocks, message)
        else:
            _add(messages, "user", _user_blocks(message.get("content"), open_calls), message)
    if open_calls := _open_calls(messages):
        messages.append({"role": "user", "content": _unknown(open_calls)})
    if not messages:
        messages.append({"role": "user", "content": prompt})
    if messages[-1]["role"] == "assistant":
        messages.append({"role": "user", "content": CONTINUE_AFTER_RESUME})
    return messages


def _add(messages: list[Message], role: str, blocks: list[Block], original: Message) -> None:
    """The original when it has these very blocks, joined to the last message when that has the same role."""
    if not blocks:
        return
    if messages and messages[-1]["role"] == role:
        messages[-1] = {**messages[-1], "content": [*as_blocks(messages[-1]["content"]), *blocks]}
    elif blocks == as_blocks(original.get("content")):
        messages.append(original)
    else:
        messages.append({"role": role, "content": blocks})


def _assistant_blocks(content: Any, used_ids: set[str]) -> list[Block]:
    if isinstance(content, str):
        return as_blocks(content)
    blocks, _ = clean_answer(content, used_ids)
    return [block for block in blocks if block.get("type") != "tool_result"]


def _user_blocks(content: Any, open_calls: list[str]) -> list[Block]:
    """Results of the open calls first, each call once; then the rest."""
    given: dict[str, Block] = {}
    others: list[Block] = []
    for block in as_blocks(content) if isinstance(content, str) else _dicts(content):
        if block.get("type") == "tool_result":
            given.setdefault(str(block.get("tool_use_id")), block)
        elif block.get("type") != "tool_use" and (block.get("type") != "text" or str(block.get("text") or "").strip()):
            others.append(block)
    return [*(given.get(call) or _unknown([call])[0] for call in open_calls), *others]


def _open_calls(messages: list[Message]) -> list[str]:
    if not messages or messages[-1]["role"] != "assistant":
        return []
    return [str(call["id"]) for call in tool_calls(messages[-1]["content"])]


def _unknown(calls: list[str]) -> list[Block]:
    return [tool_result(call, UNKNOWN_OUTCOME, is_error=True) for call in calls]


def _dicts(content: Any) -> list[Block]:
    items: list[Any] = content if isinstance(content, list) else []  # pyright: ignore[reportUnknownVariableType]  # JSON
    return [item for item in items if isinstance(item, dict)]


def _new_id(used: set[str]) -> str:
    number = len(used) + 1
    while f"toolu_local_{number}" in used:
        number += 1
    return f"toolu_local_{number}"
