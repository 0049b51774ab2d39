"""Words and colours of the command line. Nothing that was read from a file reaches the terminal uncleaned."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:  # the version and the help must not pay for pydantic
    from toka_runtime.errors import TokaError
    from toka_runtime.protocol.events import ProblemView

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def clean(text: str) -> str:
    """One line in which everything that is not printable is shown as an escape: control characters, line ends,
    bidirectional overrides, halves of characters."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class Style:
    """Colours where they are welcome: on a terminal, unless NO_COLOR is set or TERM is dumb."""

    def __init__(self, stream: TextIO, environment: Mapping[str, str] = os.environ) -> None:
        plain = bool(environment.get("NO_COLOR")) or environment.get("TERM") == "dumb"
        self._on = stream.isatty() and not plain

    def __call__(self, style: str, text: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self._on else text


def where(problem: ProblemView) -> str:
    """`file:line:column`, or the file alone when the problem is about the whole of it."""
    file = clean(problem.file)
    return f"{file}:{problem.line}:{problem.column}" if problem.line else file


def problem_line(problem: ProblemView, style: Style, colour: str) -> str:
    """`file:line:column  code  message  (hint)`."""
    hint = f"  {style('dim', f'({clean(problem.hint)})')}" if problem.hint else ""
    return f"{style('bold', where(problem))}  {style(colour, problem.code)}  {clean(problem.message)}{hint}"


def complaint(error: TokaError) -> str:
    """An expected error for a person: its code, what happened, what to do."""
    hint = f"\n  {clean(error.hint)}" if error.hint else ""
    return f"error [{error.code}]: {clean(error.message)}{hint}"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def print_json(value: Any, stream: TextIO | None = None) -> None:
    """Indented JSON. Where the stream cannot take a character, all are written as JSON's own escapes."""
    out = stream if stream is not None else sys.stdout
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode(out.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        text = json.dumps(value, indent=2, ensure_ascii=True)
    print(text, file=out)
