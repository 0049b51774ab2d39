"""The exact call behind a denial, from the output window or, when it has left that, from the runtime's log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from textual.strip import Strip

from toka_console.format import denial_page
from toka_console.panes.base import Pane
from toka_console.panes.doc import DocPane
from toka_console.panes.group import Group
from toka_console.ring import Tool
from toka_console.screens.base import ConsoleScreen
from toka_console.screens.desk import Desk
from toka_console.session import Session

if TYPE_CHECKING:
    from toka_console.bridge import Bridge
    from toka_console.entries import DenialEntry


class CallScreen(ConsoleScreen):
    ID = "call"

    def __init__(self, session: Session, desk: Desk) -> None:
        super().__init__(session, desk)
        self.page = DocPane(session, "Denied call", self._page, id="call-page")
        self.tool_call: Tool | None = None
        self.looking = False
        self._looked_up: DenialEntry | None = None

    def denial(self) -> DenialEntry | None:
        return self.session.call

    def body(self) -> Iterable[Pane | Group]:
        yield self.page

    def main_pane(self) -> Pane:
        return self.page

    def _page(self, width: int) -> list[Strip]:
        entry = self.session.call
        return [] if entry is None else denial_page.page(entry, self.tool_call, self.looking, self.session, width)

    def paint(self) -> None:
        denial = self.session.call
        bridge = self.desk.links.bridge_of(denial.key.host) if denial is not None else None
        if denial is not None and bridge is not None and denial is not self._looked_up:
            self._looked_up = denial
            if self.session.incidents is not None:
                self.session.incidents.seen(denial.key)
            self._look_up(denial, bridge)
        super().paint()

    def _look_up(self, denial: DenialEntry, bridge: Bridge) -> None:
        """Find the call: in the agent's window, else in the log."""
        self.page.top = 0
        call = denial.denial.operation.call
        entry = bridge.state.agents.get(denial.key)
        held = (known for known in (entry.output.entries if entry is not None else ()) if isinstance(known, Tool))
        self.tool_call = next((known for known in held if call and known.call == call), None)
        self.looking = self.tool_call is None and bool(call)
        if self.looking:
            bridge.spawn(self._read_log(denial, bridge), name="log")

    async def _read_log(self, denial: DenialEntry, bridge: Bridge) -> None:
        from toka_console import record
        from toka_console.ring import OutputRing

        try:
            ring = OutputRing(2**20)
            for envelope in sorted(await bridge.find_call(denial), key=lambda found: found.seq):
                record.append(ring, envelope)
            found = next((known for known in ring.entries if isinstance(known, Tool)), None)
        finally:
            self.looking = False
        if self.session.call is denial:
            self.tool_call = found
        self.paint()
