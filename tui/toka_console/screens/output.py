"""Screen 3, Output: one agent's model text and tool cards, live, a block a turn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from toka_console.actions import Action
from toka_console.panes.base import Pane
from toka_console.panes.group import Group
from toka_console.panes.output import OutputPane
from toka_console.place import Place
from toka_console.ring import Mark
from toka_console.screens.base import ConsoleScreen
from toka_console.screens.desk import Desk
from toka_console.session import Session

if TYPE_CHECKING:
    from toka_runtime.protocol.events import Envelope


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

    def place_below(self) -> Place | None:
        """The call of the denial that was jumped to."""
        from toka_console.entries import DenialEntry
        from toka_runtime.protocol.events import OperationDenied

        key, source = self.session.focus, self._found_denial()
        if key is None or source is None or not isinstance(event := source.event, OperationDenied):
            return None
        denial = DenialEntry(
            0, key, source.run, source.at, source.at, source.seq, event.denial, event.task, event.count
        )
        return Place("call", key, denial)

    def offers(self, action: Action) -> bool:
        return self._found_denial() is not None if action.id == "row.open" else super().offers(action)

    def _found_denial(self) -> Envelope | None:
        found = self.output.found()
        return found.source if isinstance(found, Mark) else None
