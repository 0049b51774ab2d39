"""The base of everything drawn: a widget that makes its own strips and repaints only the cells that changed.

A pane has no children, no CSS borders and no virtual size; growth of its data never lays anything out. `draw` is asked
for the visible rows alone, and `paint` compares them with what is on screen.
"""

from __future__ import annotations

from typing import Literal

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from toka_console.format.cells import Row, clip, width_of
from toka_console.session import Session
from toka_console.themes import Palette

FrameKind = Literal["box", "rule", "none"]
Move = Literal["up", "down", "page_up", "page_down", "half_up", "half_down", "top", "bottom"]


class Pane(Widget):
    """Base. Subclasses implement `content(width, height)`, and set `heading()` when they are framed."""

    ALLOW_SELECT = False

    def __init__(self, session: Session, *, id: str | None = None, frame: FrameKind = "none") -> None:
        super().__init__(id=id)
        self.session = session
        self.frame: FrameKind = frame
        self._strips: list[Strip] | None = None
        self._drawn_size = (0, 0)

    # -- for subclasses -------------------------------------------------------------------------------------------

    def content(self, width: int, height: int) -> list[Strip]:
        """At most `height` strips of `width` cells."""
        raise NotImplementedError

    def heading(self) -> tuple[str, str]:
        """Title at the left and note at the right of the frame."""
        return "", ""

    def thumb(self, height: int) -> tuple[int, int] | None:
        """(first row, rows) of the scroll bar's thumb over `height` content rows; None when all is visible."""
        return None

    def move(self, how: Move) -> None:
        """Scroll or move the cursor."""

    def edge(self) -> Style:
        """Style of the frame."""
        return self.palette.frame_focused if self.has_focus else self.palette.frame

    @property
    def palette(self) -> Palette:
        return self.session.palette

    @property
    def inner_height(self) -> int:
        return max(0, self.size.height - {"box": 2, "rule": 1, "none": 0}[self.frame])

    # -- painting -------------------------------------------------------------------------------------------------

    def paint(self) -> None:
        """Draw again and repaint what differs. Cheap when nothing does."""
        width, height = self.size
        before = self._strips
        if not width or not height or not self.is_mounted:
            self._strips = None
            return
        if before is None or self._drawn_size != (width, height):
            self._strips = None
            self.refresh()
            return
        after = self._draw(width, height)
        self._strips = after
        changed = [
            Region(start, y, end - start, 1)
            for y, (old, new) in enumerate(zip(before, after, strict=True))
            if old is not new
            for start, end in _differences(old, new)
        ]
        if changed:
            self.refresh(*changed)

    def invalidate(self) -> None:
        """Forget what is on screen (theme change, screen shown again)."""
        self._strips = None

    def render_lines(self, crop: Region) -> list[Strip]:
        width, height = self.size
        if self._strips is None or self._drawn_size != (width, height):
            self._strips = self._draw(width, height)
        lines = self._strips[crop.y : crop.y + crop.height]
        if crop.x or crop.width != width:
            lines = [line.crop(crop.x, crop.x + crop.width) for line in lines]
        return lines

    def _draw(self, width: int, height: int) -> list[Strip]:
        self._drawn_size = (width, height)
        if self.frame == "box" and width > 4 and height > 2:
            lines = self._boxed(width, height)
        elif self.frame == "rule" and height > 1:
            lines = [self._rule(width), *self.content(width, height - 1)]
        else:
            lines = self.content(width, height)
        base = self.palette.base
        lines = [line if line.cell_length == width else line.adjust_cell_length(width, base) for line in lines]
        blank = Strip([Segment(" " * width, base)], width)
        return (lines + [blank] * (height - len(lines)))[:height]

    def _boxed(self, width: int, height: int) -> list[Strip]:
        style = self.edge()
        left, right, grip = Segment("│", style), Segment("│", style), Segment("┃", self.palette.muted)
        inner = self.content(width - 2, height - 2)
        blank = Strip([Segment(" " * (width - 2), self.palette.base)], width - 2)
        thumb = self.thumb(height - 2)
        lines = [self._top(width, style)]
        for y in range(height - 2):
            body = inner[y].adjust_cell_length(width - 2, self.palette.base) if y < len(inner) else blank
            edge = grip if thumb is not None and thumb[0] <= y < thumb[0] + thumb[1] else right
            lines.append(Strip([left, *body, edge], width))
        lines.append(Strip([Segment(f"╰{'─' * (width - 2)}╯", style)], width))
        return lines

    def _top(self, width: int, style: Style) -> Strip:
        title, note = self.heading()
        title = clip(title, width - 6)
        row = Row(width - 1, style).add("╭", style)
        if title:
            row.add("─ ", style).add(title, self.palette.title).add(" ", style)
        note = clip(note, row.room - 5)
        row.fill("─", style, leave=width_of(note) + 3 if note else 0)
        if note:
            row.add(" ", style).add(note, self.palette.muted).add(" ", style).fill("─", style)
        return Strip([*row.strip(), Segment("╮", style)], width)

    def _rule(self, width: int) -> Strip:
        style = self.edge()
        title, note = self.heading()
        row = Row(width, style).add("─ ", style).add(clip(title, width - 4), self.palette.title).add(" ", style)
        note = clip(note, row.room - 3)
        row.fill("─", style, leave=width_of(note) + 1 if note else 0)
        if note:
            row.add(" ", style).add(note, self.palette.muted)
        return row.strip()

    # -- Textual --------------------------------------------------------------------------------------------------

    def watch_has_focus(self, _has_focus: bool) -> None:
        # Not in `on_focus`: that comes before the base class has noted the focus.
        super().watch_has_focus(_has_focus)
        self.paint()


MERGE_GAP = 8
"""Equal cells between two changed spans that are cheaper to write again than to jump over."""


def _differences(old: Strip, new: Strip) -> list[tuple[int, int]]:
    """The spans of cells in which two strips of one width differ, in whole segments of the new one."""
    starts = _places(old)
    spans: list[tuple[int, int]] = []
    at = 0
    for segment in new:
        size = width_of(segment.text)
        # The same segment at the same place is on screen already.
        if starts.get(at) != segment and size:
            if spans and at - spans[-1][1] <= MERGE_GAP:
                spans[-1] = (spans[-1][0], at + size)
            else:
                spans.append((at, at + size))
        at += size
    return spans


def _places(strip: Strip) -> dict[int, Segment]:
    """Segments by the cell they start at."""
    places: dict[int, Segment] = {}
    at = 0
    for segment in strip:
        places[at] = segment
        at += width_of(segment.text)
    return places
