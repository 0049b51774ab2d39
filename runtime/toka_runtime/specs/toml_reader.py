"""TOML to a tree with places. Dates become text; nesting and dotted keys are bounded before tomllib sees them."""

from __future__ import annotations

import re
import tomllib
from datetime import date, datetime, time
from typing import Any, cast

from toka_runtime.specs.findings import Findings
from toka_runtime.specs.source import FORBIDDEN, Place, place_of
from toka_runtime.specs.toml_places import Path, Places, find_places
from toka_runtime.specs.tree import Mapping, Node, Scalar, Sequence

MAX_DEPTH = 64
# tomllib's time grows with the square of a dotted key's parts.
_LONG_KEY = re.compile(r"(?<![\w-])(?:[\w-]+[ \t]*\.[ \t]*){64}")
_LONG_QUOTED_KEY = re.compile(r"""(?:(?:"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){32}""")
_AT = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")


def read_toml(text: str, findings: Findings) -> Mapping | None:
    """The document's root table, None when it cannot be read (the reason is in `findings`)."""
    document = parse_toml(text, findings)
    if document is None:
        return None
    places = find_places(text.replace("\r\n", "\n"))
    node = _Converter(places, findings).convert(document, ())
    return node if isinstance(node, Mapping) else None


def parse_toml(text: str, findings: Findings) -> dict[str, Any] | None:
    """As tomllib does it, but bounded; None when it cannot be read (the reason is in `findings`)."""
    for pattern in (_LONG_KEY, _LONG_QUOTED_KEY):
        if (match := pattern.search(text)) is not None:
            findings.error(place_of(text, match.start()), "spec.too_deep", "a dotted key has too many parts")
            return None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        match = _AT.search(message)
        place = Place(int(match[1]), int(match[2])) if match and match[1] else place_of(text, len(text.rstrip()))
        findings.error(place, "spec.toml_syntax", f"TOML: {_AT.sub('', message)}", _hint(message))
    except RecursionError:
        findings.error(None, "spec.too_deep", f"is nested more than {MAX_DEPTH} levels deep")
    except ValueError:
        findings.error(None, "spec.toml_syntax", "TOML: a number has thousands of digits")
    return None


def _hint(message: str) -> str:
    if "Invalid value" in message:
        return "put text in quotes"
    if "Cannot overwrite" in message or "Cannot declare" in message:
        return "it is there already"
    return ""


class _Converter:
    def __init__(self, places: Places, findings: Findings) -> None:
        self._places = places
        self._findings = findings

    def convert(self, value: Any, path: Path) -> Node:
        place = self._places.values.get(path, Place(0, 0))
        line, column = place.line, place.column
        if len(path) > MAX_DEPTH:
            self._findings.error(place, "spec.too_deep", f"is nested more than {MAX_DEPTH} levels deep")
            return Scalar(None, "", line, column)
        match value:
            case dict():
                table = cast(dict[str, Any], value)
                return Mapping(tuple(self._entry(key, table[key], path) for key in table), line, column)
            case list():
                items = cast(list[Any], value)
                return Sequence(tuple(self.convert(item, (*path, i)) for i, item in enumerate(items)), line, column)
            case str():
                self._check(value, place)
                return Scalar(value, value, line, column)
            case bool():
                return Scalar(value, str(value).lower(), line, column)
            case datetime() | date() | time():
                return Scalar(value.isoformat(), value.isoformat(), line, column, bare=True)
            case _:
                return Scalar(value, str(value), line, column)

    def _entry(self, key: str, value: Any, path: Path) -> tuple[Scalar, Node]:
        place = self._places.keys.get((*path, key), Place(0, 0))
        self._check(key, place)
        return Scalar(key, key, place.line, place.column), self.convert(value, (*path, key))

    def _check(self, text: str, place: Place) -> None:
        if (found := FORBIDDEN.search(text)) is not None:
            message = f"holds the control character U+{ord(found[0]):04X}"
            self._findings.error(place, "spec.control_character", message, "remove the escape")
