"""Reports: when one is due by the spec's frequency, and where it goes. What it says is `report_text`'s.

Whatever the frequency, the end of a run is reported too: most runs are over before their first day is.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from toka_runtime.clock import Clock
from toka_runtime.protocol.events import ReportWritten
from toka_runtime.protocol.ids import RunId
from toka_runtime.protocol.snapshot import AgentView
from toka_runtime.protocol.spec import AgentSpec, ReportFrequency
from toka_runtime.protocol.states import LIVE, TERMINAL, TaskState
from toka_runtime.supervisor.report_text import report_text
from toka_runtime.supervisor.text import safe_component
from toka_runtime.supervisor.workspace.folders import write_atomically

DEFAULT_CHANNEL = "default"
"""Where the reports of an agent go that names no channel."""
KEEP = 500
"""Reports of one agent in one channel; older ones are removed."""
_RETRY = timedelta(minutes=1)
_PERIODS = {
    ReportFrequency.HOURLY: timedelta(hours=1),
    ReportFrequency.DAILY: timedelta(days=1),
    ReportFrequency.WEEKLY: timedelta(weeks=1),
}
_OVER = frozenset({TaskState.DONE, TaskState.FAILED})


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the last report told, as far as it decides about the next one."""

    run: RunId | None
    tasks: tuple[TaskState, ...]
    ended_at: datetime | None = None

    @property
    def over(self) -> int:
        return sum(state in _OVER for state in self.tasks)


class Reporter:
    """Of one agent. `due` is cheap and may be asked at any rate; `write` after it said yes."""

    def __init__(self, spec: AgentSpec, state_dir: Path, clock: Clock) -> None:
        self._spec = spec
        self._clock = clock
        names = spec.reporting.channels or (DEFAULT_CHANNEL,)
        folder = state_dir / "reports"
        self._channels = {channel: folder / safe_component(channel) for channel in names}
        self._file_prefix = safe_component(spec.name)
        self._seen = _Seen(None, ())
        self._next_at: datetime | None = None
        self._not_before: datetime | None = None
        self._writing = False

    def due(self, view: AgentView) -> bool:
        """Whether a report should be written now of the agent as it stands in `view`."""
        now = self._clock.now()
        if self._writing or (self._not_before is not None and now < self._not_before):
            return False
        if view.state in TERMINAL:
            return self._end_is_due(view)
        if view.state not in LIVE:
            return False
        if view.run != self._seen.run:
            self._begin(view, now)
        frequency = self._spec.reporting.frequency
        if (period := _PERIODS.get(frequency)) is not None:
            self._next_at = self._next_at or (view.started_at or now) + period
            return now >= self._next_at
        current = _look(view)
        if frequency is ReportFrequency.REAL_TIME:
            return current.tasks != self._seen.tasks
        return frequency is ReportFrequency.ON_MILESTONE and current.over > self._seen.over

    async def write(self, view: AgentView) -> list[ReportWritten]:
        """One file a channel. Raises OSError; then nothing is due for a minute."""
        now = self._clock.now()
        self._writing = True
        try:
            written = await asyncio.to_thread(self._write, view, now)
            self._not_before = None
        except OSError:
            self._not_before = now + _RETRY
            raise
        finally:
            self._writing = False
        return written

    def _write(self, view: AgentView, now: datetime) -> list[ReportWritten]:
        current = _look(view)
        cause = self._cause(view, current)
        text = report_text(view, now, cause).encode("utf-8", "replace")
        written: list[ReportWritten] = []
        for channel, folder in self._channels.items():
            path = self._end_path(folder, view)
            if view.state not in TERMINAL:
                path = _unused(self._path(folder, now, cause))
            write_atomically(path, text)
            self._prune(folder)
            written.append(ReportWritten(channel=channel, path=str(path)))
        self._seen = current
        period = _PERIODS.get(self._spec.reporting.frequency)
        while period is not None and self._next_at is not None and self._next_at <= now:
            self._next_at += period
        return written

    def _begin(self, view: AgentView, now: datetime) -> None:
        """A new run: nothing of it is told yet."""
        self._seen = _Seen(view.run, (TaskState.WAITING,) * len(view.tasks))
        self._next_at = None

    def _end_is_due(self, view: AgentView) -> bool:
        current = _look(view)
        if current.ended_at == self._seen.ended_at and current.run == self._seen.run:
            return False
        # A run that ended under an earlier runtime has been reported then.
        if all(self._end_path(folder, view).exists() for folder in self._channels.values()):
            self._seen = current
            return False
        return True

    def _cause(self, view: AgentView, current: _Seen) -> str:
        if view.state in TERMINAL:
            return str(view.state)
        frequency = self._spec.reporting.frequency
        return f"{current.over}-of-{len(current.tasks)}" if frequency not in _PERIODS else str(frequency)

    def _path(self, folder: Path, at: datetime, cause: str) -> Path:
        return folder / f"{self._file_prefix}-{at:%Y%m%dT%H%M%SZ}-{cause}.md"

    def _end_path(self, folder: Path, view: AgentView) -> Path:
        """The same for the same end, whoever asks and when."""
        run = f"-{safe_component(view.run)}" if view.run else ""
        return self._path(folder, view.ended_at or view.since, f"{view.state}{run}")

    def _prune(self, folder: Path) -> None:
        mine = re.compile(re.escape(self._file_prefix) + r"-\d{8}T\d{6}Z-[a-z0-9-]+\.md")
        reports = sorted(path for path in folder.iterdir() if mine.fullmatch(path.name))
        for path in reports[:-KEEP]:
            path.unlink(missing_ok=True)


def _look(view: AgentView) -> _Seen:
    ended_at = (view.ended_at or view.since) if view.state in TERMINAL else None
    return _Seen(view.run, tuple(task.state for task in view.tasks), ended_at)


def _unused(path: Path) -> Path:
    """Two reports in one second."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}-{number}.md")
    return free
