"""Asking an operator: a call that the rights do not cover waits here until it is answered, or its time is over.

What an agent, a file or a model says never gets here: an answer is a command that the dispatcher took from an operator,
and it has to name the request and repeat the digest of what is asked.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from toka_runtime.aio import cancel_and_wait, see_through, spawn
from toka_runtime.broker.denials import Emit
from toka_runtime.broker.grants import Grants, LiveGrant
from toka_runtime.broker.offers import MAX_TTL_S, may_be_asked, offers_of, widened, words
from toka_runtime.broker.shown import Redact, shown_arguments, shown_operation
from toka_runtime.broker.visible import visible, visible_value, warnings_of
from toka_runtime.clock import Clock
from toka_runtime.errors import CommandRefused, TokaError
from toka_runtime.protocol.approval import (
    ApprovalOutcome,
    ApprovalRequest,
    Grant,
    GrantScope,
    Offer,
    request_digest,
)
from toka_runtime.protocol.capability import Allowed, Decision, Denial, Operation, Rights
from toka_runtime.protocol.commands import DecideApproval
from toka_runtime.protocol.events import ApprovalDecided, ApprovalRequested
from toka_runtime.protocol.ids import AgentName, ApprovalId, CallId, GrantId, RunId, new_approval_id, new_grant_id

MAX_OPEN = 3
"""Requests of one agent that wait at once."""
MAX_A_MINUTE = 6
_MINUTE_S = 60.0


class RunClock(Protocol):
    """Time of one run, which an operator can freeze."""

    async def elapse(self, seconds: float) -> None:
        """Returns after so many seconds in which the agent was not frozen."""
        ...

    async def until_open(self) -> None:
        """Returns when the agent is not frozen."""
        ...

    def hold(self) -> AbstractContextManager[None]:
        """The time limits of the run and its task stand still within."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """One valid call, as it would be carried out."""

    call: CallId
    task: int
    turn: int
    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cover:
    """The decisions after grants were looked at, and what the call rests on."""

    decisions: tuple[Decision, ...]
    used: dict[LiveGrant, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Answer:
    """A grant, or the rule and the reason of the refusal."""

    grant: LiveGrant | None
    rule: str = ""
    reason: str = ""


@dataclass(eq=False)
class _Pending:
    request: ApprovalRequest
    task: int
    opens: tuple[Operation, ...]
    """Exact."""
    asked_at: float
    answer: asyncio.Future[_Answer]
    waiting: int = 0
    timer: asyncio.Task[None] | None = field(default=None)


_REFUSALS = {
    ApprovalOutcome.DENIED: "an operator has denied it",
    ApprovalOutcome.EXPIRED: "no operator has answered in time",
    ApprovalOutcome.WITHDRAWN: "the request was withdrawn",
}


class ApprovalDesk:
    """For one run. `aclose` when it ends: whatever waits is withdrawn, and no grant holds any more."""

    def __init__(
        self,
        *,
        agent: AgentName,
        run: RunId,
        emit: Emit,
        clock: Clock,
        run_clock: RunClock,
        narrowed: Callable[[], Awaitable[None]],
        redact: Redact,
        wait_s: float,
    ) -> None:
        """`narrowed` is awaited when something is not granted any more. With `wait_s` 0 nobody is there to be asked."""
        self.grants = Grants(emit, run_clock.elapse, narrowed)
        self._agent = agent
        self._run = run
        self._emit = emit
        self._clock = clock
        self._run_clock = run_clock
        self._redact = redact
        self._wait_s = wait_s
        self._open: dict[str, _Pending] = {}
        """By digest."""
        self._raised: deque[float] = deque()
        self._denied: set[tuple[int, str]] = set()
        """(task, digest) that a person has said no to."""
        self._closed = False

    # -- for the gate ---------------------------------------------------------------------------------------------

    async def cover(
        self, asked: Asked, operations: tuple[Operation, ...], decisions: tuple[Decision, ...], rights: Rights
    ) -> Cover:
        """What grants that hold make of the decisions; when some are still denials and all of these may be asked about,
        wait for an operator. Raises StoreError."""
        covered: dict[int, LiveGrant] = {}
        for index, denial in _denials(decisions):
            live = self.grants.covering(operations[index], asked.task)
            if live is not None and may_be_asked(denial, rights):
                covered[index] = live
        missing = {index: denial for index, denial in _denials(decisions) if index not in covered}
        refusal: _Answer | None = None
        if missing and all(may_be_asked(denial, rights) for denial in missing.values()):
            answer = await self._ask(asked, operations, tuple(missing.values()))
            if answer.grant is not None:
                covered |= dict.fromkeys(missing, answer.grant)
            else:
                refusal = answer
        return _cover(operations, decisions, covered, refusal, self._redact)

    async def _ask(self, asked: Asked, operations: tuple[Operation, ...], denials: tuple[Denial, ...]) -> _Answer:
        digest = request_digest(self._agent, self._run, asked.tool, asked.arguments)
        pending = self._open.get(digest)
        if pending is None and (refused := self._refused_at_once(asked.task, digest)) is not None:
            return refused
        own = pending is None
        with self._run_clock.hold():
            if pending is None:
                pending = await self._put(asked, digest, operations, denials)
            else:
                pending.waiting += 1
                pending.request = pending.request.model_copy(update={"count": pending.waiting})
                await self._emit(ApprovalRequested(request=pending.request))
            answer = await self._wait(pending)
        # A call that was allowed meanwhile does not start in an agent that stands still.
        await self._run_clock.until_open()
        if not own and answer.grant is not None and answer.grant.grant.scope is GrantScope.ONCE:
            return _Answer(None, "approval:once", "the approval was for one other call")
        return answer

    def _refused_at_once(self, task: int, digest: str) -> _Answer | None:
        now = self._clock.monotonic()
        while self._raised and now - self._raised[0] >= _MINUTE_S:
            self._raised.popleft()
        if self._closed or self._wait_s <= 0:
            return _Answer(None, "approval:nobody", "no operator is there to be asked")
        if (task, digest) in self._denied:
            return _Answer(None, "approval:denied", "an operator has denied the same request in this task")
        if len(self._open) >= MAX_OPEN or len(self._raised) >= MAX_A_MINUTE:
            limits = f"at most {MAX_OPEN} at once and {MAX_A_MINUTE} a minute"
            return _Answer(None, "approval:rate", f"too many requests for approval ({limits})")
        self._raised.append(now)
        return None

    async def _put(
        self, asked: Asked, digest: str, operations: tuple[Operation, ...], denials: tuple[Denial, ...]
    ) -> _Pending:
        opens = tuple(denial.operation for denial in denials)
        request = ApprovalRequest(
            id=new_approval_id(),
            agent=self._agent,
            run=self._run,
            task=asked.task,
            turn=asked.turn,
            call=asked.call,
            tool=asked.tool,
            arguments=visible_value(shown_arguments(asked.arguments, self._redact)),
            operations=tuple(self._shown(operation) for operation in operations),
            denials=tuple(
                denial.model_copy(
                    update={"operation": self._shown(denial.operation), "reason": visible(self._redact(denial.reason))}
                )
                for denial in denials
            ),
            warnings=warnings_of(self._redact(operation.target) for operation in opens),
            digest=digest,
            offers=offers_of(tuple(shown_operation(operation, self._redact) for operation in opens), asked.task),
            wait_s=self._wait_s,
        )
        future: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        pending = _Pending(request, asked.task, opens, self._clock.monotonic(), future, waiting=1)
        self._open[digest] = pending
        try:
            await self._emit(ApprovalRequested(request=request))
        except BaseException:
            self._open.pop(digest, None)
            raise
        if not future.done():
            pending.timer = spawn(self._expire(pending), name=f"approval {request.id}")
        return pending

    def _shown(self, operation: Operation) -> Operation:
        shown = shown_operation(operation, self._redact)
        argv = tuple(visible(argument) for argument in shown.argv)
        return shown.model_copy(update={"target": visible(shown.target), "argv": argv})

    async def _wait(self, pending: _Pending) -> _Answer:
        try:
            return await asyncio.shield(pending.answer)
        except asyncio.CancelledError:
            pending.waiting -= 1
            if not pending.waiting:
                reason = "the call or its run ended first"
                await see_through(self._withdraw(pending, reason), name=f"withdraw {pending.request.id}")
            raise

    async def _expire(self, pending: _Pending) -> None:
        await self._run_clock.elapse(self._wait_s)
        pending.timer = None
        if self._take(pending):
            await see_through(self._settle(pending, ApprovalOutcome.EXPIRED), name=f"expire {pending.request.id}")

    async def _withdraw(self, pending: _Pending, reason: str) -> None:
        if self._take(pending):
            await self._settle(pending, ApprovalOutcome.WITHDRAWN, reason=reason)

    # -- for operators --------------------------------------------------------------------------------------------

    async def decide(self, answer: DecideApproval, actor: str) -> str:
        """One sentence on what was done. Raises CommandRefused when it is not this request, as it was shown, that
        waits; StoreError."""
        pending = next((found for found in self._open.values() if found.request.id == answer.approval), None)
        if pending is None:
            raise CommandRefused(f"request {answer.approval} does not wait for an answer any more")
        if answer.digest != pending.request.digest:
            raise CommandRefused(f"request {answer.approval} is not what was shown: its digest differs")
        if not answer.allow:
            self._take(pending)
            self._denied.add((pending.task, pending.request.digest))
            await self._settle(pending, ApprovalOutcome.DENIED, actor)
            return f"denied: {pending.request.tool}, for the rest of its task"
        offer = _chosen(pending.request.offers, answer)
        self._take(pending)
        issued = await self._settle(pending, ApprovalOutcome.ALLOWED, actor, self._grant(pending, offer, actor))
        return f"allowed: {issued.grant.text}" if issued else "denied"

    async def revoke(self, identity: GrantId, actor: str) -> str:
        """Raises CommandRefused, StoreError."""
        grant = await self.grants.revoke(identity, actor)
        return f"revoked: {grant.text}"

    # -- for the run ----------------------------------------------------------------------------------------------

    async def end_task(self, task: int) -> None:
        """Raises StoreError."""
        self._denied = {entry for entry in self._denied if entry[0] != task}
        await self.grants.end_task(task)

    async def aclose(self) -> None:
        """Raises StoreError; nothing waits and nothing holds any more all the same."""
        self._closed = True
        try:
            for pending in list(self._open.values()):
                await self._withdraw(pending, "the run is over")
        finally:
            await self.grants.aclose()

    # -- the end of a request -------------------------------------------------------------------------------------

    def _take(self, pending: _Pending) -> bool:
        """It waits no more. False: it has not waited any more before, so somebody else settles it."""
        return self._open.pop(pending.request.digest, None) is not None

    def _grant(self, pending: _Pending, offer: Offer, actor: str) -> tuple[Grant, tuple[Operation, ...]]:
        opens = (widened(pending.opens) if offer.wide else None) or pending.opens
        shown = tuple(shown_operation(operation, self._redact) for operation in opens)
        request = pending.request
        grant = Grant(
            id=new_grant_id(),
            approval=request.id,
            agent=self._agent,
            run=self._run,
            task=pending.task,
            tool=request.tool,
            digest=request.digest,
            scope=offer.scope,
            opens=tuple(self._shown(operation) for operation in opens),
            text=words(shown, offer.scope, pending.task, offer.ttl_s),
            ttl_s=offer.ttl_s,
            actor=actor,
            issued_at=self._clock.now(),
        )
        return grant, opens

    async def _settle(
        self,
        pending: _Pending,
        outcome: ApprovalOutcome,
        actor: str = "",
        granting: tuple[Grant, tuple[Operation, ...]] | None = None,
        reason: str = "",
    ) -> LiveGrant | None:
        """Tell, then let the call go on. When it cannot be told the call fails with that."""
        issued: LiveGrant | None = None
        try:
            if pending.timer is not None:
                await cancel_and_wait(pending.timer)
            await self._emit(
                ApprovalDecided(
                    approval=ApprovalId(pending.request.id),
                    outcome=outcome,
                    actor=actor,
                    waited_s=max(0.0, self._clock.monotonic() - pending.asked_at),
                    grant=granting[0].id if granting else None,
                    reason=reason,
                )
            )
            if granting is not None:
                issued = await self.grants.issue(*granting)
        except TokaError as error:
            pending.answer.set_exception(error)
            # Nobody may be left who waits.
            pending.answer.exception()
            raise
        said = _REFUSALS.get(outcome, "")
        pending.answer.set_result(_Answer(issued, "" if issued else f"approval:{outcome}", said))
        return issued


def _denials(decisions: tuple[Decision, ...]) -> list[tuple[int, Denial]]:
    return [(index, decision) for index, decision in enumerate(decisions) if isinstance(decision, Denial)]


def _cover(
    operations: tuple[Operation, ...],
    decisions: tuple[Decision, ...],
    covered: dict[int, LiveGrant],
    refusal: _Answer | None,
    redact: Redact,
) -> Cover:
    found: list[Decision] = []
    used: dict[LiveGrant, tuple[str, ...]] = {}
    for index, decision in enumerate(decisions):
        if (live := covered.get(index)) is not None and isinstance(decision, Denial):
            shown = visible(shown_operation(operations[index], redact).target)
            used[live] = (*used.get(live, ()), shown)
            found.append(Allowed(rule=live.grant.rule, capability=decision.capability))
        elif refusal is not None and isinstance(decision, Denial):
            reason = f"{decision.reason}; {refusal.reason}"
            found.append(decision.model_copy(update={"rule": refusal.rule, "reason": reason}))
        else:
            found.append(decision)
    return Cover(tuple(found), used)


def _chosen(offers: tuple[Offer, ...], answer: DecideApproval) -> Offer:
    """Raises CommandRefused for what was not offered."""
    offer = next((offer for offer in offers if (offer.scope, offer.wide) == (answer.scope, answer.wide)), None)
    if offer is None:
        raise CommandRefused(f"request {answer.approval} has no such offer: {answer.scope}")
    if answer.ttl_s is None:
        return offer
    if offer.scope is not GrantScope.TTL or not 1 <= answer.ttl_s <= MAX_TTL_S:
        raise CommandRefused(f"a time from 1 to {MAX_TTL_S:g} seconds goes with scope ttl, and with no other")
    return offer.model_copy(update={"ttl_s": answer.ttl_s})
