"""What operators have opened for one run beyond its spec: exact, counted, ended on time, taken back at once.

A grant is compared with what is asked by its very text, not by a pattern; only where an operator has chosen a folder
does it cover what lies below. What policy protects from everybody is decided before a grant is looked at.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from toka_runtime.aio import cancel_and_wait, see_through, spawn
from toka_runtime.broker.denials import Emit
from toka_runtime.errors import CommandRefused, StoreError
from toka_runtime.policy.matching import split_host
from toka_runtime.protocol.approval import Grant, GrantEnd, GrantScope
from toka_runtime.protocol.capability import (
    ExecuteRule,
    NetworkRule,
    Operation,
    OperationKind,
    PathRule,
    Rights,
)
from toka_runtime.protocol.events import GrantExpired, GrantIssued, GrantRevoked, GrantUsed
from toka_runtime.protocol.ids import CallId, GrantId

T = TypeVar("T")
Elapse = Callable[[float], Awaitable[None]]
"""Returns after so many seconds in which the agent was not frozen."""
_GLOB_CHARS = re.compile(r"([*?\[])")


class TakenBack(Exception):
    """The grant that a call rests on ended before the call did. The text says which."""


@dataclass(eq=False)
class LiveGrant:
    grant: Grant
    """As told: redacted."""
    opens: tuple[Operation, ...]
    """Exact."""
    over: bool = False
    revoked: asyncio.Event = field(default_factory=asyncio.Event)
    timer: asyncio.Task[None] | None = None

    def covers(self, operation: Operation) -> bool:
        return any(_covers(opened, operation) for opened in self.opens)


def _covers(opened: Operation, asked: Operation) -> bool:
    if opened.kind is not asked.kind:
        return False
    if opened.kind is OperationKind.EXECUTE:
        return opened.argv == asked.argv and opened.target == asked.target
    tree = opened.kind is not OperationKind.CONNECT and opened.target.endswith("/")
    return opened.target == asked.target or (tree and asked.target.startswith(opened.target))


class Grants:
    """Of one run. `narrowed` is awaited whenever something is not granted any more."""

    def __init__(self, emit: Emit, elapse: Elapse, narrowed: Callable[[], Awaitable[None]]) -> None:
        self._emit = emit
        self._elapse = elapse
        self._narrowed = narrowed
        self._live: dict[GrantId, LiveGrant] = {}

    def covering(self, operation: Operation, task: int) -> LiveGrant | None:
        """A grant for more than one call that covers it."""
        for live in self._live.values():
            scope = live.grant.scope
            if scope is GrantScope.ONCE or (scope is GrantScope.TASK and live.grant.task != task):
                continue
            if live.covers(operation):
                return live
        return None

    def widened(self, rights: Rights, grants: Iterable[LiveGrant] | None = None) -> Rights:
        """The rights with what these grants (None: all that hold) open, in rules that carry the grant's name. For the
        kernel's rules of a call and for the proxy; decisions are made by `covering`."""
        found = list(self._live.values() if grants is None else grants)
        return rights if not found else _widened(rights, found)

    async def issue(self, grant: Grant, opens: tuple[Operation, ...]) -> LiveGrant:
        """Told first: nothing rests on a grant that is not recorded. Raises StoreError."""
        await self._emit(GrantIssued(grant=grant))
        live = self._live[grant.id] = LiveGrant(grant, opens)
        if grant.scope is GrantScope.TTL and grant.ttl_s is not None:
            live.timer = spawn(self._run_out(live, grant.ttl_s), name=f"grant {grant.id}")
        return live

    async def revoke(self, identity: GrantId, actor: str) -> Grant:
        """Ends the calls that run under it, too. Raises CommandRefused, StoreError (it is taken back all the same)."""
        live = self._live.get(identity)
        if live is None:
            raise CommandRefused(f"grant {identity} does not hold any more")
        self._drop(live)
        live.revoked.set()
        await self._narrowed()
        await self._emit(GrantRevoked(grant=identity, actor=actor))
        return live.grant

    async def carry_out(
        self,
        used: dict[LiveGrant, tuple[str, ...]],
        call: CallId,
        tool: str,
        work: Callable[[], Coroutine[Any, Any, T]],
    ) -> T:
        """The result of a call that rests on grants (with the targets that each is needed for, as told). Raises
        TakenBack when one is revoked before its end; the work has ended then."""
        try:
            for live, targets in used.items():
                await self._emit(GrantUsed(grant=live.grant.id, call=call, tool=tool, targets=targets))
            if ended := next((live for live in used if live.over), None):
                raise TakenBack(ended.grant.rule)
            return await _unless_revoked(list(used), work())
        finally:
            once = [live for live in used if live.grant.scope is GrantScope.ONCE]
            if once:
                await see_through(self._end(once, GrantEnd.USED), name=f"grants of {call}")

    async def end_task(self, task: int) -> None:
        """Grants for this task hold no more. Raises StoreError."""
        await self._end(
            [g for g in self._live.values() if g.grant.scope is GrantScope.TASK and g.grant.task == task],
            GrantEnd.TASK,
        )

    async def aclose(self) -> None:
        """The run is over. Raises StoreError; nothing holds any more all the same."""
        await self._end(list(self._live.values()), GrantEnd.RUN)

    async def _run_out(self, live: LiveGrant, seconds: float) -> None:
        await self._elapse(seconds)
        live.timer = None
        # It holds no more even when that cannot be written; the next operation meets the same store.
        with suppress(StoreError):
            await see_through(self._end([live], GrantEnd.TIME), name=f"end of grant {live.grant.id}")

    async def _end(self, grants: list[LiveGrant], why: GrantEnd) -> None:
        ending = [live for live in grants if not live.over]
        for live in ending:
            self._drop(live)
        if ending:
            await self._narrowed()
        for live in ending:
            if live.timer is not None:
                await cancel_and_wait(live.timer)
            await self._emit(GrantExpired(grant=live.grant.id, why=why))

    def _drop(self, live: LiveGrant) -> None:
        live.over = True
        self._live.pop(live.grant.id, None)
        if live.timer is not None:
            live.timer.cancel()


