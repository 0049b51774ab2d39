"""A virtual table with an identity for each row. Only visible rows are formatted; each keeps its strip until its
version, its texts that depend on time, or the width change."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

from rich.segment import Segment
from textual.events import Click, MouseScrollDown, MouseScrollUp
from textual.message import Message
from textual.strip import Strip

from toka_console.format.cells import Row
from toka_console.panes.base import FrameKind, Move, Pane
from toka_console.panes.columns import Column, fit_columns
from toka_console.session import Session

K = TypeVar("K", bound=Hashable)


class Moved(Message):
    """The cursor is on another row."""


class Opened(Message):
    """A row was double-clicked."""


class TablePane(Pane, Generic[K], can_focus=True):
    """Subclasses give `rows()`, `version()`, `cells()`; the cursor is an identity, not a number."""

    columns: Sequence[Column] = ()

    def __init__(self, session: Session, *, id: str | None = None, frame: FrameKind = "box") -> None:
        super().__init__(session, id=id, frame=frame)
        self.cursor: K | None = None
        self.top = 0
        self.touched = False
        """The operator has put the cursor somewhere."""
        self.marks_cursor = True
        """False: another list of this screen is what the keys are about."""
        self.order: Sequence[K] = ()
        self._index = 0
        self._cache: dict[K, tuple[Hashable, Strip]] = {}
        self._chosen: tuple[Strip, Strip] | None = None
        self._header: tuple[object, Strip] | None = None
        self._fitted: tuple[int, tuple[Column, ...], list[tuple[Column, int]]] = (-1, (), [])

    # -- for subclasses -------------------------------------------------------------------------------------------

    def rows(self) -> Sequence[K]:
        """Identities in order. Return the same object while the order is unchanged."""
        raise NotImplementedError

    def version(self, key: K) -> Hashable:
        """Everything but the width that the drawn row depends on."""
        raise NotImplementedError

    def cells(self, key: K, row: Row, layout: list[tuple[Column, int]]) -> None:
        """Add the cells of one row, each column in its width and one cell between two."""
        raise NotImplementedError

    def visible_columns(self) -> Sequence[Column]:
        return self.columns

    def prefers_top(self) -> bool:
        """Whether a cursor that nobody has moved yet goes to a new first row."""
        return False

    def empty(self) -> str:
        """What is said when there is no row."""
        return "nothing here"

    # -- cursor ---------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Take the current order; the cursor stays with its identity, or at its place when that has gone."""
        order = self.rows()
        if order is not self.order:
            self.order = order
            if self.cursor is not None:
                try:
                    self._index = order.index(self.cursor)
                except ValueError:
                    self.cursor = None
            if len(self._cache) > 4 * len(order) + 200:
                self._cache.clear()
        self._index = max(0, min(self._index, len(order) - 1))
        if not self.touched and order and self.cursor != order[0] and self.prefers_top():
            self.cursor, self._index = order[0], 0
        if self.cursor is None and order:
            self.cursor = order[self._index]
        height = max(1, self.inner_height - 1)
        self.top = max(0, min(self.top, len(order) - height))
        if self._index < self.top:
            self.top = self._index
        elif self._index >= self.top + height:
            self.top = self._index - height + 1

    def select(self, key: K) -> None:
        """Put the cursor on `key`, if it is there."""
        self.sync()
        if key in self.order:
            self._place(self.order.index(key))

    def move(self, how: Move) -> None:
        self.sync()
        page = max(1, self.inner_height - 1)
        step = {
            "up": -1, "down": 1, "page_up": -page, "page_down": page, "half_up": -(page // 2),
            "half_down": page // 2, "top": -len(self.order), "bottom": len(self.order),
        }[how]  # fmt: skip
        self._place(self._index + step)

    def _place(self, index: int) -> None:
        self.touched = True
        if self.order:
            self._index = max(0, min(index, len(self.order) - 1))
            self.cursor = self.order[self._index]
        self.paint()
        self.post_message(Moved())

    # -- drawing --------------------------------------------------------------------------------------------------

    def layout_for(self, width: int) -> list[tuple[Column, int]]:
        columns = tuple(self.visible_columns())
        if self._fitted[:2] != (width, columns):
            self._fitted = (width, columns, fit_columns(columns, width))
            self._cache.clear()
        return self._fitted[2]

    def content(self, width: int, height: int) -> list[Strip]:
        self.sync()
        # One cell of air at each side.
        layout = self.layout_for(width - 2)
        lines = [self._titles(width, layout)]
        for key in self.order[self.top : self.top + height - 1]:
            lines.append(self._row(key, width, layout))
        if not self.order:
            text = self.empty()
            lines.append(Row(width, self.palette.base).strip())
            lines += [
                Row(width, self.palette.base).gap(2).add(line, self.palette.muted).strip() for line in text.split("\n")
            ]
        return lines

    def _titles(self, width: int, layout: list[tuple[Column, int]]) -> Strip:
        if self._header is None or self._header[0] is not layout:
            row = Row(width, self.palette.base).gap()
            for column, size in layout:
                row.add(column.title, self.palette.heading, size, right=column.right).gap()
            self._header = (layout, row.strip())
        return self._header[1]

    def _row(self, key: K, width: int, layout: list[tuple[Column, int]]) -> Strip:
        version = (self.version(key), width)
        known = self._cache.get(key)
        if known is None or known[0] != version:
            row = Row(width, self.palette.base).gap()
            self.cells(key, row, layout)
            known = self._cache[key] = (version, row.strip())
        return self._selected(known[1], width) if self.marks_cursor and key == self.cursor else known[1]

    def _selected(self, strip: Strip, width: int) -> Strip:
        """The row under the cursor; the same object while the row is the same."""
        if self._chosen is None or self._chosen[0] is not strip:
            base, chosen = self.palette.base, self.palette.selected
            drawn = Strip([Segment(text, chosen(style or base)) for text, style, _ in strip], width)
            self._chosen = (strip, drawn)
        return self._chosen[1]

    def invalidate(self) -> None:
        super().invalidate()
        self._cache.clear()
        self._chosen = self._header = None

    def thumb(self, height: int) -> tuple[int, int] | None:
        rows, shown = len(self.order), height - 1
        if shown <= 0 or rows <= shown:
            return None
        size = max(1, shown * shown // rows)
        return 1 + round((shown - size) * self.top / (rows - shown)), size

    # -- mouse ----------------------------------------------------------------------------------------------------

    def on_click(self, event: Click) -> None:
        row = event.y - (1 if self.frame != "none" else 0) - 1
        if row >= 0 and self.top + row < len(self.order):
            self._place(self.top + row)
            if event.chain == 2:
                self.post_message(Opened())

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.stop()
        self._place(self._index + 3)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.stop()
        self._place(self._index - 3)
