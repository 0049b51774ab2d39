"""Spec files: every problem of those that were rejected, at its line, then those that are loaded."""

from __future__ import annotations

from collections.abc import Iterable

from textual.containers import Container
from textual.strip import Strip

from toka_console.format import glyphs
from toka_console.format.agent_sections import heading
from toka_console.format.cells import Row, wrap
from toka_console.panes.base import Pane
from toka_console.panes.doc import DocPane
from toka_console.screens.base import ConsoleScreen
from toka_console.screens.desk import Desk
from toka_console.session import Session


class SpecsScreen(ConsoleScreen):
    ID = "specs"

    def __init__(self, session: Session, desk: Desk) -> None:
        super().__init__(session, desk)
        self.page = DocPane(session, "Specs", self._page, id="specs-page")

    def body(self) -> Iterable[Pane | Container]:
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
                name = f"  {rejected.name}" if rejected.name else ""
                row = (
                    Row(width, palette.base).gap().add(f"{glyphs.REJECTED.glyph} {glyphs.REJECTED.word} ", palette.bad)
                )
                lines.append(row.add(f"{rejected.file}{name}", palette.strong).strip())
                for problem in rejected.problems:
                    where = f"{problem.line}:{problem.column}" if problem.line else "file"
                    text = f"{problem.message}  [{problem.code}]"
                    for number, piece in enumerate(wrap(text, width - 14)):
                        row = Row(width, palette.base).gap(3).add(where if number == 0 else "", palette.warn, 9).gap()
                        lines.append(row.add(piece).strip())
                    if problem.hint:
                        lines.append(Row(width, palette.base).gap(13).add(problem.hint, palette.info).strip())
                lines.append(Row(width, palette.base).strip())
        lines.append(heading("LOADED", session, width))
        for key, entry in state.agents.items():
            spec = entry.view.spec
            row = Row(width, palette.base).gap().add(key.name, palette.base, 34).gap()
            lines.append(row.add(spec.version, palette.muted, 10).gap().add(spec.file, palette.muted).strip())
        return lines
