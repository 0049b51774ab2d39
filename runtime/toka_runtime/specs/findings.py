"""What was found while reading: problems as values, each with its place, and the nearest thing that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Protocol

from toka_runtime.protocol.events import ProblemView as Problem

SHOWN = 60
"""Characters of a value that a message quotes."""
LONGEST = 400
"""Characters of a message."""


class Placed(Protocol):
    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


class Findings:
    """Collects errors, warnings and repairs of one file (or of one agent in a fleet file)."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []
        self.repairs: list[Problem] = []

    def error(self, place: Placed | None, code: str, message: str, hint: str = "") -> None:
        self.errors.append(self._problem(place, code, message, hint))

    def warning(self, place: Placed | None, code: str, message: str, hint: str = "") -> None:
        self.warnings.append(self._problem(place, code, message, hint))

    def repair(self, place: Placed | None, code: str, message: str) -> None:
        self.repairs.append(self._problem(place, code, message, ""))

    def _problem(self, place: Placed | None, code: str, message: str, hint: str) -> Problem:
        line, column = (place.line, place.column) if place is not None else (0, 0)
        return Problem(
            file=self.file, line=line, column=column, code=code, message=one_line(message), hint=one_line(hint)
        )


def one_line(text: str, limit: int = LONGEST) -> str:
    """Bounded, on one line, with nothing in it that could drive a terminal: what is not printable is shown escaped."""
    cut = text if len(text) <= limit else text[:limit] + "…"
    return cut if cut.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)


def quoted(text: str) -> str:
    """A value in a message."""
    return f"“{one_line(text, SHOWN)}”"


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The known name that was probably meant, "" when none is near."""
    folded = {candidate.lower().replace("-", "_"): candidate for candidate in known}
    found = difflib.get_close_matches(name[:256].lower().replace("-", "_"), list(folded), n=1, cutoff=cutoff)
    return folded[found[0]] if found else ""


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    found = nearest(name, known)
    return f"did you mean {quoted(found)}?" if found else otherwise
