"""Text in terminal cells: measure, clip, pad, wrap; and the builder that makes one row of the screen."""

from __future__ import annotations

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from toka_console.clean import one_line


def width_of(text: str) -> int:
    return len(text) if text.isascii() else cell_len(text)


def clip(text: str, width: int) -> str:
    """`text` in at most `width` cells; what is cut shows as `…`."""
    if width <= 0:
        return ""
    if width_of(text) <= width:
        return text
    if text.isascii():
        return text[: width - 1] + "…"
    return set_cell_size(text, width - 1).rstrip() + "…"


def clip_left(text: str, width: int) -> str:
    """Like `clip`, keeping the end: for paths and branches."""
    if width <= 0:
        return ""
    if width_of(text) <= width:
        return text
    kept = text[-(width - 1) :] if width > 1 else ""
    while width_of(kept) > width - 1:
        kept = kept[1:]
    return "…" + kept


def wrap(text: str, width: int) -> list[str]:
    """One logical line broken into rows of at most `width` cells, at spaces where there are any."""
    width = max(1, width)
    if "\t" in text:
        text = text.expandtabs(4)
    if width_of(text) <= width:
        return [text]
    if not text.isascii():
        return _wrap_wide(text, width)
    rows: list[str] = []
    while len(text) > width:
        cut = text.rfind(" ", 0, width + 1)
        if cut <= 0:
            rows.append(text[:width])
            text = text[width:]
        else:
            rows.append(text[:cut])
            text = text[cut + 1 :]
    rows.append(text)
    return rows


def _wrap_wide(text: str, width: int) -> list[str]:
    rows: list[str] = []
    row = ""
    used = 0
    for word in text.split(" "):
        size = cell_len(word)
        if row and used + 1 + size <= width:
            row, used = f"{row} {word}", used + 1 + size
            continue
        if row:
            rows.append(row)
        pieces = chop_cells(word, width) if size > width else [word]
        rows.extend(pieces[:-1])
        row = pieces[-1] if pieces else ""
        used = cell_len(row)
    rows.append(row)
    return rows


class Row:
    """Builds one screen row of exactly `width` cells. Text that does not fit is clipped, the rest is padded.

    The last line of defence: whatever reaches `add` is one line of printable text when it leaves.
    """

    __slots__ = ("_base", "_segments", "_used", "width")

    def __init__(self, width: int, base: Style) -> None:
        self.width = max(0, width)
        self._base = base
        self._segments: list[Segment] = []
        self._used = 0

    @property
    def room(self) -> int:
        return self.width - self._used

    def add(self, text: str, style: Style | None = None, width: int | None = None, right: bool = False) -> Row:
        """Append `text`; with `width`, in a column of that many cells (clipped, padded; `right` aligned)."""
        if not text.isprintable():
            text = one_line(text)
        room = self.width - self._used
        if width is not None and width < room:
            room = width
        if room <= 0:
            return self
        size = len(text) if text.isascii() else cell_len(text)
        if size > room:
            text = clip(text, room)
            size = width_of(text)
        if width is not None and size < room:
            text = " " * (room - size) + text if right else text + " " * (room - size)
            size = room
        if text:
            self._segments.append(Segment(text, style or self._base))
            self._used += size
        return self

    def gap(self, count: int = 1) -> Row:
        count = min(count, self.width - self._used)
        if count > 0:
            self._segments.append(Segment(" " * count, self._base))
            self._used += count
        return self

    def to(self, column: int) -> Row:
        """Pad up to `column`."""
        return self.gap(column - self._used) if column > self._used else self

    def fill(self, character: str, style: Style | None = None, leave: int = 0) -> Row:
        """Repeat a one-cell character up to the end, leaving `leave` cells."""
        return self.add(character * max(0, self.room - leave), style)

    def strip(self) -> Strip:
        if self.room > 0:
            self._segments.append(Segment(" " * self.room, self._base))
            self._used = self.width
        return Strip(self._segments, self.width)
