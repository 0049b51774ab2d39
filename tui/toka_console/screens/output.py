"""Screen 3, Output: one agent's model text and tool cards, live, a block a turn."""

from __future__ import annotations

from collections.abc import Iterable

from toka_console.panes.base import Pane
from toka_console.panes.group import Group
from toka_console.panes.output import OutputPane
from toka_console.screens.base import ConsoleScreen
from toka_console.screens.desk import Desk
from toka_console.session import Session


class OutputScreen(ConsoleScreen):
    ID = "output"

    def __init__(self, session: Session, desk: Desk) -> None:
        super().__init__(session, desk)
        self.output = OutputPane(session, lambda: session.focus, id="output")

    def body(self) -> Iterable[Pane | Group]:
        yield self.output

    def main_pane(self) -> Pane:
        return self.output

    def arrange_body(self, width: int, height: int) -> None:
        self.output.frame = "box" if height >= 16 else "rule"
