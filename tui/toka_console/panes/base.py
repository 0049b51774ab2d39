"""The base of everything drawn: a widget that makes its own strips and repaints only the cells that changed.

A pane has no children, no CSS borders and no virtual size; growth of its data never lays anything out. `draw` is asked
for the visible rows alone, and `paint` compares them with what is on screen.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Literal

from rich.style import Style
from textual.events import Click
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from toka_console.panes.frame import Frame, blank, rule
from toka_console.panes.spans import differences
from toka_console.session import Session
from toka_console.themes import Palette

FrameKind = Literal["box", "rule", "none"]
Move = Literal["up", "down", "page_up", "page_down", "half_up", "half_down", "top", "bottom"]


class ZoomAsked(Message):
    """The title of a frame was double-clicked."""

    def __init__(self, pane: Pane) -> None:
        super().__init__()
        self.pane = pane


class Pane(Widget):
    """Base. Subclasses implement `content(width, height)`, and set `heading()` when they are framed."""

    ALLOW_SELECT = False

    def __init__(self, session: Session, *, id: str | None = None, frame: FrameKind = "none") -> None:
        super().__init__(id=id)
        self.session = session
        self.frame: FrameKind = frame
        self._strips: list[Strip] | None = None
        self._drawn_size = (0, 0)
        self._drawn_from: Hashable = None
        self._box = Frame()

    # -- for subclasses -------------------------------------------------------------------------------------------

    def content(self, width: int, height: int) -> list[Strip]:
        """At most `height` strips of `width` cells."""
        raise NotImplementedError

    def heading(self) -> tuple[str, str]:
        """Title at the left and note at the right of the frame."""
        return "", ""

    def depends(self) -> Hashable:
        """Everything that the picture depends on beside size, frame, focus and palette. While it is the same, nothing
        is drawn. None: not known, draw and compare."""
        return None

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
        depends = self.depends()
        if depends is not None:
            depends = (depends, self.frame, self.has_focus)
            if depends == self._drawn_from:
                return
        after = self._draw(width, height)
        self._strips, self._drawn_from = after, depends
        changed = [
            Region(start, y, end - start, 1)
            for y, (old, new) in enumerate(zip(before, after, strict=True))
            if old is not new
            for start, end in differences(old, new)
        ]
        if changed:
            self.refresh(*changed)

    def invalidate(self) -> None:
        """Forget what is on screen (theme change, screen shown again)."""
        self._strips = None
        self._drawn_from = None

    def render_lines(self, crop: Region) -> list[Strip]:
        width, height = self.size
        if self._strips is None or self._drawn_size != (width, height):
            self._strips = self._draw(width, height)
            self._drawn_from = None
        lines = self._strips[crop.y : crop.y + crop.height]
        if crop.x or crop.width != width:
            lines = [line.crop(crop.x, crop.x + crop.width) for line in lines]
        return lines

    def _draw(self, width: int, height: int) -> list[Strip]:
        self._drawn_size = (width, height)
        base = self.palette.base
        if self.frame == "box" and width > 4 and height > 2:
            inner = self.content(width - 2, height - 2)
            thumb = self.thumb(height - 2)
            return self._box.box(inner, width, height, self.heading(), self.edge(), self.palette, thumb)
        if self.frame == "rule" and height > 1:
            inner = self.content(width, height - 1)
            lines = [rule(self.heading(), width, self.edge(), self.palette), *inner]
        else:
            lines = self.content(width, height)
        lines = [line if line.cell_length == width else line.adjust_cell_length(width, base) for line in lines]
        return (lines + [blank(width, base)] * (height - len(lines)))[:height]

    def on_click(self, event: Click) -> None:
        if event.chain == 2 and event.y == 0 and self.frame != "none":
            self.post_message(ZoomAsked(self))

    # -- Textual --------------------------------------------------------------------------------------------------

    def watch_has_focus(self, _has_focus: bool) -> None:
        # Not in `on_focus`: that comes before the base class has noted the focus.
        super().watch_has_focus(_has_focus)
        self.paint()
