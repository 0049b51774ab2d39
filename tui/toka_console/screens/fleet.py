"""Screen 1, Fleet: all agents, trouble first; the host in figures; the focused agent's output live."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable

from textual.strip import Strip

from toka_console import fleet_list
from toka_console.actions import Action
from toka_console.format import spec_page
from toka_console.identity import AgentKey
from toka_console.panes.base import Pane
from toka_console.panes.fleet_table import FleetTable
from toka_console.panes.gauges import GaugesPane
from toka_console.panes.group import Group
from toka_console.panes.output import OutputPane
from toka_console.panes.table import Moved, Opened
from toka_console.place import Place
from toka_console.screens.base import ConsoleScreen
from toka_console.screens.desk import Desk
from toka_console.session import Session

WIDE = 100
GAUGES_WIDTH = 46


class _Tail(OutputPane):
    """Live output of the agent under the cursor, or of the one that is followed."""

    def __init__(self, fleet: FleetScreen, *, id: str, title: str, instead: Callable[[int], list[Strip]]) -> None:
        super().__init__(fleet.session, lambda: fleet.followed or fleet.session.focus, id=id, title=title,
                         instead=instead)  # fmt: skip
        self._fleet = fleet

    def heading(self) -> tuple[str, str]:
        title, note = super().heading()
        return (f"{title}, followed (F lets go)" if self._fleet.followed is not None else title), note

    def depends(self) -> Hashable:
        known = super().depends()
        return None if known is None else (known, self._fleet.followed)


class FleetScreen(ConsoleScreen):
    ID = "fleet"
    FILTER_KEYS = fleet_list.FILTER_KEYS
    NUMBER_KEYS = fleet_list.NUMBER_KEYS

    def __init__(self, session: Session, desk: Desk) -> None:
        super().__init__(session, desk)
        self.table = FleetTable(session, id="fleet-table")
        self.gauges = GaugesPane(session, id="gauges")
        self.followed: AgentKey | None = None
        """The agent that the live output stays with, wherever the cursor goes."""
        self.tail = _Tail(self, id="tail", title="Live", instead=self._problems)
        self.below = Group(id="below")

    def body(self) -> Iterable[Pane | Group]:
        yield self.table
        with self.below:
            yield self.gauges
            yield self.tail

    def main_pane(self) -> Pane:
        return self.table

    def arranged_for(self) -> Hashable:
        return len(self.table.order)

    def arrange_body(self, width: int, height: int) -> None:
        wanted = len(self.table.order) + 3
        wide = width >= WIDE and height >= 24
        if wide:
            table = max(8, min(wanted, height - 12 if height < 36 else height * 55 // 100))
        else:
            table = height - 1 if height < 16 else max(8, min(wanted, height - 7))
        table = self.resized(table, 5, height - 6 if wide else height - 1)
        self.below.styles.layout = "horizontal" if wide else "vertical"
        self.table.styles.height = table
        self.below.styles.height = height - table
        self.gauges.frame = "box" if wide else "none"
        self.gauges.styles.width = GAUGES_WIDTH if wide else "100%"
        self.gauges.styles.height = "100%" if wide else 1
        self.tail.frame = "box" if wide else "rule"
        self.tail.display = wide or height - table >= 4

    def _problems(self, width: int) -> list[Strip]:
        """Of the rejected spec under the cursor."""
        row, state = self.table.cursor, self.session.state
        if row is None or state is None or row.agent is not None:
            return []
        rejected = state.hosts[row.host].fleet.rejected.get(row.name)
        return [] if rejected is None else spec_page.rejected(rejected, self.session, width)

    def marked(self) -> tuple[AgentKey, ...]:
        return tuple(key.agent for key in self.table.marks if key.agent is not None)

    def scope(self) -> Collection[AgentKey] | None:
        """What the filter shows; that only trouble is shown narrows nothing."""
        state, chosen = self.session.state, self.session.filter(self.ID)
        if state is None or not chosen:
            return None
        rows = fleet_list.rows(state, self.session.now(), chosen)
        return {key.agent for key in rows if key.agent is not None}

    def place_below(self) -> Place | None:
        focus = self.session.focus
        return Place("agent", focus) if focus is not None else Place("specs")

    def offers(self, action: Action) -> bool:
        if action.id == "screen.back":
            return bool(self.session.filter(self.ID)) or self.zoomed is not None
        if action.id == "approval.refuse":
            return not action.disabled(self.desk.context())
        return True

    def paint(self) -> None:
        self.table.sync()
        self._take_focus()
        super().paint()

    def _take_focus(self) -> None:
        row = self.table.cursor
        self.session.focus = row.agent if row is not None else None
        state = self.session.state
        if self.followed is not None and (state is None or self.followed not in state.agents):
            self.followed = None

    def show(self, key: AgentKey | None) -> None:
        """Put the cursor on an agent."""
        if (row := next((row for row in self.table.order if row.agent == key), None)) is not None:
            self.table.select(row)

    def on_moved(self, message: Moved) -> None:
        message.stop()
        self._take_focus()
        self.tail.paint()
        self.footer.paint()
        self.too_small.paint()

    def on_opened(self, message: Opened) -> None:
        message.stop()
        self.desk.perform("row.open")
