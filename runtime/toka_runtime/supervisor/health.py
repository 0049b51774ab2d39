"""Watches that running agents get on: hears every sign of progress, notices silence and circles, tells, and acts as
each spec says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from toka_runtime.aio import OnFailure, TaskOwner
from toka_runtime.clock import Clock
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.health import Health, HealthLevel, HealthPolicy, HealthReason, OnStuck
from toka_runtime.protocol.ids import AgentName, CallId, RunId
from toka_runtime.protocol.snapshot import AgentView, FleetState
from toka_runtime.protocol.states import AgentState, TaskState
from toka_runtime.supervisor.stuck import Act, Finding, StuckDetector

INTERVAL_S = 0.5
LAST_WORDS_CHARS = 300
PROGRESS = (
    ev.AgentStateChanged,
    ev.TaskStateChanged,
    ev.Verified,
    ev.WorkCommitted,
    ev.ModelCallStarted,
    ev.ModelCallRetried,
    ev.ModelCallEnded,
    ev.ToolCallStarted,
    ev.ToolCallEnded,
    ev.OutputAppended,
    ev.ApprovalDecided,
    ev.Noticed,
)
_GOES_ON = frozenset({"max_tokens", "pause_turn", "model_context_window_exceeded"})
"""Turns that end so have said nothing about what comes next."""


@dataclass(frozen=True, slots=True)
class HealthReactions:
    """What one agent does about its health."""

    record: Callable[[ev.Event], Awaitable[None]]
    obey: Callable[[OnStuck, str], Coroutine[Any, Any, None]]
    """Pause or fail, for the reason given. May take long."""


@dataclass(slots=True)
class _Watched:
    agent: AgentName
    policy: HealthPolicy
    reactions: HealthReactions
    detector: StuckDetector
    heard_at: float
    """The last sign of progress, on the monotonic clock."""
    open_tools: dict[CallId, ev.ToolCallStarted] = field(default_factory=dict[CallId, ev.ToolCallStarted])
    told: Health | None = None
    """What was said last; None: that it is well."""
    nudge: str = ""
    nudged: bool = False
    obeyed: bool = False
    last_words: str = ""


class HealthMonitor:
    """One of a runtime, for all its runs. `observe` is fed every committed envelope."""

    def __init__(self, clock: Clock, snapshot: Callable[[], FleetState], on_failure: OnFailure) -> None:
        self._clock = clock
        self._snapshot = snapshot
        self._runs: dict[RunId, _Watched] = {}
        self._tasks = TaskOwner(on_failure)

    def start(self) -> None:
        self._tasks.spawn(self._run(), name="health")

    async def aclose(self) -> None:
        await self._tasks.aclose()

    def begin(self, agent: AgentName, run: RunId, policy: HealthPolicy, reactions: HealthReactions) -> None:
        """Watch a run, until `end`."""
        detector = StuckDetector(policy.repeats)
        self._runs[run] = _Watched(agent, policy, reactions, detector, self._clock.monotonic())

    def end(self, run: RunId) -> str:
        """The last line that its worker or interpreter wrote to its error output, if any."""
        watched = self._runs.pop(run, None)
        return watched.last_words if watched is not None else ""

    def beat(self, run: RunId) -> None:
        """A sign of progress that is no event, such as a piece of a tool call's arguments."""
        if (watched := self._runs.get(run)) is not None:
            watched.heard_at = self._clock.monotonic()

    def nudge(self, run: RunId) -> str:
        """What the agent should be told with its next result, once; "" for nothing."""
        if (watched := self._runs.get(run)) is None:
            return ""
        nudge, watched.nudge = watched.nudge, ""
        return nudge

    # -- hearing ------------------------------------------------------------------------------------------------------

    def observe(self, envelopes: Iterable[ev.Envelope]) -> None:
        for envelope in envelopes:
            watched = self._runs.get(envelope.run) if envelope.run is not None else None
            if watched is not None and isinstance(envelope.event, PROGRESS):
                watched.heard_at = self._clock.monotonic()
                self._hear(watched, envelope.event)

    def _hear(self, watched: _Watched, event: ev.Event) -> None:
        match event:
            case ev.ToolCallStarted():
                watched.open_tools[event.call] = event
            case ev.ToolCallEnded() if (started := watched.open_tools.pop(event.call, None)) is not None:
                watched.detector.act(_act(started, event))
                _arm_nudge(watched)
            case ev.ModelCallEnded(outcome="ok") if event.stop_reason not in _GOES_ON:
                watched.detector.turn(event.answer_digest, event.tools_asked)
            case ev.AgentStateChanged(before=AgentState.PAUSED, after=AgentState.RUNNING):
                # Whoever let it go on has seen it: it gets another chance.
                watched.detector.reset()
                watched.obeyed = False
            case ev.OutputAppended(stream=ev.Stream.STDERR, call="") if event.text.strip():
                watched.last_words = event.text.strip().splitlines()[-1][-LAST_WORDS_CHARS:]
            case _:
                pass

    # -- telling and acting ------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(INTERVAL_S)
            agents = self._snapshot().agents
            for run, watched in list(self._runs.items()):
                view = agents.get(watched.agent)
                if view is not None and view.run == run:
                    await self._look(watched, view)

    async def _look(self, watched: _Watched, view: AgentView) -> None:
        now = self._clock.monotonic()
        awaited = awaited_of(view)
        if awaited is None or (view.quota_at is not None and self._clock.now() < view.quota_at):
            watched.heard_at = now
        if view.state is not AgentState.RUNNING:
            return
        found = self._found(watched, awaited, now - watched.heard_at)
        before = watched.told
        if _worth_telling(before, found):
            watched.told = found
            await watched.reactions.record(
                ev.HealthChanged(health=found or Health(level=HealthLevel.OK, since=self._clock.now()))
            )
        finding, policy = watched.detector.finding, watched.policy
        if finding is not None and policy.on_stuck is not OnStuck.WARN and not watched.obeyed and _persists(watched):
            watched.obeyed = True
            text = _finding_text(finding)
            self._tasks.spawn(watched.reactions.obey(policy.on_stuck, text), name=f"health of {watched.agent}")

    def _found(self, watched: _Watched, awaited: Awaited | None, silent_s: float) -> Health | None:
        now, finding = self._clock.now(), watched.detector.finding
        if finding is not None:
            since = watched.told.since if watched.told is not None and watched.told.level is HealthLevel.STUCK else now
            return Health(
                level=HealthLevel.STUCK,
                reason=finding.reason,
                since=since,
                count=finding.count,
                evidence=finding.evidence,
            )
        if awaited is not None and silent_s >= watched.policy.stall_after_s:
            since = now - timedelta(seconds=silent_s)
            return Health(level=HealthLevel.STALLED, reason=awaited.reason, since=since, subject=awaited.subject)
        return None


