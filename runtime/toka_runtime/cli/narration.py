"""How a headless run tells what happens: bars on a terminal, a line a change otherwise, or envelopes as JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol, TextIO

from toka_runtime.cli.render import Style, clean
from toka_runtime.cli.summary import summary_lines
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.codec import encode
from toka_runtime.protocol.fold import fold
from toka_runtime.protocol.health import HealthLevel
from toka_runtime.protocol.limits import Strength
from toka_runtime.protocol.protections import HostProtections, Protections
from toka_runtime.protocol.snapshot import FleetState
from toka_runtime.protocol.states import AgentState


def one_line(text: str, width: int = 200) -> str:
    """Text of an agent on one line, and no more of it than that."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def held(found: HostProtections | Protections) -> str:
    """`enforced FS NET KILL PROCS, approximate MEM, none CPU`."""
    areas = {strength: [badge.area for badge in found.badges if badge.strength is strength] for strength in Strength}
    return ", ".join(f"{strength} {' '.join(names)}" for strength, names in areas.items() if names)


class Narrator(Protocol):
    """Told from its `runtime.started` on, in order. `events` runs in a thread: a reader that has stopped reading holds
    up the tale and nothing else."""

    def events(self, batch: Sequence[ev.Envelope]) -> None: ...

    def say(self, text: str) -> None: ...

    def close(self) -> None:
        """The end: what became of every agent."""
        ...


def choose_narrator(*, as_json: bool) -> Narrator:
    if as_json:
        return JsonNarrator(sys.stdout, sys.stderr)
    if sys.stdout.isatty():
        # Rich is only loaded where it draws.
        from toka_runtime.cli.bars import BarNarrator

        return BarNarrator(sys.stdout)
    return LineNarrator(sys.stdout)


def describe(envelope: ev.Envelope) -> str:
    """One line for what an operator would want to read in a log; "" for the rest."""
    match envelope.event:
        case ev.RuntimeStarted() as event:
            note = f"  {event.provider_note}" if event.provider_note else ""
            return f"runtime {event.version} pid {event.pid} provider {event.provider} on {event.workspace}{note}"
        case ev.RuntimeStopped() as event:
            return f"runtime stopped {event.reason}".rstrip()
        case ev.Noticed() as event:
            hint = f" ({event.hint})" if event.hint else ""
            return f"{event.level}: {event.code}: {one_line(event.message)}{hint}"
        case ev.SpecRejected() as event:
            return f"{event.file} is not good: {len(event.problems)} problems"
        case ev.AgentStateChanged() as event:
            reason = f" ({event.reason})" if event.reason else ""
            return f"{event.before} → {event.after}{reason} {one_line(event.detail)}".rstrip()
        case ev.AgentBlocked() as event if event.blockers:
            return f"waits for {', '.join(event.blockers)}"
        case ev.ProcessStarted() as event:
            return f"process {event.process.pid}, worker {event.worker_pid}"
        case ev.HostProbed() as event:
            return f"host: tier {event.protections.tier}, {event.protections.tier_meaning}; {held(event.protections)}"
        case ev.ProtectionsInForce() as event:
            found = event.protections
            if found.unconfined:
                return f"UNCONFINED, nothing but its user's rights holds it: {one_line(found.unconfined)}"
            return f"confined: {held(found)}" if found.badges else "confined; the host was not probed yet"
        case ev.ProcessEnded() as event if event.survivors:
            return f"process {event.process.pid} ended, SURVIVORS: {list(event.survivors)}"
        case ev.LimitReached() as event:
            return one_line(event.text)
        case ev.HealthChanged() as event:
            well = event.health.level is HealthLevel.OK
            return "gets on again" if well else one_line(event.health.text(envelope.at), 400)
        case ev.WorkspaceReady() as event:
            return f"{event.mode} {event.path} {event.branch}".rstrip()
        case ev.TaskStateChanged() as event:
            verdict = f" {event.verdict}" if event.verdict else ""
            return f"task {event.task + 1}/{event.total} {event.after}{verdict} {one_line(event.detail)}".rstrip()
        case ev.Verified() as event:
            return f"verify {event.subject}: {event.verdict} (exit {event.exit_code}) {one_line(event.command)}"
        case ev.WorkCommitted() as event:
            return f"commit {event.commit[:10]} {event.files} files +{event.insertions} -{event.deletions}"
        case ev.OperationDenied() as event:
            denial = event.denial
            count = f" ×{event.count}" if event.count > 1 else ""
            need = f"; needs {denial.capability}" if denial.capability else ""
            return (
                f"DENIED{count} {denial.operation.kind} {one_line(denial.operation.target)} "
                f"by {denial.layer} ({denial.rule}{need})"
            )
        case ev.ApprovalRequested() as event:
            request = event.request
            wanted = ", ".join(f"{denial.operation.kind} {denial.operation.target}" for denial in request.denials)
            return (
                f"PENDING approval {request.id}: {request.tool} {one_line(wanted)} ({request.wait_s:.0f} s to answer)"
            )
        case ev.ApprovalDecided() as event:
            by = f" by {event.actor}" if event.actor else ""
            return f"approval {event.approval} {event.outcome}{by} after {event.waited_s:.1f} s {event.reason}".rstrip()
        case ev.GrantIssued() as event:
            return f"GRANTED {event.grant.id} by {event.grant.actor}: {one_line(event.grant.text)}"
        case ev.GrantRevoked() as event:
            return f"grant {event.grant} revoked by {event.actor}"
        case ev.CapabilityWithdrawn() as event:
            return f"WITHDRAWN {event.capability} by {event.actor}"
        case ev.CapabilityRestored() as event:
            return f"{event.capability} restored by {event.actor}"
        case ev.GrantExpired() as event:
            return f"grant {event.grant} is over ({event.why})"
        case ev.ModelCallRetried(shared=True) as event:
            return f"waiting for quota {event.delay_s:.0f} s: {one_line(event.message)}"
        case ev.ModelCallRetried() as event:
            return f"model call again in {event.delay_s:.1f} s: {event.code} {one_line(event.message)}"
        case ev.ModelCallEnded(outcome="error") as event:
            return f"model call failed: {event.code} {one_line(event.message)}"
        case ev.CommandHandled() as event if not event.ok:
            return f"command {event.name} refused: {one_line(event.message)}"
        case _:
            return ""


