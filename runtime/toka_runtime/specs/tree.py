"""A spec document as a tree of values that know their place. YAML and TOML are both read into it.

Lines and columns count from 1; a place of 0:0 means the file as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Value = str | int | float | bool | None

JSON_SAFE_INT = 2**63


@dataclass(frozen=True, slots=True)
class Scalar:
    value: Value
    text: str
    """As written, quotes taken off and escapes resolved."""
    line: int = 0
    column: int = 0
    bare: bool = False
    """Text that was written without quotes (in TOML: a date)."""

    kind = "a scalar"


@dataclass(frozen=True, slots=True)
class Sequence:
    items: tuple[Node, ...]
    line: int = 0
    column: int = 0

    kind = "a list"


@dataclass(frozen=True, slots=True)
class Mapping:
    entries: tuple[tuple[Scalar, Node], ...]
    """Keys are unique by their text; file order."""
    line: int = 0
    column: int = 0

    kind = "a mapping"

    def __iter__(self) -> Iterator[tuple[Scalar, Node]]:
        return iter(self.entries)

    def get(self, key: str) -> Node | None:
        return next((node for name, node in self.entries if name.text == key), None)


Node = Scalar | Sequence | Mapping

EMPTY = Mapping(())


def is_null(node: Node | None) -> bool:
    """Absent, or written as nothing: both leave the default."""
    return node is None or (isinstance(node, Scalar) and node.value is None)


def kind_of(node: Node) -> str:
    """What to call it in a message: `a list`, `a mapping`, `text`, `a number` …"""
    if not isinstance(node, Scalar):
        return node.kind
    match node.value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case _:
            return "text"


def plain(node: Node) -> Any:
    """JSON-compatible value. What JSON has no form for (not-a-number, infinity, integers past 64 bits) stays text."""
    match node:
        case Mapping():
            return {key.text: plain(value) for key, value in node.entries}
        case Sequence():
            return [plain(item) for item in node.items]
        case Scalar(value=bool()):
            return node.value
        case Scalar(value=int(number)) if abs(number) >= JSON_SAFE_INT:
            return node.text
        case Scalar(value=float(number)) if number - number != 0:
            return node.text
        case Scalar():
            return node.value
