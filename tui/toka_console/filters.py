"""What is typed after `/`: words, `!not this`, `-f fuzzy`, `key:value`. All of them must hold.

Pure: a row is matched by its fields, a mapping of names to text; the field `text` is what bare words look in.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


class FilterError(ValueError):
    """The filter cannot be understood; the message says why and what is near."""


@dataclass(frozen=True)
class Term:
    value: str
    """Lower case."""
    field: str = "text"
    negated: bool = False
    fuzzy: bool = False

    def matches(self, fields: Mapping[str, str]) -> bool:
        text = fields.get(self.field, "").lower()
        # Fuzzy within one word: over a whole row nearly everything would match.
        found = any(is_subsequence(self.value, word) for word in text.split()) if self.fuzzy else self.value in text
        return found != self.negated


@dataclass(frozen=True)
class Filter:
    source: str = ""
    terms: tuple[Term, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.terms)

    def matches(self, fields: Mapping[str, str]) -> bool:
        return all(term.matches(fields) for term in self.terms)


def is_subsequence(needle: str, text: str) -> bool:
    """Whether the characters of `needle` appear in `text` in order."""
    rest = iter(text)
    return all(character in rest for character in needle)


def parse(source: str, keys: Collection[str]) -> Filter:
    """The filter written in `source`, with `keys` as the fields that may be named.

    Quotes keep spaces (`text:"two words"`). Raises `FilterError` for a key that does not exist.
    """
    terms: list[Term] = []
    fuzzy = False
    for word, quoted in _words(source):
        if word == "-f" and not quoted:
            fuzzy = True
            continue
        negated = word.startswith("!") and not quoted
        body = word[1:] if negated else word
        if not body:
            continue
        key, colon, value = body.partition(":")
        if colon and key.isidentifier() and not quoted:
            if key.lower() not in keys:
                raise FilterError(_unknown(key, keys))
            if value:
                terms.append(Term(value.lower(), key.lower(), negated, fuzzy))
        else:
            terms.append(Term(body.lower(), "text", negated, fuzzy))
        fuzzy = False
    return Filter(source.strip(), tuple(terms))


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

    near = difflib.get_close_matches(key.lower(), list(keys), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}:?" if near else "keys here: " + " ".join(sorted(keys))
    return f"no filter key {key}: {hint}"
