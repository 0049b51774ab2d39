"""Spec files: every problem of those that were rejected, at its line, then those that are loaded."""

from __future__ import annotations

from collections.abc import Iterable

from textual.strip import Strip

from toka_console.format import spec_page
from toka_console.format.agent_sections import heading
from toka_console.format.cells import Row
from toka_console.panes.base import Pane
from toka_console.panes.doc import DocPane
from toka_console.panes.group import Group
from toka_console.screens.base import ConsoleScreen
from toka_console.screens.desk import Desk
from toka_console.session import Session


class SpecsScreen(ConsoleScreen):
    ID = "specs"

    def __init__(self, session: Session, desk: Desk) -> None:
        super().__init__(session, desk)
        self.page = DocPane(session, "Specs", self._page, id="specs-page")

    def body(self) -> Iterable[Pane | Group]:
        yield self.page

    def main_pane(self) -> Pane:
        return self.page

    def _page(self, width: int) -> list[Strip]:
        session, state = self.session, self.session.state
        lines: list[Strip] = []
        if state is None:
            return lines
        palette = session.palette
        for host in state.hosts.values():
            for rejected in host.fleet.rejected.values():
                lines += spec_page.rejected(rejected, session, width)
        lines.append(heading("LOADED", session, width))
        for key, entry in state.agents.items():
            spec = entry.view.spec
            row = Row(width, palette.base).gap().add(key.name, palette.base, 34).gap()
            lines.append(row.add(spec.version, palette.muted, 10).gap().add(spec.file, palette.muted).strip())
        return lines
