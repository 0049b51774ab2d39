"""Text of an agent's as an operator may safely judge it: what would mislead the eye is written out, and named."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any, cast

_HIDDEN = frozenset({"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"})
_WORD = re.compile(r"\w+", re.UNICODE)


def visible(text: str) -> str:
    """Controls, direction marks, odd spaces and letters that are mixed into words of another alphabet as `\\u0430`.
    Plain text comes back as it is; a backslash is doubled where that could be taken for such a code."""
    if text.isascii() and text.isprintable():
        return text.replace("\\u", "\\\\u")
    shown = _WORD.sub(lambda word: _written_out(word.group()), text.replace("\\u", "\\\\u"))
    return "".join(_code(char) if _is_hidden(char) else char for char in shown)


def visible_value(value: Any) -> Any:
    """The same for every text in JSON-like data."""
    if isinstance(value, str):
        # Line ends are what the text of a file is made of; they are shown as such.
        return "\n".join(visible(line) for line in value.split("\n"))
    if isinstance(value, list):
        return [visible_value(item) for item in cast(list[Any], value)]
    if isinstance(value, dict):
        return {visible(str(key)): visible_value(item) for key, item in cast(dict[Any, Any], value).items()}
    return value


def warnings_of(targets: Iterable[str]) -> tuple[str, ...]:
    """What in these targets could be taken for something else, one sentence each."""
    found: dict[str, None] = {}
    for target in targets:
        if any(_is_hidden(char) for char in target):
            found[f"{visible(target)} holds characters that are not seen or turn the text around"] = None
        for word in _WORD.findall(target):
            scripts = _scripts(word)
            if len(scripts) > 1:
                found[f"{visible(word)} mixes letters of {' and '.join(scripts)}"] = None
            elif scripts and scripts != ["LATIN"]:
                found[f"{word} is written in {scripts[0]} letters"] = None
            elif unicodedata.normalize("NFKC", word) != word:
                found[f"{visible(word)} holds letters in an unusual form"] = None
    return tuple(found)


def _written_out(word: str) -> str:
    """Where a word mixes alphabets, or has letters in a compatibility form, all that is not ASCII by its code."""
    if word.isascii() or (len(_scripts(word)) <= 1 and unicodedata.normalize("NFKC", word) == word):
        return word
    return "".join(char if char.isascii() else _code(char) for char in word)


def _scripts(word: str) -> list[str]:
    names = (unicodedata.name(char, "").split(" ")[0] for char in word if char.isalpha())
    return sorted({name for name in names if name})


def _is_hidden(char: str) -> bool:
    category = unicodedata.category(char)
    return category in _HIDDEN or (category == "Zs" and char != " ")


def _code(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
