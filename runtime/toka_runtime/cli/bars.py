"""The tale of a headless run on a terminal: a row an agent that redraws itself, and above it what an operator must not
miss. The rows fit the window, whatever its size."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TextIO

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from toka_runtime.cli.narration import describe, one_line, told, tone
from toka_runtime.cli.render import Style, clean
from toka_runtime.cli.summary import COLOURS, clock_text, summary_lines, took, total
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.fold import fold
from toka_runtime.protocol.snapshot import AgentView, FleetState
from toka_runtime.protocol.states import LIVE, TERMINAL, AgentState, TaskState

_SETTLED = frozenset({TaskState.DONE, TaskState.FAILED, TaskState.SKIPPED})
_FRAMES_PER_S = 8
_ROOM = 3
"""Lines of the window that stay free for what is said above the rows, at least."""
_BARS = ((110, 24), (90, 16), (70, 10))
"""(from this width of the window, width of a bar). Below: no bar, the count says it."""
_URGENCY = {AgentState.FAILED: 1, AgentState.KILLED: 1, AgentState.PENDING: 2, AgentState.SKIPPED: 4}


class BarNarrator:
    def __init__(self, out: TextIO, environment: Mapping[str, str] = os.environ) -> None:
        self._out = out
        self._style = Style(out, environment)
        self._state = FleetState()
        self._console = Console(file=out, highlight=False, markup=False, emoji=False)
        self._live = Live(
            Rows(lambda: self._state), console=self._console, refresh_per_second=_FRAMES_PER_S, transient=True
        )
        self._live.start()

    def events(self, batch: Sequence[ev.Envelope]) -> None:
        self._state = fold(self._state, batch)
        for envelope in batch:
            if _worth_a_line(envelope.event) and describe(envelope):
                self._print(told(envelope), tone(envelope.event))

    def say(self, text: str) -> None:
        self._print(clean(text), "bold")

    def _print(self, text: str, style: str) -> None:
        # A long line goes on, a little to the right, so that the eye finds where each begins.
        room = self._console.width - 2
        lines = Text(text, style=style).wrap(self._console, room)
        self._console.print(Group(*lines[:1], *(Padding(line, (0, 0, 0, 2)) for line in lines[1:])))

    def close(self) -> None:
        self._live.stop()
        for line in summary_lines(self._state, self._style, self._console.width):
            print(line, file=self._out)
        self._out.flush()


def _worth_a_line(event: ev.Event) -> bool:
    match event:
        case ev.RuntimeStarted() | ev.OperationDenied() | ev.Noticed() | ev.ModelCallRetried() | ev.ProcessEnded():
            return True
        case ev.AgentStateChanged(after=after):
            return after in TERMINAL
        case _:
            return False


class Rows:
    """The rows of the state as it is when they are drawn."""

    def __init__(self, state: Callable[[], FleetState]) -> None:
        self._state = state

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        state = self._state()
        views = list(state.agents.values())
        if views:
            utf8 = options.encoding.lower().startswith("utf")
            yield Group(*rows(views, options.max_width, console.height - _ROOM, datetime.now(UTC), utf8=utf8))
            yield Text(_cut(total(state), options.max_width), style="bold")


def rows(
    views: Sequence[AgentView], width: int, height: int, now: datetime, *, utf8: bool = True
) -> list[RenderableType]:
    """One line an agent, each exactly within `width`; when there are more than `height` lines, those that matter most,
    in their usual order, and a line that counts the rest."""
    shown, hidden = list(views), list[AgentView]()
    room = max(1, height - 1)
    if len(views) > room:
        urgent = sorted(range(len(views)), key=lambda at: (_urgency(views[at]), at))
        chosen = set(urgent[: room - 1])
        shown = [view for at, view in enumerate(views) if at in chosen]
        hidden = [view for at, view in enumerate(views) if at not in chosen]
    name = min(max(len(view.name) for view in views), max(12, width * 3 // 10))
    count = 2 * max(len(str(len(view.tasks))) for view in views) + 1
    bar = next((cells for least, cells in _BARS if width >= least), 0)
    lines: list[RenderableType] = [_row(view, width, name, bar, count, now, utf8=utf8) for view in shown]
    if hidden:
        states = sorted({view.state for view in hidden}, key=str)
        counts = ", ".join(f"{sum(view.state is state for view in hidden)} {state}" for state in states)
        lines.append(Text(_cut(f"… and {len(hidden)} more: {counts}", width), style="dim"))
    return lines


def _urgency(view: AgentView) -> int:
    return 0 if view.state in LIVE else _URGENCY.get(view.state, 3)


def _row(view: AgentView, width: int, name: int, bar: int, count: int, now: datetime, *, utf8: bool) -> Text:
    colour = COLOURS.get(view.state, "yellow")
    settled = sum(task.state in _SETTLED for task in view.tasks)
    line = Text(_cut(clean(view.name), name).ljust(name), no_wrap=True)
    if bar:
        full = bar * settled // len(view.tasks) if view.tasks else 0
        solid, empty = ("━", "─") if utf8 else ("#", "-")
        line.append(" ").append(solid * full, style=colour).append(empty * (bar - full), style="dim")
    line.append(f" {settled}/{len(view.tasks)}".rjust(count + 1))
    line.append(f" {view.state:<9}", style=colour)
    time = took(view, now)
    end = f" {clock_text(time.total_seconds()) if time is not None else '':>7}"
    room = width - line.cell_len - len(end) - 1
    if room >= 8:
        words = view.last_activity if view.state in LIVE else _why(view)
        activity = Text(one_line(clean(words)), style="" if view.state in LIVE else "dim")
        activity.truncate(room, overflow="ellipsis" if utf8 else "crop", pad=True)
        line.append(" ").append_text(activity)
    line.append(end, style="dim")
    line.truncate(width)
    return line


def _why(view: AgentView) -> str:
    if view.state is AgentState.PENDING and view.blockers:
        return f"waits for {', '.join(view.blockers)}"
    return view.detail


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"
