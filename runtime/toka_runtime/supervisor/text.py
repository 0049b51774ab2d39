"""Text of foreign origin, made fit for a file name, a commit message, a report or a prompt."""

from __future__ import annotations

import hashlib
import re
import unicodedata

_SAFE = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_COMPONENT = 80


def printable(text: str) -> str:
    """`text` without characters that act on a terminal or hide in one (controls, bidi, lone surrogates): each becomes
    U+FFFD. Line feeds and tabs stay."""
    if text.isprintable():
        return text
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(
        "\ufffd" if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and c not in "\n\t" else c for c in text
    )


def cut(text: str, limit: int) -> str:
    """At most `limit` characters of printable text; what was left out is counted."""
    text = printable(text)
    if len(text) <= limit:
        return text
    mark = f" … (+{len(text) - limit} characters)"
    return text[: max(0, limit - len(mark))].rstrip() + mark


def one_line(text: str, limit: int) -> str:
    """At most `limit` characters on one line, ending in `…` when cut."""
    text = " ".join(printable(text).split())
    return text if len(text) <= limit else text[: max(0, limit - 1)].rstrip() + "…"


def safe_component(name: str) -> str:
    """`name` as one component of a path: no separator, never `.`, `..`, hidden or empty, at most 100 bytes. Names that
    had to be changed get a digest, so that two names never meet in one folder."""
    safe = _SAFE.sub("-", name).lstrip(".-")[:_MAX_COMPONENT]
    if safe == name and safe:
        return safe
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{safe or 'unnamed'}-{digest}"