@dataclass(frozen=True, slots=True)
class Awaited:
    """From whom the next sign of progress has to come, and what its silence is called."""

    reason: HealthReason
    subject: str = ""


def awaited_of(view: AgentView) -> Awaited | None:
    """None: it waits for a person, a budget or its own back-off, or does not run; silence is no stall then."""
    if view.state is not AgentState.RUNNING or view.approvals:
        return None
    task = view.tasks[view.current_task].state if view.current_task is not None else None
    if task is TaskState.RETRYING:
        return None
    if view.model_call_since is not None:
        return Awaited(HealthReason.MODEL_SILENT)
    if task is TaskState.VERIFYING:
        return Awaited(HealthReason.TOOL_SILENT, "verify command")
    last = view.actions[-1] if view.actions else None
    if last is not None and not last.outcome and view.started_at is not None and last.started_at >= view.started_at:
        return Awaited(HealthReason.TOOL_SILENT, f"tool {last.tool}")
    return Awaited(HealthReason.AGENT_SILENT)


def _act(started: ev.ToolCallStarted, ended: ev.ToolCallEnded) -> Act:
    return Act(
        action=f"{started.tool} {started.arguments_digest}",
        result=f"{ended.outcome} {ended.result_digest or ended.summary}",
        shown=f"{started.tool} {started.target}".rstrip(),
        denied=ended.outcome == "denied",
    )


def _arm_nudge(watched: _Watched) -> None:
    """Told once a run, as soon as there is something to tell."""
    finding = watched.detector.finding
    if finding is not None and not watched.nudged:
        watched.nudged = True
        watched.nudge = (
            f"Note from the runtime: you are going round in circles ({_finding_text(finding)}). Nothing changes "
            "that way. Try something else; if you cannot go on, call `finish` with status blocked and say why."
        )


def _persists(watched: _Watched) -> bool:
    """It was told and goes on, or begins anew."""
    finding, detector = watched.detector.finding, watched.detector
    if finding is None:
        return False
    # Who only talks has no next result to be told with; its own loop reminds it.
    talks = finding.reason is HealthReason.MONOLOGUE
    return talks or detector.lasting >= watched.policy.repeats or detector.findings > 1


def _finding_text(finding: Finding) -> str:
    seen = f": {', '.join(finding.evidence)}" if finding.evidence else ""
    return f"{finding.reason} {finding.count} times{seen}"


def _worth_telling(before: Health | None, found: Health | None) -> bool:
    """Changes, and a count that has doubled: what goes on is not told at every step."""
    if before is None or found is None:
        return before is not found
    if (before.level, before.reason, before.subject) != (found.level, found.reason, found.subject):
        return True
    return found.count >= 2 * before.count > 0
