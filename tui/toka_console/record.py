"""One envelope as people read it: what it adds to an agent's output window, and its line in the activity log. Pure."""

from __future__ import annotations

import json
from typing import NamedTuple

from toka_console.format import budget_text, glyphs
from toka_console.format.units import elapsed, plural, size
from toka_console.ring import OutputRing, Tool
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.approval import ApprovalOutcome, ApprovalRequest
from toka_runtime.protocol.health import HealthLevel
from toka_runtime.protocol.states import AgentState, StopReason, TaskState, Verdict


class Line(NamedTuple):
    text: str
    role: str
    """Colour role of `themes.Palette`."""


def append(ring: OutputRing, envelope: ev.Envelope) -> None:
    """Add `envelope` of this ring's agent."""
    event, at = envelope.event, envelope.at
    match event:
        case ev.OutputAppended():
            if event.text:
                ring.text(at, event.stream.value, event.text, event.task, event.turn, event.call)
            if event.dropped_bytes:
                ring.mark(at, "gap", f"{size(event.dropped_bytes)} not shown (the stream was faster than the link)")
        case ev.ToolCallStarted():
            ring.tool_started(Tool(at, event.call, event.tool, event.target, event.arguments, event.task, event.turn))
        case ev.ToolCallEnded():
            ring.tool_ended(event.call, event.outcome, event.duration_s, event.summary, event.result_bytes)
        case ev.ModelCallStarted():
            ring.mark(at, "turn", f"turn {event.turn}", "muted")
        case ev.TaskStateChanged():
            line = _task(event)
            ring.mark(at, "task", line.text, line.role)
        case ev.OperationDenied():
            ring.mark(at, "denial", _denial(event), "bad", envelope)
        case ev.Verified():
            line = _verified(event)
            ring.mark(at, "verify", line.text, line.role)
        case ev.AgentStateChanged():
            line = _state(event)
            ring.mark(at, "state", line.text, line.role)
        case ev.WorkCommitted():
            ring.mark(at, "commit", _commit(event), "info")
        case _:
            # The rest is worth a line only when something went wrong or an operator acted.
            line = activity(envelope)
            if line is not None and (line.role in ("warn", "bad") or isinstance(event, ev.CommandHandled)):
                ring.mark(at, "command" if isinstance(event, ev.CommandHandled) else "notice", line.text, line.role)


def activity(envelope: ev.Envelope) -> Line | None:
    """The line of a durable event in the log of activity; None for samples, output and what only repeats."""
    event = envelope.event
    match event:
        case ev.AgentStateChanged():
            return _state(event)
        case ev.TaskStateChanged():
            return _task(event)
        case ev.OperationDenied():
            return Line(_denial(event), "bad")
        case ev.Verified():
            return _verified(event)
        case ev.WorkCommitted():
            return Line(_commit(event), "info")
        case ev.ToolCallStarted():
            return Line(f"{event.tool} {event.target}".rstrip(), "muted")
        case ev.ModelCallRetried(shared=True):
            return Line(f"waiting for quota {event.delay_s:.0f} s: {event.message}", "warn")
        case ev.ModelCallRetried():
            return Line(
                f"model try {event.attempt} failed ({event.code}: {event.message}); next in {event.delay_s:.1f} s",
                "warn",
            )
        case ev.ModelCallEnded() if event.outcome != "ok":
            return Line(f"model call {event.outcome}: {event.code} {event.message}".rstrip(), "warn")
        case ev.Noticed():
            role = {ev.Level.INFO: "info", ev.Level.WARNING: "warn", ev.Level.ERROR: "bad"}[event.level]
            return Line(f"{event.message} ({event.hint})" if event.hint else event.message, role)
        case ev.CommandHandled():
            outcome = "" if event.ok else f" refused: {event.message}"
            return Line(
                f"{event.actor}: {event.name} {event.target}".rstrip() + outcome, "info" if event.ok else "warn"
            )
        case ev.SpecRejected():
            return Line(f"{event.file} rejected: {plural(len(event.problems), 'problem')}", "bad")
        case ev.LimitReached():
            return Line(event.text, "warn")
        case ev.HealthChanged():
            health = event.health
            return (
                Line("gets on again", "info")
                if health.level is HealthLevel.OK
                else Line(health.text(envelope.at), "warn")
            )
        case ev.ApprovalRequested() if event.request.count == 1:
            return Line(_asked(event.request), "warn")
        case ev.ApprovalDecided():
            by = f" by {event.actor}" if event.actor else ""
            why = f": {event.reason}" if event.reason else ""
            role = "info" if event.outcome is ApprovalOutcome.ALLOWED else "warn"
            return Line(f"approval {event.outcome}{by} after {elapsed(event.waited_s)}{why}", role)
        case ev.GrantIssued():
            return Line(f"granted by {event.grant.actor}: {event.grant.text}", "warn")
        case ev.GrantRevoked():
            return Line(f"grant {event.grant} revoked by {event.actor}", "info")
        case ev.CapabilityWithdrawn():
            return Line(f"{event.capability} withdrawn by {event.actor}", "warn")
        case ev.CapabilityRestored():
            return Line(f"{event.capability} restored by {event.actor}: the next run has it", "info")
        case ev.GrantExpired():
            return Line(f"grant {event.grant} is over ({event.why})", "info")
        case ev.BudgetSet():
            return Line(f"{budget_text.account(event.scope, event.name)}: {budget_text.cap(event.budget)}", "info")
        case ev.BudgetWarned():
            return Line(budget_text.warning(event.figure), "warn")
        case ev.BudgetExhausted():
            return Line(f"{event.figure.text}: no room for the next call", "bad")
        case ev.ProcessEnded() if event.survivors:
            return Line(f"UNCONFIRMED: processes {', '.join(map(str, event.survivors))} survived", "bad")
        case ev.RuntimeStarted():
            return Line(f"runtime {event.version} started, provider {event.provider}", "info")
        case ev.RuntimeStopped():
            return Line(f"runtime stopped {event.reason}".rstrip(), "warn")
        case ev.ReportWritten():
            return Line(f"report to {event.channel}: {event.path}", "muted")
        case ev.UnknownEvent():
            return Line(f"{event.kind} {json.dumps(event.body, ensure_ascii=False, default=str)}", "muted")
        case _:
            return None


