"""A scrolling page of ready strips: help, details, the Agent's sections."""

from __future__ import annotations

from collections.abc import Callable

from textual.events import MouseScrollDown, MouseScrollUp
from textual.strip import Strip

from toka_console.format.cells import Row
from toka_console.panes.base import FrameKind, Move, Pane
from toka_console.session import Session

MakeLines = Callable[[int], list[Strip]]
"""Page lines for a width."""


class DocPane(Pane, can_focus=True):
    """Shows what `make(width)` returns, from `top` on. Short pages only: all lines are made at each paint."""

    def __init__(
        self, session: Session, title: str, make: MakeLines, *, id: str | None = None, frame: FrameKind = "box"
    ) -> None:
        super().__init__(session, id=id, frame=frame)
        self.title = title
        self.note = ""
        self.make = make
        self.top = 0
        self._length = 0

    def heading(self) -> tuple[str, str]:
        return self.title, self.note

    def content(self, width: int, height: int) -> list[Strip]:
        lines = self.make(width)
        self._length = len(lines)
        self.top = max(0, min(self.top, self._length - height))
        shown = lines[self.top : self.top + height]
        below = self._length - self.top - height
        if below > 0 and self.frame != "box" and shown:
            shown[-1] = Row(width, self.palette.muted).gap().add(f"⋯ {below + 1} more lines").strip()
        return shown

    def thumb(self, height: int) -> tuple[int, int] | None:
        if self._length <= height or height <= 0:
            return None
        size = max(1, height * height // self._length)
        return round((height - size) * self.top / (self._length - height)), size

    def move(self, how: Move) -> None:
        page = max(1, self.inner_height - 1)
        self.top += {
            "up": -1, "down": 1, "page_up": -page, "page_down": page, "half_up": -(page // 2), "half_down": page // 2,
            "top": -self._length, "bottom": self._length,
        }[how]  # fmt: skip
        self.top = max(0, min(self.top, self._length - self.inner_height))
        self.paint()

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.stop()
        for _ in range(3):
            self.move("down")

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.stop()
        for _ in range(3):
            self.move("up")
