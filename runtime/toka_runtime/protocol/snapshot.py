"""The fleet as of one sequence number, and the fold that carries it forward.

The one fold of events into state: the runtime keeps its own with it, a late joiner gets it as a snapshot, every front
end advances its copy with it, and a replay seeks with it. Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pydantic import Field

from toka_runtime.protocol import events as ev
from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.ids import AgentName, HostId, ProcessRef, RunId
from toka_runtime.protocol.model import Model
from toka_runtime.protocol.spec import AgentSpec
from toka_runtime.protocol.states import LIVE, TERMINAL, AgentState, StopReason, TaskState, Verdict
from toka_runtime.protocol.usage import HostUsage, TokenUsage, Usage

RECENT_ACTIONS = 20


class TaskView(Model):
    description: str
    state: TaskState = TaskState.WAITING
    verdict: Verdict = Verdict.NONE
    attempt: int = 0
    detail: str = ""
    since: datetime | None = None
    started_at: datetime | None = None


class ActionView(Model):
    """One tool call as it stands."""

    call: str
    tool: str
    target: str
    started_at: datetime
    outcome: str = ""
    """"" while it runs."""
    duration_s: float = 0.0
    summary: str = ""


class AgentView(Model):
    """Everything a row or the Agent screen shows of one agent, folded from events."""

    host: HostId
    name: AgentName
    spec: AgentSpec
    rights: Rights
    state: AgentState = AgentState.PENDING
    reason: StopReason = StopReason.NONE
    detail: str = ""
    since: datetime
    run: RunId | None = None
    attempt: int = 0
    requested: bool = False
    """It was asked to start (it waits or ran); False: only loaded."""
    blockers: tuple[str, ...] = ()
    process: ProcessRef | None = None
    worker_pid: int = 0
    protections: tuple[str, ...] = ()
    started_at: datetime | None = None
    ended_at: datetime | None = None
    usage: Usage = Usage()
    tasks: tuple[TaskView, ...] = ()
    objectives: tuple[Verdict, ...] = ()
    actions: tuple[ActionView, ...] = ()
    """The last `RECENT_ACTIONS` tool calls, oldest first."""
    model_call_since: datetime | None = None
    """Set while a model call is open."""
    tokens: TokenUsage = TokenUsage()
    cost_usd: float = 0.0
    unpriced_calls: int = 0
    model_calls: int = 0
    denials: int = 0
    last_activity: str = ""
    last_activity_at: datetime | None = None
    workspace_mode: str = ""
    workspace_path: str = ""
    branch: str = ""
    commits: int = 0
    survivors: tuple[int, ...] = ()

    @property
    def tasks_done(self) -> int:
        return sum(task.state is TaskState.DONE for task in self.tasks)

    @property
    def tasks_verified(self) -> int:
        return sum(task.verdict is Verdict.VERIFIED for task in self.tasks)

    @property
    def current_task(self) -> int | None:
        """Index of the task in work, None when none is."""
        active = (TaskState.RUNNING, TaskState.VERIFYING, TaskState.RETRYING)
        return next((i for i, task in enumerate(self.tasks) if task.state in active), None)


class RejectedSpec(Model):
    file: str
    name: str
    problems: tuple[ev.ProblemView, ...]


class FleetState(Model):
    """State of one host. `seq` is the last event folded in."""

    host: HostId = HostId("")
    seq: int = 0
    at: datetime | None = None
    runtime: ev.RuntimeStarted | None = None
    stopped: bool = False
    host_usage: HostUsage = HostUsage()
    agents: dict[AgentName, AgentView] = Field(default_factory=dict[AgentName, AgentView])
    rejected: dict[str, RejectedSpec] = Field(default_factory=dict[str, RejectedSpec])
    notices: tuple[ev.Noticed, ...] = ()
    """The last 50."""


def fold(state: FleetState, envelopes: Iterable[ev.Envelope]) -> FleetState:
    """`state` carried forward. One copy a batch: the argument is not changed. Events already folded (seq ≤ state.seq)
    are skipped, so that a resumed stream may overlap."""
    agents = dict(state.agents)
    top: dict[str, Any] = {"agents": agents}
    rejected = state.rejected
    notices = state.notices
    seq, at, host = state.seq, state.at, state.host
    for envelope in envelopes:
        if envelope.durable:
            if envelope.seq <= seq:
                continue
            seq = envelope.seq
        at, host, event = envelope.at, envelope.host, envelope.event
        match event:
            case ev.RuntimeStarted():
                top["runtime"], top["stopped"] = event, False
            case ev.RuntimeStopped():
                top["stopped"] = True
            case ev.Noticed() if envelope.agent is None:
                notices = (*notices, event)[-50:]
            case ev.HostSampled():
                top["host_usage"] = event.usage
            case ev.SpecRejected():
                rejected = rejected | {
                    event.file: RejectedSpec(file=event.file, name=event.name, problems=event.problems)
                }
            case ev.SpecLoaded():
                agents[event.spec.name] = _loaded(agents.get(event.spec.name), envelope, event)
                if event.spec.file in rejected:
                    rejected = {file: view for file, view in rejected.items() if file != event.spec.file}
            case _:
                if envelope.agent is not None and (view := agents.get(envelope.agent)) is not None:
                    agents[envelope.agent] = _agent(view, envelope)
    return state.model_copy(update=top | {"seq": seq, "at": at, "host": host, "rejected": rejected, "notices": notices})


def _loaded(before: AgentView | None, envelope: ev.Envelope, event: ev.SpecLoaded) -> AgentView:
    if before is not None and before.state in LIVE:
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
    )


def _agent(view: AgentView, envelope: ev.Envelope) -> AgentView:
    update = _update(view, envelope)
    return view.model_copy(update=update) if update else view


def _update(view: AgentView, envelope: ev.Envelope) -> dict[str, Any]:
    event, at = envelope.event, envelope.at
    match event:
        case ev.AgentSampled():
            return {"usage": event.usage}
        case ev.AgentStateChanged():
            return _state_changed(view, envelope, event)
        case ev.AgentBlocked():
            return {"blockers": event.blockers, "requested": True}
        case ev.ProcessStarted():
            return {
                "process": event.process,
                "worker_pid": event.worker_pid,
                "protections": event.protections,
                "survivors": (),
            }
        case ev.ProcessEnded():
            return {"usage": Usage(cpu_s=view.usage.cpu_s), "survivors": event.survivors, "worker_pid": 0}
        case ev.TaskStateChanged():
            return _task_changed(view, event, at)
        case ev.Verified():
            return _verified(view, event)
        case ev.ModelCallStarted():
            return _active(at, "thinking") | {"model_call_since": at}
        case ev.ModelCallRetried():
            return _active(at, f"model retry {event.attempt} in {event.delay_s:.1f} s: {event.code}")
        case ev.ModelCallEnded():
            return _active(at, "" if event.outcome == "ok" else f"model {event.outcome}: {event.code}") | {
                "model_call_since": None,
                "model_calls": view.model_calls + 1,
                "tokens": view.tokens + event.usage,
                "cost_usd": view.cost_usd + (event.cost_usd or 0.0),
                "unpriced_calls": view.unpriced_calls + (event.cost_usd is None and event.usage.total_tokens > 0),
            }
        case ev.ToolCallStarted():
            action = ActionView(call=event.call, tool=event.tool, target=event.target, started_at=at)
            return _active(at, f"{event.tool} {event.target}".rstrip()) | {
                "actions": (*view.actions, action)[-RECENT_ACTIONS:]
            }
        case ev.ToolCallEnded():
            ended = {"outcome": event.outcome, "duration_s": event.duration_s, "summary": event.summary}
            actions = tuple(a.model_copy(update=ended) if a.call == event.call else a for a in view.actions)
            return {"actions": actions, "last_activity_at": at}
        case ev.OperationDenied():
            denial = event.denial
            return _active(at, f"denied: {denial.operation.kind} {denial.operation.target}") | {
                "denials": view.denials + event.count
            }
        case ev.WorkspaceReady():
            return {"workspace_mode": event.mode, "workspace_path": event.path, "branch": event.branch}
        case ev.WorkCommitted():
            return {"commits": view.commits + 1}
        case ev.OutputAppended():
            return {"last_activity_at": at}
        case _:
            return {}


def _active(at: datetime, activity: str) -> dict[str, Any]:
    return {"last_activity_at": at} | ({"last_activity": activity} if activity else {})


def _state_changed(view: AgentView, envelope: ev.Envelope, event: ev.AgentStateChanged) -> dict[str, Any]:
    at = envelope.at
    update: dict[str, Any] = {
        "state": event.after,
        "reason": event.reason,
        "detail": event.detail,
        "since": at,
        "attempt": event.attempt,
        "requested": True,
        "run": envelope.run if envelope.run is not None else view.run,
    }
    if event.after is AgentState.PENDING and view.state in TERMINAL | LIVE:
        # A new run: what the last one did stays in the log.
        update |= {
            "tasks": tuple(TaskView(description=task.description) for task in view.tasks),
            "objectives": (Verdict.NONE,) * len(view.objectives),
            "started_at": None,
            "ended_at": None,
            "process": None,
        }
    if event.after is AgentState.STARTING:
        update |= {"blockers": (), "started_at": at, "ended_at": None}
    if event.after in TERMINAL:
        update |= {"ended_at": at, "blockers": (), "model_call_since": None}
    return update


def _task_changed(view: AgentView, event: ev.TaskStateChanged, at: datetime) -> dict[str, Any]:
    if not 0 <= event.task < len(view.tasks):
        return {}
    tasks = list(view.tasks)
    before = tasks[event.task]
    started = before.started_at
    if event.after is TaskState.RUNNING and (started is None or event.attempt != before.attempt):
        started = at
    tasks[event.task] = before.model_copy(
        update={
            "state": event.after,
            "verdict": event.verdict,
            "attempt": event.attempt,
            "detail": event.detail,
            "since": at,
            "started_at": started,
        }
    )
    return {"tasks": tuple(tasks), "last_activity_at": at}


def _verified(view: AgentView, event: ev.Verified) -> dict[str, Any]:
    if event.objective is None or not 0 <= event.objective < len(view.objectives):
        return {}
    objectives = list(view.objectives)
    objectives[event.objective] = event.verdict
    return {"objectives": tuple(objectives)}
