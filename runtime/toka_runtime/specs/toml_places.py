"""Where each key and value of a TOML document lies: `tomllib` gives values without places, so this walks the text too.

It trusts that the document is valid (tomllib has read it) and therefore only has to find its way: headers, keys,
strings, arrays and inline tables.
"""

from __future__ import annotations

import bisect
import re
import tomllib
from contextlib import suppress
from dataclasses import dataclass, field

from toka_runtime.specs.source import Place

Path = tuple[str | int, ...]

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'",
    re.DOTALL,
)
_ATOM = re.compile(r"[^,\]}#\n\r]+")


@dataclass(slots=True)
class Places:
    """`keys`: path of a table entry → where its key is written. `values`: any path → where its value begins."""

    keys: dict[Path, Place] = field(default_factory=dict[Path, Place])
    values: dict[Path, Place] = field(default_factory=dict[Path, Place])


def find_places(text: str) -> Places:
    return _Walker(text).walk()


class _Walker:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._places = Places()
        self._arrays: dict[Path, int] = {}
        """Path of an array of tables → index of its newest element."""

    def walk(self) -> Places:
        table: Path = ()
        # A form that this walk does not know costs places, never the document.
        with suppress(ValueError, IndexError, RecursionError):
            while self._skip():
                if self._text[self._at] == "[":
                    table = self._header()
                else:
                    self._entry(table)
        return self._places

    def _skip(self) -> bool:
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._at < len(self._text)

    def _place(self, offset: int) -> Place:
        line = bisect.bisect_right(self._starts, offset)
        return Place(line, offset - self._starts[line - 1] + 1)

    def _header(self) -> Path:
        start = self._at
        many = self._text.startswith("[[", start)
        self._at += 2 if many else 1
        path = self._table(self._dotted(), many, self._place(start))
        self._at += 2 if many else 1
        return path

    def _table(self, parts: list[tuple[str, Place]], many: bool, header: Place) -> Path:
        """The path that a header opens; an array of tables counts one element further."""
        path: Path = ()
        for number, (part, place) in enumerate(parts):
            path = path + (part,)  # noqa: RUF005 - unpacking loses the type
            self._places.keys.setdefault(path, place)
            self._places.values.setdefault(path, header)
            if many and number == len(parts) - 1:
                self._arrays[path] = self._arrays.get(path, -1) + 1
            if path in self._arrays:
                path = path + (self._arrays[path],)  # noqa: RUF005
        self._places.values.setdefault(path, header)
        return path

    def _dotted(self) -> list[tuple[str, Place]]:
        """The parts of a key; afterwards the position is behind it, at `=` or `]`."""
        parts: list[tuple[str, Place]] = []
        while True:
            self._skip()
            start = self._at
            quoted = self._text[start] in "\"'"
            match = (_STRING if quoted else _BARE_KEY).match(self._text, start)
            if match is None:
                raise ValueError(f"no key at offset {start}")
            self._at = match.end()
            parts.append((_unquote(match[0]) if quoted else match[0], self._place(start)))
            self._skip()
            if self._text[self._at] != ".":
                return parts
            self._at += 1

    def _entry(self, table: Path) -> None:
        path = table
        for part, place in self._dotted():
            path = (*path, part)
            self._places.keys.setdefault(path, place)
            self._places.values.setdefault(path, place)
        self._at += 1  # =
        self._skip()
        self._value(path)

    def _value(self, path: Path) -> None:
        start = self._at
        self._places.values[path] = self._place(start)
        character = self._text[start]
        if character == "[":
            self._collection(path, "]")
        elif character == "{":
            self._collection(path, "}")
        else:
            match = (_STRING if character in "\"'" else _ATOM).match(self._text, start)
            if match is None:
                raise ValueError(f"no value at offset {start}")
            self._at = match.end()

    def _collection(self, path: Path, closing: str) -> None:
        self._at += 1
        count = 0
        while self._skip() and self._text[self._at] != closing:
            if closing == "]":
                self._value((*path, count))
            else:
                self._entry(path)
            count += 1
            self._skip()
            if self._text[self._at] == ",":
                self._at += 1
        self._at += 1


def _unquote(written: str) -> str:
    """A quoted key's name."""
    if written.startswith("'") or "\\" not in written:
        return written[1:-1]
    return next(iter(tomllib.loads(f"{written}=0")))