def _state(event: ev.AgentStateChanged) -> Line:
    badge = glyphs.AGENT[event.after] if event.frozen_ms is None else glyphs.FROZEN
    text = f"{badge.glyph} {badge.word}"
    if event.reason is not StopReason.NONE:
        text += f" {event.reason.value.replace('_', ' ')}"
    if event.detail:
        text += f": {event.detail}"
    if event.attempt > 1 and event.after in (AgentState.STARTING, AgentState.PENDING):
        text += f" (attempt {event.attempt})"
    return Line(text, badge.role)


def _task(event: ev.TaskStateChanged) -> Line:
    badge = glyphs.TASK[event.after]
    text = f"{badge.glyph} task {event.task + 1}/{event.total} {badge.word}"
    role = badge.role
    if event.after is TaskState.DONE and event.verdict is not Verdict.NONE:
        verdict = glyphs.VERDICT[event.verdict]
        text, role = f"{text}, {verdict.word}", verdict.role
    if event.attempt > 1:
        text += f" (attempt {event.attempt})"
    return Line(f"{text}: {event.detail}" if event.detail else text, role)


def _verified(event: ev.Verified) -> Line:
    badge = glyphs.VERDICT[event.verdict]
    code = "" if event.exit_code is None else f", exit {event.exit_code}"
    tail = ""
    if event.verdict is not Verdict.VERIFIED and event.output_tail.strip():
        tail = f": {event.output_tail.strip().splitlines()[-1]}"
    text = f"{badge.glyph} {event.subject} {badge.word} by `{event.command}`{code}, {elapsed(event.duration_s)}{tail}"
    return Line(text, badge.role)


def _asked(request: ApprovalRequest) -> str:
    wanted = ", ".join(f"{denial.operation.kind.value} {denial.operation.target}" for denial in request.denials)
    return f"{glyphs.ASKING.glyph} {request.tool} asks for approval: {wanted}"


def _denial(event: ev.OperationDenied) -> str:
    denial = event.denial
    times = f" ×{event.count}" if event.count > 1 else ""
    need = f" needs {denial.capability}" if denial.capability else ""
    return (
        f"⊘ denied by {denial.layer.value}{times}: {denial.operation.kind.value} {denial.operation.target}"
        f" [{denial.rule}]{need}"
    )


def _commit(event: ev.WorkCommitted) -> str:
    return (
        f"commit {event.commit[:9]} for task {event.task + 1}: {plural(event.files, 'file')}, "
        f"+{event.insertions} −{event.deletions}"
    )
