"""What is typed after `/`: words, `!not this`, `-f fuzzy`, `key:value`. All of them must hold.

A value may be several (`state:failed,killed`), exact (`host:=a`), or, for keys that hold a figure, a comparison
(`cpu:>50`, `mem:<=200M`, `age:>10m`). Pure: a row is matched by its fields, a mapping of names to text or figures; the
field `text` is what bare words look in.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

Measure = Literal["count", "size", "time", "percent", "money"]
"""What a figure counts: things, bytes, seconds, hundredths of a whole, US dollars."""
NumberKeys = Mapping[str, Measure]

_COMPARED: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "=": operator.eq, "": operator.eq,
}  # fmt: skip
_COMPARISON = re.compile(r"(>=|<=|>|<|=|)\$?(\d+(?:\.\d+)?|\.\d+)([a-z%]*)")
_THOUSANDS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_UNITS: dict[Measure, dict[str, float]] = {
    "count": _THOUSANDS,
    "money": _THOUSANDS,
    "size": {unit + tail: 1024.0**power for power, unit in enumerate(("", "k", "m", "g", "t"))
             for tail in ("", "b", "ib")},
    "time": {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0},
    "percent": {"": 0.01, "%": 0.01},
}  # fmt: skip
_EXAMPLES: dict[Measure, str] = {
    "count": ">10k", "size": ">200M", "time": ">10m", "percent": ">50", "money": ">1.50",
}  # fmt: skip


class FilterError(ValueError):
    """The filter cannot be understood; the message says why and what is near."""


@dataclass(frozen=True)
class Comparison:
    sign: str
    figure: float

    def holds(self, figure: float) -> bool:
        return _COMPARED[self.sign](figure, self.figure)


@dataclass(frozen=True)
class Term:
    values: tuple[str, ...]
    """Lower case; one of them has to be there."""
    field: str = "text"
    negated: bool = False
    fuzzy: bool = False
    exact: bool = False
    comparisons: tuple[Comparison, ...] = ()
    """Of a field that holds a figure, instead of `values`; one of them has to hold. What is unknown never does."""

    def matches(self, fields: Mapping[str, str | float]) -> bool:
        return self._found(fields.get(self.field, "")) != self.negated

    def _found(self, value: str | float) -> bool:
        if self.comparisons:
            return not isinstance(value, str) and any(each.holds(value) for each in self.comparisons)
        text = str(value).lower()
        if self.exact:
            return text in self.values
        if self.fuzzy:
            # Within one word: over a whole row nearly everything would match.
            return any(is_subsequence(wanted, word) for wanted in self.values for word in text.split())
        return any(wanted in text for wanted in self.values)


@dataclass(frozen=True)
class Filter:
    source: str = ""
    terms: tuple[Term, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.terms)

    @property
    def compares(self) -> bool:
        """Some term looks at a figure, which changes by itself."""
        return any(term.comparisons for term in self.terms)

    def matches(self, fields: Mapping[str, str | float]) -> bool:
        return all(term.matches(fields) for term in self.terms)


def is_subsequence(needle: str, text: str) -> bool:
    """Whether the characters of `needle` appear in `text` in order."""
    rest = iter(text)
    return all(character in rest for character in needle)


def parse(source: str, keys: Collection[str], numbers: NumberKeys | None = None) -> Filter:
    """The filter written in `source`, with `keys` as the fields that may be named, and `numbers` those that hold a
    figure.

    Quotes keep spaces (`text:"two words"`). Raises `FilterError` for a key that does not exist, or a value that cannot
    be compared.
    """
    numbers = numbers or {}
    terms: list[Term] = []
    fuzzy = False
    for word, quoted in _words(source):
        if word == "-f" and not quoted:
            fuzzy = True
            continue
        negated = word.startswith("!") and not quoted
        body = (word[1:] if negated else word).lower()
        if not body:
            continue
        key, colon, value = body.partition(":")
        if not colon or not key.isidentifier() or quoted:
            terms.append(Term((body,), negated=negated, fuzzy=fuzzy))
        elif key in numbers:
            if value:
                terms.append(Term((), key, negated, comparisons=_comparisons(key, value, numbers[key])))
        elif key not in keys:
            raise FilterError(_unknown(key, [*keys, *numbers]))
        else:
            exact = value.startswith("=")
            values = tuple(each for each in (value[1:] if exact else value).split(",") if each)
            if values:
                terms.append(Term(values, key, negated, fuzzy, exact))
        fuzzy = False
    return Filter(source.strip(), tuple(terms))


def _comparisons(key: str, value: str, measure: Measure) -> tuple[Comparison, ...]:
    found: list[Comparison] = []
    for each in filter(None, value.split(",")):
        match = _COMPARISON.fullmatch(each)
        if match is None or match[3] not in _UNITS[measure]:
            raise FilterError(f"{key}:{each} cannot be compared; write it as {key}:{_EXAMPLES[measure]}")
        found.append(Comparison(match[1], float(match[2]) * _UNITS[measure][match[3]]))
    return tuple(found)


def _words(source: str) -> list[tuple[str, bool]]:
    """Words, and whether the word began with a quote (then it is plain text, whatever it holds)."""
    words: list[tuple[str, bool]] = []
    word, quote, began = "", "", False
    for character in source:
        if quote:
            if character == quote:
                quote = ""
            else:
                word += character
        elif character in "\"'":
            began = began or not word
            quote = character
        elif character.isspace():
            if word:
                words.append((word, began))
            word, began = "", False
        else:
            word += character
    if word:
        words.append((word, began))
    return words


def _unknown(key: str, keys: Collection[str]) -> str:
    import difflib

    near = difflib.get_close_matches(key, list(keys), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}:?" if near else "keys here: " + " ".join(sorted(keys))
    return f"no filter key {key}: {hint}"
