"""The one fold of events into state: the runtime keeps its own with it, every front end advances its copy with it, and
a replay seeks with it. Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from toka_runtime.protocol import events as ev
from toka_runtime.protocol.approval import GrantScope
from toka_runtime.protocol.health import Health, HealthLevel
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.model import with_fields
from toka_runtime.protocol.snapshot import (
    RECENT_ACTIONS,
    ActionView,
    AgentView,
    ApprovalView,
    Countdown,
    FleetState,
    GrantView,
    RejectedSpec,
    TaskView,
)
from toka_runtime.protocol.spending import fold_spending
from toka_runtime.protocol.states import LIVE, TERMINAL, AgentState, TaskState, Verdict
from toka_runtime.protocol.usage import Usage

_CHARGED = frozenset((ev.ModelCallStarted, ev.ModelCallEnded, ev.RuntimeStarted, ev.AgentStateChanged, ev.BudgetSet))
Draft = dict[str, Any]
"""Fields of one `AgentView` while a batch is folded: copied once, changed in place, made a view again at the end."""


def fold(state: FleetState, envelopes: Iterable[ev.Envelope]) -> FleetState:
    """`state` carried forward. One copy a batch: the argument is not changed, agents that no event touched keep their
    view (the same object). Events already folded (seq ≤ state.seq) are skipped, so that a resumed stream may overlap.
    Costs 1–2 µs an event in batches, and one copy of each touched agent a batch: fold many events at once."""
    agents = dict(state.agents)
    drafts: dict[AgentName, Draft] = {}
    top: dict[str, Any] = {"agents": agents}
    rejected = state.rejected
    notices = state.notices
    books = state.books
    seq, at, host = state.seq, state.at, state.host
    for envelope in envelopes:
        if envelope.durable:
            if envelope.seq <= seq:
                continue
            seq = envelope.seq
        at, host, event = envelope.at, envelope.host, envelope.event
        if type(event) in _CHARGED:
            books = fold_spending(books, envelope)
        if (change := _CHANGES.get(type(event))) is not None:
            if (name := envelope.agent) is None:
                continue
            if (draft := drafts.get(name)) is None:
                if (view := agents.get(name)) is None:
                    continue
                draft = drafts[name] = dict(vars(view))
            change(draft, envelope, event)
            continue
        match event:
            case ev.RuntimeStarted():
                top["runtime"], top["stopped"], top["protections"] = event, False, None
            case ev.RuntimeStopped():
                top["stopped"] = True
            case ev.Noticed() if envelope.agent is None:
                notices = (*notices, event)[-50:]
            case ev.HostSampled():
                top["host_usage"] = event.usage
            case ev.HostProbed():
                top["protections"] = event.protections
            case ev.SpecRejected():
                rejected = rejected | {
                    event.file: RejectedSpec(file=event.file, name=event.name, problems=event.problems)
                }
            case ev.SpecLoaded():
                name = event.spec.name
                if (draft := drafts.pop(name, None)) is not None:
                    agents[name] = _settled(agents[name], draft)
                agents[name] = _loaded(agents.get(name), envelope, event)
                if event.spec.file in rejected:
                    rejected = {file: view for file, view in rejected.items() if file != event.spec.file}
            case _:
                pass
    for name, draft in drafts.items():
        agents[name] = _settled(agents[name], draft)
    top |= {"seq": seq, "at": at, "host": host, "rejected": rejected, "notices": notices, "books": books}
    return state.model_copy(update=top)


def _settled(view: AgentView, draft: Draft) -> AgentView:
    return view if draft == vars(view) else with_fields(view, draft)


def _loaded(before: AgentView | None, envelope: ev.Envelope, event: ev.SpecLoaded) -> AgentView:
    if before is not None and (before.state in LIVE or event.kept):
        return before.model_copy(update={"spec": event.spec, "rights": event.rights})
    tasks = event.spec.enabled_tasks(frozenset(event.conditions))
    return AgentView(
        host=envelope.host,
        name=event.spec.name,
        spec=event.spec,
        rights=event.rights,
        since=envelope.at,
        tasks=tuple(TaskView(description=task.description) for task in tasks),
        objectives=(Verdict.NONE,) * len(event.spec.objectives),
        withdrawn=before.withdrawn if before is not None else (),
    )


# -- one function a kind: it changes the draft ---------------------------------------------------------------------


def _active(draft: Draft, at: datetime, activity: str) -> None:
    draft["last_activity_at"] = at
    if activity:
        draft["last_activity"] = activity


def _sampled(draft: Draft, envelope: ev.Envelope, event: ev.AgentSampled) -> None:
    draft["usage"] = event.usage


def _blocked(draft: Draft, envelope: ev.Envelope, event: ev.AgentBlocked) -> None:
    draft["blockers"], draft["requested"] = event.blockers, True


def _process_started(draft: Draft, envelope: ev.Envelope, event: ev.ProcessStarted) -> None:
    draft["process"], draft["worker_pid"] = event.process, event.worker_pid
    draft["protections"], draft["survivors"], draft["in_force"] = event.protections, (), None


def _in_force(draft: Draft, envelope: ev.Envelope, event: ev.ProtectionsInForce) -> None:
    draft["in_force"] = event.protections


def _process_ended(draft: Draft, envelope: ev.Envelope, event: ev.ProcessEnded) -> None:
    draft["usage"] = Usage(cpu_s=draft["usage"].cpu_s)
    draft["survivors"], draft["worker_pid"] = event.survivors, 0


def _limits_in_force(draft: Draft, envelope: ev.Envelope, event: ev.LimitsInForce) -> None:
    draft["limits"] = event.limits


def _limit_reached(draft: Draft, envelope: ev.Envelope, event: ev.LimitReached) -> None:
    who = f" by {event.culprit.command}" if event.culprit is not None else ""
    _active(draft, envelope.at, f"limit: {event.limit} {event.outcome}{who}")
    draft["limits_reached"] += 1


def _health_changed(draft: Draft, envelope: ev.Envelope, event: ev.HealthChanged) -> None:
    draft["health"] = None if event.health.level is HealthLevel.OK else event.health


def _model_call_started(draft: Draft, envelope: ev.Envelope, event: ev.ModelCallStarted) -> None:
    _active(draft, envelope.at, "thinking")
    draft["model_call_since"], draft["quota_at"] = envelope.at, None


def _model_call_retried(draft: Draft, envelope: ev.Envelope, event: ev.ModelCallRetried) -> None:
    _active(draft, envelope.at, f"model retry {event.attempt} in {event.delay_s:.1f} s: {event.code}")
    draft["quota_at"] = envelope.at + timedelta(seconds=event.delay_s) if event.shared else None


def _model_call_ended(draft: Draft, envelope: ev.Envelope, event: ev.ModelCallEnded) -> None:
    _active(draft, envelope.at, "" if event.outcome == "ok" else f"model {event.outcome}: {event.code}")
    draft["model_call_since"] = draft["quota_at"] = None
    draft["model_calls"] += 1
    draft["tokens"] = draft["tokens"] + event.usage
    draft["cost_usd"] += event.cost_usd or 0.0
    draft["unpriced_calls"] += event.cost_usd is None and event.usage.total_tokens > 0


def _tool_call_started(draft: Draft, envelope: ev.Envelope, event: ev.ToolCallStarted) -> None:
    action = ActionView(call=event.call, tool=event.tool, target=event.target, started_at=envelope.at)
    _active(draft, envelope.at, f"{event.tool} {event.target}".rstrip())
    draft["actions"] = (*draft["actions"], action)[-RECENT_ACTIONS:]


def _tool_call_ended(draft: Draft, envelope: ev.Envelope, event: ev.ToolCallEnded) -> None:
    draft["last_activity_at"] = envelope.at
    actions: tuple[ActionView, ...] = draft["actions"]
    # From the end: another run may have had a call of the same id.
    for index in range(len(actions) - 1, -1, -1):
        if (action := actions[index]).call == event.call:
            ended = {"outcome": event.outcome, "duration_s": event.duration_s, "summary": event.summary}
            draft["actions"] = (*actions[:index], action.model_copy(update=ended), *actions[index + 1 :])
            return


def _denied(draft: Draft, envelope: ev.Envelope, event: ev.OperationDenied) -> None:
    operation = event.denial.operation
    _active(draft, envelope.at, f"denied: {operation.kind} {operation.target}")
    draft["denials"] += event.count


def _approval_requested(draft: Draft, envelope: ev.Envelope, event: ev.ApprovalRequested) -> None:
    request, at = event.request, envelope.at
    _active(draft, at, f"pending approval: {request.tool} {request.denials[0].operation.target}")
    approvals: tuple[ApprovalView, ...] = draft["approvals"]
    if any(view.request.id == request.id for view in approvals):
        draft["approvals"] = tuple(
            view.model_copy(update={"request": request}) if view.request.id == request.id else view
            for view in approvals
        )
        return
    since = None if draft["state"] is AgentState.PAUSED else at
    countdown = Countdown(left_s=request.wait_s, since=since)
    draft["approvals"] = (*approvals, ApprovalView(request=request, requested_at=at, countdown=countdown))


def _approval_decided(draft: Draft, envelope: ev.Envelope, event: ev.ApprovalDecided) -> None:
    _active(draft, envelope.at, f"approval {event.outcome}")
    approvals: tuple[ApprovalView, ...] = draft["approvals"]
    draft["approvals"] = tuple(view for view in approvals if view.request.id != event.approval)


def _grant_issued(draft: Draft, envelope: ev.Envelope, event: ev.GrantIssued) -> None:
    grant, countdown = event.grant, None
    if grant.scope is GrantScope.TTL and grant.ttl_s is not None:
        since = None if draft["state"] is AgentState.PAUSED else envelope.at
        countdown = Countdown(left_s=grant.ttl_s, since=since)
    draft["grants"] = (*draft["grants"], GrantView(grant=grant, countdown=countdown))


def _grant_used(draft: Draft, envelope: ev.Envelope, event: ev.GrantUsed) -> None:
    grants: tuple[GrantView, ...] = draft["grants"]
    draft["grants"] = tuple(
        view.model_copy(update={"uses": view.uses + 1, "last_used_at": envelope.at})
        if view.grant.id == event.grant
        else view
        for view in grants
    )


def _grant_over(draft: Draft, envelope: ev.Envelope, event: ev.GrantRevoked | ev.GrantExpired) -> None:
    grants: tuple[GrantView, ...] = draft["grants"]
    draft["grants"] = tuple(view for view in grants if view.grant.id != event.grant)


def _withdrawn(draft: Draft, envelope: ev.Envelope, event: ev.CapabilityWithdrawn) -> None:
    draft["withdrawn"] = (*draft["withdrawn"], event.capability)


def _restored(draft: Draft, envelope: ev.Envelope, event: ev.CapabilityRestored) -> None:
    draft["withdrawn"] = tuple(name for name in draft["withdrawn"] if name != event.capability)


def _count_frozen(draft: Draft, at: datetime, *, frozen: bool) -> None:
    def moved(countdown: Countdown) -> Countdown:
        return countdown.frozen(at) if frozen else countdown.thawed(at)

    approvals: tuple[ApprovalView, ...] = draft["approvals"]
    draft["approvals"] = tuple(view.model_copy(update={"countdown": moved(view.countdown)}) for view in approvals)
    grants: tuple[GrantView, ...] = draft["grants"]
    draft["grants"] = tuple(
        view if view.countdown is None else view.model_copy(update={"countdown": moved(view.countdown)})
        for view in grants
    )


def _workspace_ready(draft: Draft, envelope: ev.Envelope, event: ev.WorkspaceReady) -> None:
    draft["workspace_mode"], draft["workspace_path"], draft["branch"] = event.mode, event.path, event.branch


def _committed(draft: Draft, envelope: ev.Envelope, event: ev.WorkCommitted) -> None:
    draft["commits"] += 1


def _output(draft: Draft, envelope: ev.Envelope, event: ev.OutputAppended) -> None:
    draft["last_activity_at"] = envelope.at


def _state_changed(draft: Draft, envelope: ev.Envelope, event: ev.AgentStateChanged) -> None:
    at = envelope.at
    before: AgentState = draft["state"]
    draft["state"], draft["reason"], draft["detail"] = event.after, event.reason, event.detail
    draft["since"], draft["attempt"], draft["requested"] = at, event.attempt, True
    draft["frozen_ms"] = event.frozen_ms
    if envelope.run is not None:
        draft["run"] = envelope.run
    if event.after is AgentState.PENDING:
        draft["resumes"], draft["held"] = event.resumes, event.held
    elif before is AgentState.PAUSED:
        draft["held"] = False
    if event.after is AgentState.PENDING and before in TERMINAL | LIVE and event.resumes is None:
        # A new run: what the last one did stays in the log.
        draft["tasks"] = tuple(TaskView(description=task.description) for task in draft["tasks"])
        draft["objectives"] = (Verdict.NONE,) * len(draft["objectives"])
        draft["started_at"] = draft["ended_at"] = draft["process"] = None
    health: Health | None = draft["health"]
    if event.after is AgentState.PENDING or (
        event.after in TERMINAL and health is not None and health.level is not HealthLevel.CRASH_LOOP
    ):
        draft["health"] = None
    if event.after is AgentState.STARTING:
        draft["blockers"], draft["started_at"], draft["ended_at"] = (), at, None
    if AgentState.PAUSED in (before, event.after) and before is not event.after:
        _count_frozen(draft, at, frozen=event.after is AgentState.PAUSED)
    if event.after in TERMINAL or event.after is AgentState.PENDING:
        # Both end with their run, also with one that a crash ended.
        draft["approvals"] = draft["grants"] = ()
        draft["model_call_since"] = draft["quota_at"] = None
    if event.after in TERMINAL:
        draft["ended_at"], draft["blockers"] = at, ()


def _task_changed(draft: Draft, envelope: ev.Envelope, event: ev.TaskStateChanged) -> None:
    tasks: list[TaskView] = list(draft["tasks"])
    if not 0 <= event.task < len(tasks):
        return
    before = tasks[event.task]
    started = before.started_at
    if event.after is TaskState.RUNNING and (started is None or event.attempt != before.attempt):
        started = envelope.at
    tasks[event.task] = before.model_copy(
        update={
            "state": event.after,
            "verdict": event.verdict,
            "attempt": event.attempt,
            "detail": event.detail,
            "evidence": event.evidence,
            "since": envelope.at,
            "started_at": started,
        }
    )
    draft["tasks"], draft["last_activity_at"] = tuple(tasks), envelope.at


def _verified(draft: Draft, envelope: ev.Envelope, event: ev.Verified) -> None:
    objectives: list[Verdict] = list(draft["objectives"])
    if event.objective is None or not 0 <= event.objective < len(objectives):
        return
    objectives[event.objective] = event.verdict
    draft["objectives"] = tuple(objectives)


_CHANGES: dict[type[ev.Event], Callable[[Draft, ev.Envelope, Any], None]] = {
    ev.AgentSampled: _sampled,
    ev.AgentStateChanged: _state_changed,
    ev.AgentBlocked: _blocked,
    ev.ProcessStarted: _process_started,
    ev.ProtectionsInForce: _in_force,
    ev.ProcessEnded: _process_ended,
    ev.LimitsInForce: _limits_in_force,
    ev.LimitReached: _limit_reached,
    ev.HealthChanged: _health_changed,
    ev.TaskStateChanged: _task_changed,
    ev.Verified: _verified,
    ev.ModelCallStarted: _model_call_started,
    ev.ModelCallRetried: _model_call_retried,
    ev.ModelCallEnded: _model_call_ended,
    ev.ToolCallStarted: _tool_call_started,
    ev.ToolCallEnded: _tool_call_ended,
    ev.OperationDenied: _denied,
    ev.ApprovalRequested: _approval_requested,
    ev.ApprovalDecided: _approval_decided,
    ev.GrantIssued: _grant_issued,
    ev.GrantUsed: _grant_used,
    ev.GrantRevoked: _grant_over,
    ev.GrantExpired: _grant_over,
    ev.CapabilityWithdrawn: _withdrawn,
    ev.CapabilityRestored: _restored,
    ev.WorkspaceReady: _workspace_ready,
    ev.WorkCommitted: _committed,
    ev.OutputAppended: _output,
}
"""Kinds that change an agent's view. The others change the fleet (see `fold`) or nothing."""
