"""Screen 6, Approvals: what agents ask for, every answer in words, and the grants that hold."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from textual.strip import Strip

from toka_console import approvals
from toka_console.actions import Action
from toka_console.format import approval_page
from toka_console.identity import AgentKey, ApprovalKey, GrantKey
from toka_console.panes.approvals_table import GrantsTable, RequestsTable
from toka_console.panes.base import Pane
from toka_console.panes.doc import DocPane
from toka_console.panes.group import Group
from toka_console.panes.table import Moved, Opened
from toka_console.place import Place
from toka_console.screens.base import ConsoleScreen
from toka_console.screens.desk import Desk
from toka_console.session import Session

V = TypeVar("V")
MakePage = Callable[[AgentKey, V, Session, int], list[Strip]]


class ApprovalsScreen(ConsoleScreen):
    ID = "approvals"

    def __init__(self, session: Session, desk: Desk) -> None:
        super().__init__(session, desk)
        self.requests = RequestsTable(session, id="requests")
        self.grants = GrantsTable(session, id="grants")
        self.detail = DocPane(session, "Request", self._page, id="approval-detail")
        self._list: RequestsTable | GrantsTable = self.requests
        """The list that was focused last: what the detail and the keys are about."""
        self._shown: tuple[ApprovalKey | GrantKey | None, float] = (None, 0.0)
        """The subject, and when it was drawn first."""
        self._lines: tuple[object, list[Strip]] = (None, [])

    def body(self) -> Iterable[Pane | Group]:
        yield self.requests
        yield self.detail
        yield self.grants

    def main_pane(self) -> Pane:
        return self._list if self._list.display else self.requests

    def arranged_for(self) -> Hashable:
        return len(self.requests.order), len(self.grants.order)

    def arrange_body(self, width: int, height: int) -> None:
        roomy = height >= 18
        frame = 3 if roomy else 2
        for table, least, most in ((self.requests, 3, height * 40 // 100), (self.grants, 0, height * 25 // 100)):
            rows = len(table.order)
            table.frame = "box" if roomy else "rule"
            table.display = rows > 0 or least > 0
            table.styles.height = max(frame + 1, min(frame + max(rows, least if roomy else 1), most))
        self.detail.frame = "box" if roomy else "rule"

    def offers(self, action: Action) -> bool:
        # On narrow terminals the answers have the room.
        return super().offers(action) and action.id not in ("row.open", "screen.output")

    def place_below(self) -> Place | None:
        self.detail.focus(scroll_visible=False)
        return None

    # -- what the keys are about ----------------------------------------------------------------------------------

    def subject(self) -> ApprovalKey | GrantKey | None:
        cursor = self._list.cursor
        return cursor if cursor is not None and cursor in self._list.order else None

    def is_settled(self) -> bool:
        key, since = self._shown
        return key == self.subject() and self.session.clock.monotonic() - since >= approvals.LEAST_SHOWN_S

    def paint(self) -> None:
        self.requests.sync()
        self.grants.sync()
        if self.focused is self.requests or not self.grants.order:
            self._list = self.requests
        elif self.focused is self.grants:
            self._list = self.grants
        for table in (self.requests, self.grants):
            table.marks_cursor = table is self._list
        subject = self.subject()
        self.session.focus = subject.agent if subject is not None else self.session.focus
        self.detail.title = "Grant" if isinstance(subject, GrantKey) else "Request"
        self.detail.note = self._note()
        super().paint()
        if subject != self._shown[0]:
            self.detail.top = 0
            self._shown = (subject, self.session.clock.monotonic())

    def on_screen_suspend(self) -> None:
        # What was under the cursor when the operator went to another screen has to be looked at again.
        if isinstance(self.app.screen, ConsoleScreen):  # pyright: ignore[reportUnknownMemberType] # open in Textual
            self._shown = (None, 0.0)

    def _note(self) -> str:
        state, subject, now = self.session.state, self.subject(), self.session.now()
        if state is None or subject is None:
            return ""
        if isinstance(subject, GrantKey):
            held = approvals.grant_of(state, subject)
            return f"ends: {approvals.expiry(held, now)}" if held is not None else ""
        asked = approvals.request_of(state, subject)
        return f"{approvals.left(asked.countdown, now)} left, then denied" if asked is not None else ""

    def _page(self, width: int) -> list[Strip]:
        state, subject = self.session.state, self.subject()
        if state is None or subject is None:
            return []
        if isinstance(subject, GrantKey):
            held = approvals.grant_of(state, subject)
            return [] if held is None else self._kept(subject.agent, held, width, approval_page.grant)
        asked = approvals.request_of(state, subject)
        return [] if asked is None else self._kept(subject.agent, asked, width, approval_page.request)

    def _kept(self, agent: AgentKey, shown: V, width: int, make: MakePage[V]) -> list[Strip]:
        """Made anew only when there is something else to show: arguments may be long."""
        made_from = (shown, width, self.session.theme)
        if self._lines[0] != made_from:
            self._lines = (made_from, make(agent, shown, self.session, width))
        return self._lines[1]

    def on_descendant_focus(self) -> None:
        # The other list may be what the keys are about now.
        self.paint()

    def on_moved(self, message: Moved) -> None:
        message.stop()
        self.paint()

    def on_opened(self, message: Opened) -> None:
        message.stop()
        self.desk.perform("row.open")
