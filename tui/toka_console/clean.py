"""The one boundary where text from outside enters the console: control and invisible characters become visible marks.

Textual writes what a widget holds straight to the terminal, so an agent that prints OSC 52 could fill the operator's
clipboard. Everything that a client hands over (envelopes, snapshots, results, links, errors) passes through `clean`
once, here. Newlines and tabs stay: they are text, and the drawing code lays them out.
"""

from __future__ import annotations

import re
from datetime import datetime
from enum import Enum
from functools import lru_cache
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, TypeVar, Union, cast, get_args, get_origin

if TYPE_CHECKING:  # pydantic is not needed for the first frame, and costs a quarter of it
    from pydantic import BaseModel

T = TypeVar("T")

# Categories Cc (but \t \n), Cf, Cs, Zl and Zp, and the variation selectors, which change how wide a cell is.
_DIRTY = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180b-\u180f\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000110bd\U000110cd\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_NAMES = {
    0xAD: "SHY", 0x061C: "ALM", 0x200B: "ZWSP", 0x200C: "ZWNJ", 0x200D: "ZWJ", 0x200E: "LRM", 0x200F: "RLM",
    0x2028: "LS", 0x2029: "PS", 0x202A: "LRE", 0x202B: "RLE", 0x202C: "PDF", 0x202D: "LRO", 0x202E: "RLO",
    0x2060: "WJ", 0x2066: "LRI", 0x2067: "RLI", 0x2068: "FSI", 0x2069: "PDI", 0xFEFF: "BOM",
}  # fmt: skip
_TEXT_PRESENTATION = ("\ufe0e", "\ufe0f")


def _mark(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if character in _TEXT_PRESENTATION:
        return ""
    return f"⟨{_NAMES.get(code, f'U+{code:04X}')}⟩"


def clean_text(text: str) -> str:
    """`text` with every character that could act on a terminal, or hide, made visible. `\\r\\n` becomes `\\n`."""
    if text.isprintable() or _DIRTY.search(text) is None:
        return text
    return _DIRTY.sub(_mark, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Clean text that also fits in one row: newlines become ⏎, tabs a space."""
    if text.isprintable():
        return text
    return clean_text(text).replace("\n", "⏎").replace("\t", " ")


def clean(value: T) -> T:
    """`value` with all its strings clean, however deep; the same object when there was nothing to do.

    Walks models, tuples, lists, sets and dicts (keys too). Enums, numbers and times pass.
    """
    return cast(T, _clean(value))


def _clean(value: Any) -> Any:
    kind: Any = cast(Any, type(value))
    if kind is str:
        return clean_text(value)
    if kind is int or kind is float or kind is bool or value is None:
        return value
    if _is_model(value):
        return _clean_model(value)
    if kind is dict:
        mapping = cast(dict[Any, Any], value)
        pairs = {_clean(key): _clean(item) for key, item in mapping.items()}
        same = all(a is b and c is d for (a, c), (b, d) in zip(pairs.items(), mapping.items(), strict=False))
        return value if same and len(pairs) == len(mapping) else pairs
    if kind in (tuple, list, frozenset, set):
        items = cast(list[Any], value)
        cleaned = [_clean(item) for item in items]
        return value if all(a is b for a, b in zip(cleaned, items, strict=True)) else cast(Any, kind(cleaned))
    if isinstance(value, str) and not isinstance(value, Enum):
        return clean_text(str(value))
    return value


def _is_model(value: object) -> TypeGuard[BaseModel]:
    return hasattr(type(value), "__pydantic_fields__")


def _clean_model(model: BaseModel) -> BaseModel:
    update: dict[str, Any] | None = None
    values = model.__dict__
    for name in _text_fields(type(model)):
        before = values.get(name)
        if before is None or (type(before) is str and before.isprintable()):
            continue
        after = _clean(before)
        if after is not before:
            update = update or {}
            update[name] = after
    return model if update is None else model.model_copy(update=update)


_NO_TEXT = (int, float, bool, datetime, type(None))


@lru_cache(None)
def _text_fields(kind: type[BaseModel]) -> tuple[str, ...]:
    """Fields of `kind` that can hold text at all: a sample of figures is then passed without a look."""
    return tuple(name for name, field in kind.model_fields.items() if _may_hold_text(field.annotation))


def _may_hold_text(annotation: Any) -> bool:
    if isinstance(annotation, type):
        annotation = cast("type[Any]", annotation)
        if issubclass(annotation, Enum) or annotation in _NO_TEXT:
            return False
        return bool(_text_fields(annotation)) if hasattr(annotation, "__pydantic_fields__") else True
    origin = get_origin(annotation)
    if origin is Literal:
        return False
    if origin in (Union, UnionType, tuple, list, frozenset, set):
        return any(_may_hold_text(item) for item in get_args(annotation) if item is not Ellipsis)
    return True
