"""Screen 9, Timeline: everything that agents and operators did, from the log, newest last."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from textual.strip import Strip

from toka_console.format import record_page, trail_text
from toka_console.panes.base import Pane
from toka_console.panes.doc import DocPane
from toka_console.panes.group import Group
from toka_console.panes.table import Moved, Opened
from toka_console.panes.trail_table import TrailKey, TrailTable
from toka_console.screens.base import ConsoleScreen
from toka_console.screens.desk import Desk
from toka_console.session import Session
from toka_console.trail import KINDS, PAGE
from toka_runtime.protocol.commands import ReadEvents

if TYPE_CHECKING:
    from toka_console.bridge import Bridge
    from toka_console.place import Place


class TimelineScreen(ConsoleScreen):
    ID = "timeline"
    FILTER_KEYS = trail_text.FILTER_KEYS
    NUMBER_KEYS = {"since": "time"}  # noqa: RUF012 a mapping nobody changes, as in the base

    def __init__(self, session: Session, desk: Desk) -> None:
        super().__init__(session, desk)
        self.table = TrailTable(session, id="timeline-table")
        self.detail = DocPane(session, "Record", self._detail, id="timeline-detail")

    def body(self) -> Iterable[Pane | Group]:
        yield self.table
        yield self.detail

    def main_pane(self) -> Pane:
        return self.table

    def arrange_body(self, width: int, height: int) -> None:
        detail = 12 if height >= 36 else 8 if height >= 20 else 0
        self.detail.display = detail > 0
        self.detail.styles.height = detail
        self.table.frame = "box" if height >= 16 else "rule"
        self.table.styles.height = height - detail

    def filter_values(self, key: str) -> Iterable[str]:
        return KINDS if key == "kind" else super().filter_values(key)

    def place_below(self) -> Place | None:
        """A record opens over the whole body; a gap is read."""
        cursor = self.table.cursor
        if cursor is None:
            return None
        bridge = self.desk.links.bridge_of(cursor.host)
        if cursor.gap is None:
            self.zoom(self.detail)
        elif bridge is not None and self.table.reading is None:
            self._read(cursor, bridge)
        return None

    def paint(self) -> None:
        self.table.sync()
        self._take_focus()
        super().paint()
        self._read_near()

    def _detail(self, width: int) -> list[Strip]:
        record = self.table.selected()
        return [] if record is None else record_page.page(record, self.session, width)

    def _take_focus(self) -> None:
        from toka_console.identity import AgentKey

        record, state = self.table.selected(), self.session.state
        if record is not None and record.envelope.agent is not None and state is not None:
            key = AgentKey(record.envelope.host, record.envelope.agent)
            self.session.focus = key if key in state.agents else self.session.focus

    # -- the log --------------------------------------------------------------------------------------------------

    def _read_near(self) -> None:
        """Fill the gap in view, as long as there is room beside what is here; after that it is read by hand."""
        wanted = self.table.wanted()
        bridge = self.desk.links.bridge_of(wanted.host) if wanted is not None else None
        if bridge is None or wanted is None or self.table.reading is not None:
            return
        if not self.session.known.hosts[wanted.host].trail.crowded:
            self._read(wanted, bridge)

    def _read(self, key: TrailKey, bridge: Bridge) -> None:
        if key.gap is not None:
            self.table.reading = key.gap
            bridge.spawn(self._fill(key, bridge), name="timeline")

    async def _fill(self, key: TrailKey, bridge: Bridge) -> None:
        trail, gap = self.session.known.hosts[key.host].trail, key.gap
        if gap is None:
            return
        forward = trail.reads_forward(gap)
        read = ReadEvents(
            after_seq=gap.after, before_seq=gap.before, kinds=KINDS, limit=PAGE,
            newest_first=not forward,
        )  # fmt: skip
        try:
            found, more = await bridge.read_page(read)
            self.table.around(lambda: trail.fill(gap, found, forward=forward, more=more))
        finally:
            self.table.reading = None
        self.paint()

    # -- mouse and cursor -----------------------------------------------------------------------------------------

    def on_moved(self, message: Moved) -> None:
        message.stop()
        self.detail.top = 0
        self._take_focus()
        self.detail.paint()
        self._read_near()

    def on_opened(self, message: Opened) -> None:
        message.stop()
        self.desk.perform("row.open")
