"""How a headless run tells what happens: bars on a terminal, a line a change otherwise, or envelopes as JSON lines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol, TextIO

from toka_runtime.protocol import events as ev
from toka_runtime.protocol.codec import encode
from toka_runtime.protocol.snapshot import AgentView, FleetState, fold
from toka_runtime.protocol.states import TERMINAL, TaskState

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_CONTROL = dict.fromkeys((*range(32), *range(127, 160)), "�")


def one_line(text: str, width: int = 200) -> str:
    """Text of an agent, made safe for a terminal and cut to one line."""
    flat = " ".join(text.split()).translate(_CONTROL)
    return flat if len(flat) <= width else flat[: width - 1] + "…"


class Narrator(Protocol):
    def begin(self, state: FleetState) -> None: ...

    def events(self, batch: list[ev.Envelope]) -> None: ...

    def say(self, text: str) -> None: ...

    def error(self, text: str) -> None: ...

    def close(self) -> None: ...


def choose_narrator(*, as_json: bool) -> Narrator:
    if as_json:
        return JsonNarrator(sys.stdout, sys.stderr)
    if sys.stdout.isatty():
        return BarNarrator()
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
        case ev.ProcessEnded() as event if event.survivors:
            return f"process {event.process.pid} ended, SURVIVORS: {list(event.survivors)}"
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
        case ev.ModelCallRetried() as event:
            return f"model call again in {event.delay_s:.1f} s: {event.code} {one_line(event.message)}"
        case ev.ModelCallEnded(outcome="error") as event:
            return f"model call failed: {event.code} {one_line(event.message)}"
        case ev.CommandHandled() as event if not event.ok:
            return f"command {event.name} refused: {one_line(event.message)}"
        case _:
            return ""


class LineNarrator:
    """One line an event worth telling. For pipes, logs and CI."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def begin(self, state: FleetState) -> None:
        if state.runtime is not None and state.runtime.provider_note:
            self.say(state.runtime.provider_note)

    def events(self, batch: list[ev.Envelope]) -> None:
        for envelope in batch:
            if text := describe(envelope):
                who = f" {envelope.agent}:" if envelope.agent else ""
                self._write(f"{envelope.at:%H:%M:%S}{who} {text}")

    def say(self, text: str) -> None:
        self._write(text)

    def error(self, text: str) -> None:
        self._write(text)

    def _write(self, text: str) -> None:
        print(text, file=self._out, flush=True)

    def close(self) -> None:
        self._out.flush()


class JsonNarrator:
    """Envelopes as JSON lines on `out`; the tale on `err`."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._tale = LineNarrator(err)

    def begin(self, state: FleetState) -> None:
        self._tale.begin(state)

    def events(self, batch: list[ev.Envelope]) -> None:
        self._out.write("".join(encode(envelope).decode() + "\n" for envelope in batch))
        self._out.flush()
        self._tale.events(batch)

    def say(self, text: str) -> None:
        self._tale.say(text)

    def error(self, text: str) -> None:
        self._tale.error(text)

    def close(self) -> None:
        self._out.flush()


class BarNarrator:
    """A bar an agent, with denials and failures printed above the bars."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress: Progress = Progress(
            TextColumn("{task.fields[name]}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[state]}", markup=False),
            TextColumn("{task.fields[activity]}", markup=False),
            TimeElapsedColumn(),
        )
        self._rows: dict[str, TaskID] = {}
        self._state = FleetState()
        self._progress.start()

    def begin(self, state: FleetState) -> None:
        self._state = state
        if state.runtime is not None and state.runtime.provider_note:
            self.say(state.runtime.provider_note)
        self._draw(list(state.agents.values()))

    def events(self, batch: list[ev.Envelope]) -> None:
        self._state = fold(self._state, batch)
        for envelope in batch:
            match envelope.event:
                case ev.OperationDenied() | ev.Noticed() | ev.ModelCallRetried():
                    self.say(f"{envelope.agent or ''} {describe(envelope)}".strip())
                case ev.AgentStateChanged(after=after) if after in TERMINAL:
                    self.say(f"{envelope.agent}: {describe(envelope)}")
                case _:
                    pass
        names = {envelope.agent for envelope in batch if envelope.agent}
        self._draw([view for name in names if (view := self._state.agents.get(name))])

    def _draw(self, views: list[AgentView]) -> None:
        for view in views:
            if view.name not in self._rows:
                self._rows[view.name] = self._progress.add_task("", name=view.name, state="", activity="", start=False)
            row = self._rows[view.name]
            if view.started_at is not None and view.ended_at is None:
                self._progress.start_task(row)
            if view.ended_at is not None:
                self._progress.stop_task(row)
            settled = sum(task.state in {TaskState.DONE, TaskState.FAILED, TaskState.SKIPPED} for task in view.tasks)
            verified = f" {view.tasks_verified} verified" if view.tasks_verified else ""
            self._progress.update(
                row,
                total=len(view.tasks),
                completed=settled,
                state=f"{view.state}{verified}",
                activity=one_line(view.last_activity if view.ended_at is None else view.detail, 50),
            )

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def error(self, text: str) -> None:
        self.say(text)

    def close(self) -> None:
        self._progress.stop()
