"""The limits of runs: said before they start, watched while they run, told when one is reached."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from toka_runtime.aio import OnFailure, TaskOwner
from toka_runtime.clock import Clock
from toka_runtime.errors import LimitUnenforceable
from toka_runtime.limits.enforcer import FIX, Enforcer
from toka_runtime.limits.kernel_log import KernelLog
from toka_runtime.limits.tree_watch import Folders, TreeWatch
from toka_runtime.limits.watch import LimitWatch
from toka_runtime.protocol.capability import Denial, Layer, Operation, OperationKind
from toka_runtime.protocol.events import Event, LimitReached, LimitsInForce, OperationDenied
from toka_runtime.protocol.limits import LimitName, LimitOutcome, Strength, figure_text
from toka_runtime.protocol.spec import AgentSpec
from toka_runtime.protocol.states import StopReason
from toka_runtime.sandbox.limits_in_force import limits_in_force
from toka_runtime.sandbox.plan import AgentProcess, SandboxPlan

ENDS = {
    LimitName.MEMORY: StopReason.MEMORY_LIMIT,
    LimitName.DISK: StopReason.DISK_LIMIT,
    LimitName.PROCESSES: StopReason.PROCESS_LIMIT,
}
"""What an agent cannot stay within once it has reached it. At the others it is slowed or refused, and goes on."""


@dataclass(frozen=True, slots=True)
class Reactions:
    """What one agent does about its limits."""

    record: Callable[[Event], Awaitable[None]]
    stands: Callable[[], bool]
    """It is paused or ending: a limit that is still exceeded is known."""
    obey: Callable[[StopReason, str], Coroutine[Any, Any, None]]
    """End or pause, as its spec says. May take long."""


def ends_run(event: LimitReached) -> StopReason | None:
    """None: the agent goes on."""
    held = event.outcome in (LimitOutcome.KILLED, LimitOutcome.EXCEEDED)
    return ENDS.get(event.limit) if held else None


class LimitGuard:
    """One of a runtime, for all its runs."""

    def __init__(
        self, enforcer: Enforcer, clock: Clock, *, redact: Callable[[str], str], on_failure: OnFailure
    ) -> None:
        self.enforcer = enforcer
        self._clock = clock
        self._redact = redact
        self._log = KernelLog()
        self._watch = LimitWatch(clock)
        self._tasks = TaskOwner(on_failure)

    def start(self) -> None:
        self._tasks.spawn(self._watch.run(), name="limits")

    async def aclose(self) -> None:
        """After the last tree has ended."""
        await self._tasks.aclose()
        self._log.close()
        await asyncio.to_thread(self.enforcer.close)

    def in_force(self, spec: AgentSpec, *, confined: bool) -> LimitsInForce:
        """To be told before the start. Raises LimitUnenforceable where the spec is strict and a declared limit is not
        held exactly here."""
        found = limits_in_force(spec.security.limits, self.enforcer, confined=confined)
        loose = [limit for limit in found if limit.declared and limit.strength is not Strength.ENFORCED]
        if spec.security.strict and loose:
            named = "; ".join(
                f"{limit.limit} of {figure_text(limit.limit, limit.figure)} is {limit.strength}: {limit.reason}"
                for limit in loose
            )
            raise LimitUnenforceable(f"{spec.name} is strict about its limits, and {named}", hint=FIX)
        return LimitsInForce(limits=found)

    def watch(self, process: AgentProcess, plan: SandboxPlan, reactions: Reactions) -> TreeWatch:
        """From now on, until `finish`."""
        watch = TreeWatch(
            process.process,
            plan.limits,
            process.held,
            Folders((plan.root, *plan.scratch), growth_only=not plan.own_folder),
            processes_held=process.confined,
            kernel_log=self._log,
            now=self._clock.monotonic(),
        )

        async def reached(event: LimitReached) -> None:
            reason = ends_run(event)
            if event.outcome is LimitOutcome.EXCEEDED and reactions.stands():
                return
            await self._record(event, reactions)
            if reason is not None:
                self._tasks.spawn(reactions.obey(reason, self._shown(event).text), name=f"limit of {plan.agent}")

        self._watch.add(watch, reached, process.brake)
        return watch

    async def finish(self, watch: TreeWatch, reactions: Reactions) -> LimitReached | None:
        """Look a last time, while the groups are still there. What ends a run and was not told before, if anything:
        a worker that was killed for its memory looks like one that died by itself."""
        found = await self._watch.remove(watch)
        for event in found:
            await self._record(event, reactions)
        return next((self._shown(event) for event in found if ends_run(event) is not None), None)

    async def _record(self, event: LimitReached, reactions: Reactions) -> None:
        shown = self._shown(event)
        await reactions.record(shown)
        if shown.outcome is LimitOutcome.REFUSED:
            await reactions.record(_denied(shown))

    def _shown(self, event: LimitReached) -> LimitReached:
        if event.culprit is None:
            return event
        named = event.culprit.model_copy(update={"command": self._redact(event.culprit.command)})
        return event.model_copy(update={"culprit": named})


def _denied(event: LimitReached) -> OperationDenied:
    command = "a new process" if event.culprit is None else event.culprit.command
    operation = Operation(kind=OperationKind.EXECUTE, target=command)
    hint = "raise security.resource_limits.max_processes, if so many are meant"
    denial = Denial(
        operation=operation,
        capability="",
        layer=Layer.LIMIT,
        rule=f"limit:{event.limit}",
        reason=event.text,
        hint=hint,
    )
    return OperationDenied(denial=denial, count=max(1, event.count))
