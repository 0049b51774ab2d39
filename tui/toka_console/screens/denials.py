"""Screen 5, Denials: what was refused, by which layer and rule; enter opens the exact call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from textual.strip import Strip

from toka_console import selectors
from toka_console.format import denial_page
from toka_console.panes.base import Pane
from toka_console.panes.denials_table import DenialsTable
from toka_console.panes.doc import DocPane
from toka_console.panes.group import Group
from toka_console.panes.table import Moved, Opened
from toka_console.place import Place
from toka_console.screens.base import ConsoleScreen
from toka_console.screens.desk import Desk
from toka_console.session import Session

if TYPE_CHECKING:
    from toka_console.entries import DenialEntry


class DenialsScreen(ConsoleScreen):
    ID = "denials"
    FILTER_KEYS = selectors.DENIAL_FILTER_KEYS

    def __init__(self, session: Session, desk: Desk) -> None:
        super().__init__(session, desk)
        self.table = DenialsTable(session, id="denials-table")
        self.detail = DocPane(session, "Why", self._detail, id="denial-detail")

    def body(self) -> Iterable[Pane | Group]:
        yield self.table
        yield self.detail

    def main_pane(self) -> Pane:
        return self.table

    def arrange_body(self, width: int, height: int) -> None:
        detail = 11 if height >= 24 else 7 if height >= 16 else 0
        self.detail.display = detail > 0
        self.detail.frame = "box" if height >= 24 else "rule"
        self.detail.styles.height = detail
        self.table.styles.height = height - detail

    def _detail(self, width: int) -> list[Strip]:
        entry = self.table.selected()
        return [] if entry is None else denial_page.facts(entry, self.session, width)

    def denial(self) -> DenialEntry | None:
        return self.table.selected()

    def place_below(self) -> Place | None:
        denial = self.table.selected()
        return Place("call", call=denial) if denial is not None else None

    def on_moved(self, message: Moved) -> None:
        message.stop()
        self.detail.top = 0
        self.detail.paint()

    def on_opened(self, message: Opened) -> None:
        message.stop()
        self.desk.perform("row.open")
