"""A virtual table with an identity for each row. Only visible rows are formatted; each keeps its strip until its
version, its texts that depend on time, or the width change."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import ClassVar, Generic, TypeVar

from rich.segment import Segment
from textual.events import Click, MouseScrollDown, MouseScrollUp
from textual.message import Message
from textual.strip import Strip

from toka_console.format.cells import Row
from toka_console.marks import Marks
from toka_console.panes.base import FrameKind, Move, Pane
from toka_console.panes.columns import Column, fit_columns
from toka_console.panes.ordering import HOLD_S, Ordering, Sort, Value
from toka_console.session import Session

K = TypeVar("K", bound=Hashable)
MARK = "■"


class Moved(Message):
    """The cursor is on another row."""


class Opened(Message):
    """A row was double-clicked."""


class TablePane(Pane, Generic[K], can_focus=True):
    """Subclasses give `rows()`, `version()`, `cells()`; the cursor is an identity, not a number."""

    columns: Sequence[Column] = ()
    markable: ClassVar[bool] = False
    """Rows can be marked."""
    moves_by_itself: ClassVar[bool] = False
    """Rows change places also when no column was chosen to sort by: never while the cursor is moved."""

    def __init__(self, session: Session, *, id: str | None = None, frame: FrameKind = "box") -> None:
        super().__init__(session, id=id, frame=frame)
        self.cursor: K | None = None
        self.top = 0
        self.touched = False
        """The operator has put the cursor somewhere."""
        self.marks_cursor = True
        """False: another list of this screen is what the keys are about."""
        self.order: Sequence[K] = ()
        self.marks: Marks[K] = Marks()
        self._base: Sequence[K] = ()
        self._ordering: Ordering[K] = Ordering()
        self._moved_at = float("-inf")
        """Monotonic seconds of the last time that the operator moved the cursor."""
        self._index = 0
        self._cache: dict[K, tuple[Hashable, Strip]] = {}
        self._chosen: tuple[Strip, Strip] | None = None
        self._header: tuple[object, Strip] | None = None
        self._title_spans: list[tuple[int, int, str]] = []
        self._fitted: tuple[int, tuple[Column, ...], list[tuple[Column, int]]] = (-1, (), [])

    # -- for subclasses -------------------------------------------------------------------------------------------

    def rows(self) -> Sequence[K]:
        """Identities in the table's own order. Return the same object, or `self.order`, while it is unchanged."""
        raise NotImplementedError

    def sort_keys(self) -> Mapping[str, Callable[[K], Value]]:
        """Columns that the operator can sort by, and what is compared in each."""
        return {}

    def exists(self, key: K) -> bool:
        """Whether what the row stands for is still there, shown or not: else it loses its mark."""
        return True

    def can_mark(self, key: K) -> bool:
        return self.markable

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
        rows = self.rows()
        if rows is not self.order and rows is not self._base:
            self._base = rows
            self.marks.keep(self.exists)
        order = self._arranged()
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

    def _arranged(self) -> Sequence[K]:
        sort, now = self.sort, self.session.clock.monotonic()
        value = self.sort_keys().get(sort.column) if sort is not None else None
        held = (value is not None or self.moves_by_itself) and now - self._moved_at < HOLD_S
        return self._ordering.arrange(self._base, sort, value, now, held=held)

    def reorder(self) -> None:
        """The operator has asked for other rows: show them in their order at once."""
        self._ordering.forget()

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
        self._place_by_hand(self._index + step)

    def _place_by_hand(self, index: int) -> None:
        self._moved_at = self.session.clock.monotonic()
        self._place(index)

    def _place(self, index: int) -> None:
        self.touched = True
        if self.order:
            self._index = max(0, min(index, len(self.order) - 1))
            self.cursor = self.order[self._index]
        self.paint()
        self.post_message(Moved())

    # -- sorting --------------------------------------------------------------------------------------------------

    @property
    def sort(self) -> Sort | None:
        """What the operator has chosen; None: the table's own order."""
        return self.session.views.sorts.get(self.id or "")

    def sort_by(self, column: str, *, descending: bool | None = None) -> None:
        """By a column, figures from the highest; again by the same one: the other way round. "": the table's own
        order."""
        sorts, sort = self.session.views.sorts, self.sort
        if not column:
            sorts.pop(self.id or "", None)
        else:
            if descending is None:
                known = next((each for each in self.visible_columns() if each.id == column), None)
                by_itself = known is not None and known.right
                descending = not sort.descending if sort is not None and sort.column == column else by_itself
            sorts[self.id or ""] = Sort(column, descending)
        self.session.keep_views()
        self.paint()

    def step_sort(self, step: int) -> None:
        """To the next column in view that can be sorted by, or, past the last one, to the table's own order."""
        keys = self.sort_keys()
        choices = ["", *(column.id for column, _ in self._fitted[2] if column.id in keys)]
        here = choices.index(self.sort.column) if self.sort is not None and self.sort.column in choices else 0
        self.sort_by(choices[(here + step) % len(choices)])

    def order_note(self, own: str) -> str:
        """How the rows are ordered, for the heading; `own`: the table's own order in words."""
        sort = self.sort
        if sort is None or sort.column not in self.sort_keys():
            return own
        return f"by {self._title(sort.column)} {'▼' if sort.descending else '▲'}"

    def _title(self, column: str) -> str:
        return next((each.title for each in self.visible_columns() if each.id == column), column).lower()

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
        made_from = (layout, self.sort)
        if self._header is None or self._header[0] != made_from:
            row = Row(width, self.palette.base).gap()
            self._title_spans = []
            for column, size in layout:
                start = width - row.room
                self._title_spans.append((start, start + size, column.id))
                title, style = column.title, self.palette.heading
                if self.sort is not None and self.sort.column == column.id:
                    title = title[: size - 1] + ("▼" if self.sort.descending else "▲")
                    style = self.palette.accent
                row.add(title, style, size, right=column.right).gap()
            self._header = (made_from, row.strip())
        return self._header[1]

    def _row(self, key: K, width: int, layout: list[tuple[Column, int]]) -> Strip:
        marked = key in self.marks
        version = (self.version(key), width, marked)
        known = self._cache.get(key)
        if known is None or known[0] != version:
            row = Row(width, self.palette.base)
            if marked:
                row.add(MARK, self.palette.accent)
            else:
                row.gap()
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
        if row == -1:
            x = event.x - (1 if self.frame == "box" else 0)
            column = next((name for start, end, name in self._title_spans if start <= x < end), "")
            if column in self.sort_keys():
                self.sort_by(column)
        elif row >= 0 and self.top + row < len(self.order):
            self._place_by_hand(self.top + row)
            if event.chain == 2:
                self.post_message(Opened())

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.stop()
        self._place_by_hand(self._index + 3)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.stop()
        self._place_by_hand(self._index - 3)
