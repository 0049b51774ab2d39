"""Incident: what is being done about agents in trouble, against a clock that stands at the moment it was opened."""

from __future__ import annotations

from collections.abc import Iterable

from textual.strip import Strip

from toka_console.panes.base import Pane
from toka_console.panes.doc import DocPane
from toka_console.panes.group import Group
from toka_console.screens.base import ConsoleScreen
from toka_console.screens.desk import Desk
from toka_console.session import Session

_WIDE = 120
"""Cells from which on the record has a place beside the checklist."""


class IncidentScreen(ConsoleScreen):
    ID = "incident"

    def __init__(self, session: Session, desk: Desk) -> None:
        super().__init__(session, desk)
        self.front = DocPane(session, "Incident", self._front, id="incident-front")
        self.record = DocPane(session, "Record", self._record, id="incident-record")
        self._columns = Group(self.front, self.record, id="incident-columns")

    def body(self) -> Iterable[Pane | Group]:
        yield self._columns

    def main_pane(self) -> Pane:
        return self.front

    def arrange_body(self, width: int, height: int) -> None:
        wide = width >= _WIDE
        self.record.display = wide
        self._columns.styles.layout = "horizontal"
        self.front.styles.width = width * 45 // 100 if wide else "100%"
        self.record.styles.width = "1fr"
        self.front.frame = "rule" if width < 100 or height < 18 else "box"

    def _front(self, width: int) -> list[Strip]:
        from toka_console.format import incident_page

        session, incidents = self.session, self.session.incidents
        if incidents is None:
            return []
        shown = incidents.current
        lines = incident_page.front(shown, session, width) if shown else incident_page.nothing(session, width)
        if shown is not None and not self.record.display:
            lines += incident_page.record(shown, session, width)
        return lines + incident_page.past([each for each in incidents.all if each is not shown], session, width)

    def _record(self, width: int) -> list[Strip]:
        from toka_console.format import incident_page

        shown = self.session.incidents.current if self.session.incidents is not None else None
        return incident_page.record(shown, self.session, width) if shown is not None else []
