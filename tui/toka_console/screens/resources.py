"""Screen 7, Resources: what hosts and agents use, now and over the last hour, against their limits."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from toka_console import fleet_list
from toka_console.identity import AgentKey
from toka_console.panes.base import Pane
from toka_console.panes.group import Group
from toka_console.panes.plots import PlotsPane
from toka_console.panes.resources_table import ResourcesTable
from toka_console.panes.table import Moved, Opened
from toka_console.place import Place
from toka_console.screens.base import ConsoleScreen
from toka_console.screens.desk import Desk
from toka_console.session import Session

WIDE = 150
"""From so many cells on the plots stand beside the table."""


class ResourcesScreen(ConsoleScreen):
    ID = "resources"
    FILTER_KEYS = fleet_list.FILTER_KEYS
    NUMBER_KEYS = fleet_list.NUMBER_KEYS

    def __init__(self, session: Session, desk: Desk) -> None:
        super().__init__(session, desk)
        self.table = ResourcesTable(session, id="resources-table")
        self.plots = PlotsPane(session, lambda: self.table.cursor, id="resources-plots")

    def body(self) -> Iterable[Pane | Group]:
        yield self.table
        yield self.plots

    def main_pane(self) -> Pane:
        return self.table

    def arranged_for(self) -> Hashable:
        return len(self.table.order)

    def arrange_body(self, width: int, height: int) -> None:
        wide = width >= WIDE
        self.container.styles.layout = "horizontal" if wide else "vertical"
        self.table.frame = self.plots.frame = "box" if height >= 16 else "rule"
        share = height if wide else min(len(self.table.order) + 3, max(5, height * 45 // 100))
        self.table.styles.height = share
        self.table.styles.width = width // 2 if wide else width
        self.plots.styles.height = height if wide else height - share
        self.plots.styles.width = width - width // 2 if wide else width

    def place_below(self) -> Place | None:
        focus = self.session.focus
        return Place("agent", focus) if focus is not None else None

    def paint(self) -> None:
        self.table.sync()
        self._take_focus()
        super().paint()

    def show(self, key: AgentKey | None) -> None:
        """Put the cursor on an agent."""
        if key is not None:
            self.table.select(key)

    def _take_focus(self) -> None:
        cursor = self.table.cursor
        if self.session.state is not None:
            self.session.focus = cursor if isinstance(cursor, AgentKey) else None

    def on_moved(self, message: Moved) -> None:
        message.stop()
        self._take_focus()
        self.plots.first = 0
        self.plots.paint()
        self.footer.paint()
        self.too_small.paint()

    def on_opened(self, message: Opened) -> None:
        message.stop()
        self.desk.perform("row.open")
