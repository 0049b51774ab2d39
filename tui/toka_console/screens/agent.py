"""Screen 2, Agent: identity, gauges against limits, tasks with verdicts, last actions, live output."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING

from textual.strip import Strip

from toka_console.format import agent_sections as sections
from toka_console.format.cells import Row
from toka_console.panes.base import Pane
from toka_console.panes.doc import DocPane, MakeLines
from toka_console.panes.group import Group
from toka_console.panes.output import OutputPane
from toka_console.place import Place
from toka_console.screens.base import ConsoleScreen
from toka_console.screens.desk import Desk
from toka_console.session import Session

if TYPE_CHECKING:
    from toka_console.entries import AgentEntry

Section = Callable[["AgentEntry", Session, int], list[Strip]]


class AgentScreen(ConsoleScreen):
    ID = "agent"

    def __init__(self, session: Session, desk: Desk) -> None:
        super().__init__(session, desk)
        self._narrow = False
        self.info = DocPane(session, "Agent", self._info, id="agent-info")
        self.tasks = DocPane(session, "Tasks", self._one(sections.tasks), id="agent-tasks")
        self.actions = DocPane(session, "Last actions", self._one(sections.actions), id="agent-actions")
        self.work = Group(self.tasks, self.actions, id="agent-work")
        self.above = Group(self.info, self.work, id="agent-above")
        self.output = OutputPane(session, lambda: session.focus, id="agent-output", title="Live")

    def body(self) -> Iterable[Pane | Group]:
        yield self.above
        yield self.output

    def main_pane(self) -> Pane:
        return self.info

    def place_below(self) -> Place | None:
        return Place("output", self.session.focus)

    def arranged_for(self) -> Hashable:
        return self.session.focus

    def arrange_body(self, width: int, height: int) -> None:
        self._narrow = width < 100 or height < 26
        self.info.title = self.session.focus.name if self.session.focus is not None else "Agent"
        output = 0 if self._narrow and height < 18 else max(6, height * (40 if not self._narrow else 30) // 100)
        self.output.display = output > 0
        self.output.styles.height = output
        self.above.styles.height = height - output
        self.info.frame = "rule" if self._narrow else "box"
        self.output.frame = "rule" if self._narrow else "box"
        self.work.display = not self._narrow
        if not self._narrow:
            columns = width >= 150
            self.info.styles.width = 54 if columns else 48
            self.work.styles.layout = "horizontal" if columns else "vertical"
            for pane in (self.tasks, self.actions):
                pane.styles.width = "1fr" if columns else "100%"
                pane.styles.height = "100%" if columns else "1fr"
        else:
            self.info.styles.width = "100%"

    def _entry(self) -> AgentEntry | None:
        state, focus = self.session.state, self.session.focus
        return None if state is None or focus is None else state.agents.get(focus)

    def _one(self, section: Section) -> MakeLines:
        def make(width: int) -> list[Strip]:
            entry = self._entry()
            return [] if entry is None else section(entry, self.session, width)

        return make

    def _info(self, width: int) -> list[Strip]:
        entry, session = self._entry(), self.session
        if entry is None:
            return [Row(width, session.palette.muted).gap().add("no agent is selected").strip()]
        lines = [*sections.identity(entry, session, width), *sections.gauges(entry, session, width)]
        lines += sections.money(entry, session, width)
        if self._narrow:
            for title, section in (("TASKS", sections.tasks), ("LAST ACTIONS", sections.actions)):
                lines.append(sections.heading(title, session, width))
                lines += section(entry, session, width)
        return [*lines, *sections.protections(entry, session, width), *sections.rights(entry, session, width)]
