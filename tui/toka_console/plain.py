"""Text for a terminal whose locale names another character set than UTF-8: glyphs become ASCII of the same width.

The locale `C` names none: Python takes it for UTF-8, and so do the terminals of today. Imports nothing: it is needed
for the first picture.
"""

from __future__ import annotations

import codecs

TYPE_CHECKING = False  # importing `typing` takes a third of the time to the first picture
if TYPE_CHECKING:
    from typing import TextIO

ERRORS = "toka-plain"
_PLAIN = {
    **dict.fromkeys("─━═╌┄", "-"),
    **dict.fromkeys("│┃║▏▎▍▌▋▊▉", "|"),
    **dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼╞╡╪", "+"),
    **dict(zip("▁▂▃▄▅▆▇█▓▒░", "_..--==##::", strict=True)),
    **dict(zip("●○◐‖▼▲✓✗■□⊘↻◇◆•·", "*o%=v^+x#_/~?!..", strict=True)),
    **dict(zip("→←↑↓▶◀►◄▸▾⏎⋯…×", "><^v><><>v$..x", strict=True)),
    **dict(zip("’‘“”–—≥≤≈⚠✎", "''\"\"--><~!~", strict=True)),
}  # fmt: skip


def fit(stream: TextIO) -> None:
    """Have a stream write what its character set lacks in ASCII. Nothing changes for UTF-8."""
    if codecs.lookup(stream.encoding).name != "utf-8":
        codecs.register_error(ERRORS, _replace)
        stream.reconfigure(errors=ERRORS)  # type: ignore[attr-defined] # streams of the interpreter have it


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_plain(character) for character in error.object[error.start : error.end]), error.end


def _plain(character: str) -> str:
    if (known := _PLAIN.get(character)) is not None:
        return known
    import unicodedata

    if unicodedata.combining(character) or unicodedata.category(character) in ("Cf", "Mn", "Me"):
        return ""
    if "\u2800" <= character <= "\u28ff":
        return ":" if character != "\u2800" else " "
    return "??" if unicodedata.east_asian_width(character) in "WF" else "?"
