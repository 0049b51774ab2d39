"""Screen 8, Graph: who waits for whom, what holds it up, and the chain that takes longest."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any

from toka_console import fleet_list
from toka_console.identity import AgentKey
from toka_console.panes.base import Pane
from toka_console.panes.graph import GraphPane
from toka_console.panes.group import Group
from toka_console.panes.table import Moved, Opened
from toka_console.place import Place
from toka_console.screens.base import ConsoleScreen
from toka_console.screens.desk import Desk
from toka_console.session import Session


class GraphScreen(ConsoleScreen):
    ID = "graph"
    FILTER_KEYS = fleet_list.FILTER_KEYS
    NUMBER_KEYS = fleet_list.NUMBER_KEYS

    def __init__(self, session: Session, desk: Desk) -> None:
        super().__init__(session, desk)
        self.graph = GraphPane(session, self._spawn, id="graph-pane")

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        if self.desk.bridge is None:
            work.close()
        else:
            self.desk.bridge.spawn(work, name)

    def body(self) -> Iterable[Pane | Group]:
        yield self.graph

    def main_pane(self) -> Pane:
        return self.graph

    def arrange_body(self, width: int, height: int) -> None:
        self.graph.frame = "box" if width >= 80 and height >= 18 else "rule"

    def place_below(self) -> Place | None:
        focus = self.session.focus
        return Place("agent", focus) if focus is not None else None

    def paint(self) -> None:
        self.graph.sync()
        self._take_focus()
        super().paint()

    def show(self, key: AgentKey | None) -> None:
        """Put the cursor on an agent."""
        self.graph.select(key)

    def next_pane(self, step: int) -> None:
        self.graph.cycle(step)

    def _take_focus(self) -> None:
        state, cursor = self.session.state, self.graph.cursor
        if state is not None and cursor is not None:
            # An agent that is not loaded can be looked at, and nothing can be done to it.
            self.session.focus = cursor if cursor in state.agents else None

    def on_moved(self, message: Moved) -> None:
        message.stop()
        self._take_focus()
        self.footer.paint()
        self.too_small.paint()

    def on_opened(self, message: Opened) -> None:
        message.stop()
        self.desk.perform("row.open")
