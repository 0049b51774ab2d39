"""What agents ask for, oldest first, and what operators have granted, newest first."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

from toka_console import approvals
from toka_console.format import units
from toka_console.format.cells import Row
from toka_console.identity import ApprovalKey, GrantKey
from toka_console.panes.columns import Column
from toka_console.panes.ordering import Value
from toka_console.panes.table import TablePane

if TYPE_CHECKING:
    from datetime import datetime

    from toka_console.state import ConsoleState
    from toka_runtime.protocol.snapshot import ApprovalView, GrantView

_REQUESTS = (
    Column("left", "LEFT", 6, 8, 14, rank=0),
    Column("agent", "AGENT", 12, 24, 32, rank=1),
    Column("task", "TASK", 4, 4, rank=6, right=True),
    Column("tool", "TOOL", 8, 14, rank=4),
    Column("operation", "OPERATION", 9, 15, rank=3),
    Column("target", "TARGET", 14, 24, 60, weight=4, rank=0),
    Column("needs", "NEEDS", 10, 18, 24, weight=1, rank=5),
    Column("count", "N", 3, 5, rank=2, right=True),
)
_GRANTS = (
    Column("ends", "ENDS", 6, 8, 14, rank=0),
    Column("agent", "AGENT", 12, 24, 32, rank=1),
    Column("uses", "USES", 4, 5, rank=2, right=True),
    Column("opens", "OPENS", 14, 40, 80, weight=4, rank=0),
    Column("actor", "GIVEN BY", 10, 24, rank=4),
    Column("at", "AT", 8, 8, rank=3),
)


def _sent(state: ConsoleState, subject: str, now: datetime) -> str:
    """`⋯ allowing 2s` while an answer is not confirmed, else ""."""
    pending = state.pending_on(subject)
    return f"⋯ {pending.unknown or pending.text} {units.age(pending.sent_at, now)}" if pending is not None else ""


class RequestsTable(TablePane[ApprovalKey]):
    columns = _REQUESTS
    _version = -1

    def heading(self) -> tuple[str, str]:
        return f"Requests {len(self.order)}", self.order_note("first come, first shown")

    def empty(self) -> str:
        return "nothing waits for an operator\nagents with `approvals: ask` in their spec ask here"

    def rows(self) -> Sequence[ApprovalKey]:
        state = self.session.state
        if state is None or state.approvals_version == self._version:
            return self.order
        self._version = state.approvals_version
        rows = approvals.waiting(state)
        return self.order if rows == self.order else rows

    def sort_keys(self) -> Mapping[str, Callable[[ApprovalKey], Value]]:
        state, now = self.session.known, self.session.now()

        def by(value: Callable[[ApprovalView], Value]) -> Callable[[ApprovalKey], Value]:
            return lambda key: None if (asked := approvals.request_of(state, key)) is None else value(asked)

        return {
            "left": by(lambda asked: asked.countdown.left(now)),
            "agent": lambda key: key.agent.name,
            "tool": by(lambda asked: asked.request.tool),
            "target": by(lambda asked: asked.request.denials[0].operation.target),
            "count": by(lambda asked: asked.request.count),
        }

    def version(self, key: ApprovalKey) -> Hashable:
        state, now = self.session.known, self.session.now()
        asked = approvals.request_of(state, key)
        return asked and (asked.request.count, approvals.left(asked.countdown, now)), _sent(state, key.id, now)

    def cells(self, key: ApprovalKey, row: Row, layout: list[tuple[Column, int]]) -> None:
        palette, now, state = self.palette, self.session.now(), self.session.known
        if (asked := approvals.request_of(state, key)) is None:
            return
        request = asked.request
        first, *others = request.denials
        more = f" (+{len(others)} more)" if others else ""
        texts = {
            "left": (_sent(state, key.id, now) or approvals.left(asked.countdown, now), palette.warn),
            "agent": (key.agent.name, palette.base),
            "task": (str(request.task + 1), palette.muted),
            "tool": (request.tool, palette.accent),
            "operation": (first.operation.kind.value, palette.accent),
            "target": (first.operation.target + more, palette.bad if request.warnings else palette.strong),
            "needs": (first.capability or "nothing", palette.warn),
            "count": (f"×{request.count}", palette.warn if request.count > 1 else palette.faint),
        }
        for column, width in layout:
            text, style = texts[column.id]
            row.add(text, style, width, right=column.right).gap()


class GrantsTable(TablePane[GrantKey]):
    columns = _GRANTS
    _version = -1

    def heading(self) -> tuple[str, str]:
        return f"Grants {len(self.order)}", self.order_note("in force now, newest first")

    def empty(self) -> str:
        return "nothing is granted beyond the specs"

    def rows(self) -> Sequence[GrantKey]:
        state = self.session.state
        if state is None or state.approvals_version == self._version:
            return self.order
        self._version = state.approvals_version
        rows = approvals.granted(state)
        return self.order if rows == self.order else rows

    def sort_keys(self) -> Mapping[str, Callable[[GrantKey], Value]]:
        state = self.session.known

        def by(value: Callable[[GrantView], Value]) -> Callable[[GrantKey], Value]:
            return lambda key: None if (held := approvals.grant_of(state, key)) is None else value(held)

        return {
            "agent": lambda key: key.agent.name,
            "uses": by(lambda held: held.uses),
            "actor": by(lambda held: held.grant.actor),
            "at": by(lambda held: held.grant.issued_at.timestamp()),
        }

    def version(self, key: GrantKey) -> Hashable:
        state, now = self.session.known, self.session.now()
        held = approvals.grant_of(state, key)
        return held and (held.uses, approvals.expiry(held, now)), _sent(state, key.id, now)

    def cells(self, key: GrantKey, row: Row, layout: list[tuple[Column, int]]) -> None:
        palette, now, state = self.palette, self.session.now(), self.session.known
        if (held := approvals.grant_of(state, key)) is None:
            return
        texts = {
            "ends": (_sent(state, key.id, now) or approvals.expiry(held, now), palette.warn),
            "agent": (key.agent.name, palette.base),
            "uses": (f"×{held.uses}", palette.base if held.uses else palette.faint),
            "opens": (held.grant.text, palette.strong),
            "actor": (held.grant.actor, palette.muted),
            "at": (units.clock_time(held.grant.issued_at), palette.muted),
        }
        for column, width in layout:
            text, style = texts[column.id]
            row.add(text, style, width, right=column.right).gap()
