"""A pane's frame. Rows whose content is the same object as at the last drawing are the same object again: what did not
change is neither built nor compared."""

from __future__ import annotations

from functools import lru_cache

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from toka_console.format.cells import Row, clip, width_of
from toka_console.themes import Palette


@lru_cache(64)
def blank(width: int, style: Style) -> Strip:
    return Strip([Segment(" " * width, style)], width)


class Frame:
    def __init__(self) -> None:
        self._key: tuple[int, Style] | None = None
        self._framed: dict[tuple[int, bool], tuple[Strip, Strip]] = {}
        """(id of the content, with the scroll bar's thumb) → (content, framed row)."""
        self._head: tuple[tuple[str, str], Strip] | None = None
        self._foot = Strip([])

    def box(
        self, inner: list[Strip], width: int, height: int, heading: tuple[str, str], edge: Style, palette: Palette,
        thumb: tuple[int, int] | None,
    ) -> list[Strip]:  # fmt: skip
        """`inner` in a box of `width` × `height`."""
        if self._key != (width, edge):
            self._key = (width, edge)
            self._framed, self._head = {}, None
            self._foot = Strip([Segment(f"╰{'─' * (width - 2)}╯", edge)], width)
        if self._head is None or self._head[0] != heading:
            self._head = (heading, _top(heading, width, edge, palette))
        first, last = (thumb[0], thumb[0] + thumb[1]) if thumb is not None else (0, 0)
        empty = blank(width - 2, palette.base)
        framed: dict[tuple[int, bool], tuple[Strip, Strip]] = {}
        rows = [self._head[1]]
        for y in range(height - 2):
            content = inner[y] if y < len(inner) else empty
            key = (id(content), first <= y < last)
            known = framed.get(key) or self._framed.get(key)
            if known is None or known[0] is not content:
                known = (content, self._row(content, width, edge, palette, grip=key[1]))
            framed[key] = known
            rows.append(known[1])
        self._framed = framed
        rows.append(self._foot)
        return rows

    def _row(self, content: Strip, width: int, edge: Style, palette: Palette, grip: bool) -> Strip:
        if content.cell_length != width - 2:
            content = content.adjust_cell_length(width - 2, palette.base)
        right = Segment("┃", palette.muted) if grip else Segment("│", edge)
        return Strip([Segment("│", edge), *content, right], width)


def _top(heading: tuple[str, str], width: int, edge: Style, palette: Palette) -> Strip:
    title, note = heading
    title = clip(title, width - 6)
    row = Row(width - 1, edge).add("╭", edge)
    if title:
        row.add("─ ", edge).add(title, palette.title).add(" ", edge)
    note = clip(note, row.room - 5)
    row.fill("─", edge, leave=width_of(note) + 3 if note else 0)
    if note:
        row.add(" ", edge).add(note, palette.muted).add(" ", edge).fill("─", edge)
    return Strip([*row.strip(), Segment("╮", edge)], width)


def rule(heading: tuple[str, str], width: int, edge: Style, palette: Palette) -> Strip:
    """A title row without a box."""
    title, note = heading
    row = Row(width, edge).add("─ ", edge).add(clip(title, width - 4), palette.title).add(" ", edge)
    note = clip(note, row.room - 3)
    row.fill("─", edge, leave=width_of(note) + 1 if note else 0)
    if note:
        row.add(" ", edge).add(note, palette.muted)
    return row.strip()