def told(envelope: ev.Envelope) -> str:
    """`AGENT: what happened`, safe for a terminal; "" when there is nothing to tell."""
    text = describe(envelope)
    return clean(f"{envelope.agent}: {text}" if envelope.agent and text else text)


def tone(event: ev.Event) -> str:
    """The colour that a line about it deserves; "" for none."""
    match event:
        case ev.RuntimeStarted() if event.provider_note:
            return "yellow"
        case ev.Noticed(level=ev.Level.ERROR) | ev.ModelCallEnded(outcome="error") | ev.ProcessEnded():
            return "red"
        case ev.ProtectionsInForce() if event.protections.unconfined:
            return "red"
        case ev.AgentStateChanged(after=AgentState.FAILED):
            return "red"
        case ev.AgentStateChanged(after=AgentState.COMPLETED):
            return "green"
        case ev.AgentStateChanged(after=AgentState.KILLED | AgentState.SKIPPED):
            return "yellow"
        case ev.ApprovalRequested() | ev.GrantIssued():
            return "yellow"
        case ev.HealthChanged():
            return "green" if event.health.level is HealthLevel.OK else "yellow"
        case ev.OperationDenied() | ev.ModelCallRetried() | ev.LimitReached() | ev.Noticed(level=ev.Level.WARNING):
            return "yellow"
        case _:
            return ""


class LineNarrator:
    """One line an event worth telling, and a table at the end. For pipes, logs and CI."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._state = FleetState()

    def events(self, batch: Sequence[ev.Envelope]) -> None:
        self._state = fold(self._state, batch)
        for envelope in batch:
            if text := told(envelope):
                self._write(f"{envelope.at.astimezone():%H:%M:%S} {text}")

    def say(self, text: str) -> None:
        self._write(clean(text))

    def _write(self, text: str) -> None:
        print(text, file=self._out, flush=True)

    def close(self) -> None:
        for line in summary_lines(self._state, Style(self._out)):
            self._write(line)


class JsonNarrator:
    """Envelopes as JSON lines on `out`; the tale on `err`."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._tale = LineNarrator(err)

    def events(self, batch: Sequence[ev.Envelope]) -> None:
        self._out.write("".join(encode(envelope).decode() + "\n" for envelope in batch))
        self._out.flush()
        self._tale.events(batch)

    def say(self, text: str) -> None:
        self._tale.say(text)

    def close(self) -> None:
        self._out.flush()
        self._tale.close()
