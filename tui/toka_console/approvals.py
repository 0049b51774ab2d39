"""Requests and grants from the state: their order, their time, and the frozen answer to a request. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from toka_console.format.units import countdown
from toka_console.identity import AgentKey, ApprovalKey, GrantKey

if TYPE_CHECKING:
    from datetime import datetime

    from toka_console.state import ConsoleState
    from toka_runtime.protocol.approval import Offer
    from toka_runtime.protocol.commands import DecideApproval, RevokeGrant
    from toka_runtime.protocol.ids import RunRef
    from toka_runtime.protocol.snapshot import ApprovalView, Countdown, GrantView

LEAST_SHOWN_S = 0.3
"""A request has to be under the operator's eyes for so long before a key answers it."""


def waiting(state: ConsoleState) -> list[ApprovalKey]:
    """Every request that waits, the oldest first."""
    found = [
        (asked.requested_at, ApprovalKey(key, asked.request.id))
        for key in state.asking
        for asked in state.agents[key].view.approvals
    ]
    return [key for _, key in sorted(found)]


def granted(state: ConsoleState) -> list[GrantKey]:
    """Every grant that holds, the newest first."""
    found = [
        (held.grant.issued_at, GrantKey(key, held.grant.id))
        for key in state.granted
        for held in state.agents[key].view.grants
    ]
    return [key for _, key in sorted(found, reverse=True)]


def request_of(state: ConsoleState, key: ApprovalKey) -> ApprovalView | None:
    """None when it waits no more."""
    entry = state.agents.get(key.agent)
    found = entry.view.approvals if entry is not None else ()
    return next((asked for asked in found if asked.request.id == key.id), None)


def grant_of(state: ConsoleState, key: GrantKey) -> GrantView | None:
    """None when it holds no more."""
    entry = state.agents.get(key.agent)
    return next((held for held in (entry.view.grants if entry is not None else ()) if held.grant.id == key.id), None)


def left(count: Countdown, now: datetime) -> str:
    """`4:32`; `‖ 4:32` while it stands still."""
    text = countdown(count.left(now))
    return text if count.since is not None else f"‖ {text}"


def soonest(asked: tuple[ApprovalView, ...], now: datetime) -> str:
    """The countdown that ends first."""
    return left(min((each.countdown for each in asked), key=lambda count: count.left(now)), now)


def summary(state: ConsoleState, now: datetime) -> str:
    """`2 approvals pending 4:32`, with the countdown that ends first; "" when nothing waits."""
    asked = tuple(each for key in state.asking for each in state.agents[key].view.approvals)
    if not asked:
        return ""
    return f"{len(asked)} approval{'s' if len(asked) > 1 else ''} pending {soonest(asked, now)}"


def expiry(held: GrantView, now: datetime) -> str:
    """When a grant ends, short: `9:40`, `1 use`, `task 2`, `run`."""
    if held.countdown is not None:
        return left(held.countdown, now)
    scope = held.grant.scope.value
    return {"once": "1 use", "task": f"task {held.grant.task + 1}"}.get(scope, scope)


# -- what is sent -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A request as it was on screen when a key was pressed: the answer goes to this one or to none."""

    key: ApprovalKey
    ref: RunRef
    shown: ApprovalView

    def answer(self, offer: Offer | None, ttl_s: float | None = None) -> DecideApproval:
        """`offer` None: no. `ttl_s`: another time than the one offered."""
        from toka_runtime.protocol.commands import DecideApproval

        request = self.shown.request
        if offer is None:
            return DecideApproval(target=self.ref, approval=request.id, digest=request.digest, allow=False)
        return DecideApproval(
            target=self.ref,
            approval=request.id,
            digest=request.digest,
            allow=True,
            scope=offer.scope,
            wide=offer.wide,
            ttl_s=ttl_s,
        )


@dataclass(frozen=True)
class Held:
    """A grant as it was on screen when a key was pressed."""

    key: GrantKey
    ref: RunRef
    shown: GrantView

    def revocation(self) -> RevokeGrant:
        from toka_runtime.protocol.commands import RevokeGrant

        return RevokeGrant(target=self.ref, grant=self.shown.grant.id)


def freeze_request(state: ConsoleState, key: ApprovalKey) -> Asked | None:
    """None when it waits no more."""
    shown = request_of(state, key)
    return None if shown is None else Asked(key, _ref(state, key.agent, shown.request.run), shown)


def freeze_grant(state: ConsoleState, key: GrantKey) -> Held | None:
    """None when it holds no more."""
    shown = grant_of(state, key)
    return None if shown is None else Held(key, _ref(state, key.agent, shown.grant.run), shown)


def _ref(state: ConsoleState, key: AgentKey, run: str) -> RunRef:
    from toka_runtime.protocol.ids import RunId, RunRef

    view = state.agents[key].view
    return RunRef(host=view.host, agent=view.name, run=RunId(run), process=view.process)
