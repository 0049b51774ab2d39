"""Screen 10, Hosts: each host of this console, how well it is attached, and what it takes to attach it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING

from textual.strip import Strip

from toka_console import asking_hosts
from toka_console.format import host_page
from toka_console.panes.base import Pane
from toka_console.panes.doc import DocPane
from toka_console.panes.group import Group
from toka_console.panes.hosts_table import HostsTable
from toka_console.panes.table import Moved, Opened
from toka_console.place import Place
from toka_console.screens.base import ConsoleScreen
from toka_console.screens.desk import Desk
from toka_console.session import Session

if TYPE_CHECKING:
    from toka_console.links import HostLink


class HostsScreen(ConsoleScreen):
    ID = "hosts"

    def __init__(self, session: Session, desk: Desk) -> None:
        super().__init__(session, desk)
        self.table = HostsTable(session, desk, id="hosts-table")
        self.detail = DocPane(session, "Host", self._detail, id="host-detail")

    def body(self) -> Iterable[Pane | Group]:
        yield self.table
        yield self.detail

    def main_pane(self) -> Pane:
        return self.table

    def arranged_for(self) -> Hashable:
        return len(self.table.order)

    def arrange_body(self, width: int, height: int) -> None:
        roomy = height >= 20
        self.table.frame = self.detail.frame = "box" if roomy else "rule"
        wanted = len(self.table.order) + (3 if roomy else 2)
        share = max(4, min(wanted, height * 55 // 100))
        self.table.styles.height = share
        self.detail.styles.height = height - share

    def selected(self) -> HostLink | None:
        """The host under the cursor."""
        return self.table.link(self.table.cursor)

    def paint(self) -> None:
        self.table.sync()
        super().paint()

    def _detail(self, width: int) -> list[Strip]:
        link = self.selected()
        return [] if link is None else host_page.page(link, self.session, width)

    def place_below(self) -> Place | None:
        """A question is answered first; else the Fleet, narrowed to this host."""
        link = self.selected()
        if link is None:
            return None
        if asking_hosts.first(self.session, link.wanted.name) is not None:
            self.desk.perform("host.answer")
        elif link.bridge is not None:
            self.desk.perform("screen.fleet")
            self.desk.perform("view.host", link.name)
        return None

    def on_moved(self, message: Moved) -> None:
        message.stop()
        self.detail.top = 0
        self.detail.paint()

    def on_opened(self, message: Opened) -> None:
        message.stop()
        self.desk.perform("row.open")