async def _unless_revoked(grants: list[LiveGrant], work: Coroutine[Any, Any, T]) -> T:
    working = spawn(work, name="granted call")
    watching = {spawn(live.revoked.wait(), name="revoked"): live for live in grants}
    try:
        await asyncio.wait({working, *watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise TakenBack(next(live.grant.rule for task, live in watching.items() if task.done()))
    finally:
        for task in (working, *watching):
            await cancel_and_wait(task)


def _widened(rights: Rights, grants: list[LiveGrant]) -> Rights:
    read, write = list(rights.read), list(rights.write)
    execute, network = list(rights.execute), list(rights.network)
    for live in grants:
        rule = live.grant.rule
        for operation in live.opens:
            match operation.kind:
                case OperationKind.READ | OperationKind.LIST:
                    read.append(_path_rule(rule, operation.target))
                case OperationKind.WRITE:
                    write.append(_path_rule(rule, operation.target))
                case OperationKind.EXECUTE:
                    execute.append(ExecuteRule(id=rule, capability=rule, argv_prefix=operation.argv))
                case OperationKind.CONNECT if (place := split_host(operation.target)) is not None:
                    network.append(NetworkRule(id=rule, capability=rule, host=place[0], port=place[1]))
                case _:
                    pass
    update = {"read": tuple(read), "write": tuple(write), "execute": tuple(execute), "network": tuple(network)}
    return rights.model_copy(update=update)


def _path_rule(rule: str, target: str) -> PathRule:
    literal = _GLOB_CHARS.sub(r"[\1]", target)
    glob = "**" if target == "./" else f"{literal}**" if target.endswith("/") else literal
    return PathRule(id=rule, capability=rule, glob=glob)
