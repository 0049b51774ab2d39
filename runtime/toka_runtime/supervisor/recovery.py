"""A runtime that was killed: its processes are ended, its open calls closed, and of each agent it is said what becomes
of it: it stands where it stood, goes on where it was cut off, or is closed with the reason."""

from __future__ import annotations

from collections.abc import Sequence

from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.events import (
    AgentStateChanged,
    Level,
    Noticed,
    ProcessEnded,
    RuntimeStarted,
    ToolCallEnded,
)
from toka_runtime.protocol.ids import AgentName, CallId
from toka_runtime.protocol.snapshot import AgentView, FleetState
from toka_runtime.protocol.spec import AgentSpec, TaskSpec
from toka_runtime.protocol.states import LIVE, TERMINAL, AgentState, StopReason
from toka_runtime.store.events import EventStore
from toka_runtime.store.transcripts import Transcripts, call_of
from toka_runtime.supervisor.journal import NOT_BEGUN
from toka_runtime.supervisor.leftovers import Ended, end_leftovers, find_leftovers
from toka_runtime.supervisor.options import RuntimeOptions


class Recovery:
    """Of one start. What the runtime before left is `owed` until it is taken up or closed."""

    def __init__(
        self, store: EventStore, transcripts: Transcripts, options: RuntimeOptions, before: FleetState
    ) -> None:
        """`before`: the state as the last runtime left it."""
        self._store = store
        self._transcripts = transcripts
        self._before = before
        self._why_not = _why_not(options, before.runtime)
        killed = before.runtime is not None and not before.stopped
        self._owed: dict[AgentName, AgentView] = {
            name: view
            for name, view in before.agents.items()
            if _interrupted(view) or (killed and view.state in TERMINAL and view.requested)
        }

    async def begin(self) -> None:
        """Before anything is started. Raises StoreError."""
        if self._before.runtime is not None and not self._before.stopped:
            leftovers = await find_leftovers(self._store, self._before.runtime)
            for ended in await end_leftovers(leftovers, self._before.runtime):
                await self._tell(ended)
        for view in list(self._owed.values()):
            if view.state in TERMINAL and not self._why_not:
                continue
            del self._owed[view.name]
            if view.state in LIVE:
                await self._close_calls(view)
            if view.state is AgentState.STOPPING:
                detail = "the runtime died while it was being stopped"
                await self._close(view, AgentState.KILLED, view.reason, detail)
            elif self._why_not:
                await self._give_up(view, self._why_not)
            else:
                self._owed[view.name] = view

    async def take_up(self, spec: AgentSpec, rights: Rights, tasks: Sequence[TaskSpec]) -> AgentView | None:
        """Where the agent goes on; None: it begins anew (and was closed, when its spec has changed). Raises
        StoreError."""
        if (view := self._owed.get(spec.name)) is None:
            return None
        del self._owed[spec.name]
        same = view.spec.digest == spec.digest and view.rights == rights
        if same and [task.description for task in view.tasks] == [task.description for task in tasks]:
            return view
        await self._give_up(view, "its spec has changed since")
        return None

    async def finish(self) -> None:
        """Every spec is loaded: what none of them took up is closed. Raises StoreError."""
        for view in self._owed.values():
            await self._give_up(view, "its spec is not loaded any more")
        self._owed.clear()

    async def _tell(self, ended: Ended) -> None:
        leftover = ended.leftover
        if leftover.agent is not None:
            await self._store.append(
                ProcessEnded(process=leftover.process, survivors=ended.survivors),
                agent=leftover.agent,
                run=leftover.run,
            )
        if ended.alive:
            left = f"; still there: {list(ended.survivors)}" if ended.survivors else ""
            await self._store.append(
                Noticed(
                    level=Level.ERROR if ended.survivors else Level.WARNING,
                    code="recovery.leftover",
                    message=f"the runtime before left the {leftover.what} (pid {leftover.process.pid}): ended{left}",
                )
            )

    async def _close_calls(self, view: AgentView) -> None:
        """Calls that the death cut off have an unknown outcome; one that waited for an operator was not begun."""
        if view.run is None:
            return
        waiting = {approval.request.call for approval in view.approvals}
        for call in await self._transcripts.open_calls(view.run):
            waited = call_of(call.call) in waiting
            result = {"content": NOT_BEGUN, "is_error": True} if waited else None
            await self._transcripts.tool_ended(view.run, call.call, "cancelled" if waited else "unknown", result)
        for action in view.actions:
            if not action.outcome:
                waited = action.call in waiting
                event = ToolCallEnded(
                    call=CallId(action.call),
                    tool=action.tool,
                    outcome="cancelled" if waited else "unknown",
                    duration_s=0.0,
                    summary="not begun: it waited for an operator" if waited else "the runtime died during this call",
                )
                await self._store.append(event, agent=view.name, run=view.run)

    async def _give_up(self, view: AgentView, why: str) -> None:
        if view.state not in TERMINAL:
            after = AgentState.FAILED if view.state in LIVE else AgentState.KILLED
            await self._close(view, after, StopReason.HOST_LOST, f"the runtime that ran it died; not resumed: {why}")

    async def _close(self, view: AgentView, after: AgentState, reason: StopReason, detail: str) -> None:
        await self._store.append(
            AgentStateChanged(
                before=view.state, after=after, reason=reason, detail=detail, attempt=max(1, view.attempt)
            ),
            agent=view.name,
            run=view.run,
        )


def _interrupted(view: AgentView) -> bool:
    return view.state in LIVE or (view.state is AgentState.PENDING and view.requested)


def _why_not(options: RuntimeOptions, before: RuntimeStarted | None) -> str:
    """Why nothing may go on; "" when it may."""
    if not options.resume:
        return "--no-resume"
    if before is None:
        return ""
    if before.workspace != str(options.workspace):
        return f"it worked on {before.workspace}"
    if before.provider != options.gateway.provider:
        return f"its model was {before.provider}, now it is {options.gateway.provider}"
    return ""
