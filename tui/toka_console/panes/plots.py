"""The figures of one agent or host over time, each against its limit."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from textual.events import MouseScrollDown, MouseScrollUp
from textual.strip import Strip

from toka_console import metrics
from toka_console.format import plots
from toka_console.format.cells import Row
from toka_console.identity import AgentKey
from toka_console.metrics import Subject
from toka_console.panes.base import Move, Pane
from toka_console.session import Session

BESIDE = 110
"""From so many cells on, two plots stand side by side."""
TALLEST = 9


class PlotsPane(Pane, can_focus=True):
    """Scrolls by whole plots."""

    def __init__(self, session: Session, subject: Callable[[], Subject | None], *, id: str | None = None) -> None:
        super().__init__(session, id=id, frame="box")
        self.window = "2m"
        self.first = 0
        """Row of plots at the top."""
        self._subject = subject
        self._rows = (0, 0)
        """Rows of plots that are shown, and that there are."""

    def heading(self) -> tuple[str, str]:
        subject = self._subject()
        name = "Resources" if subject is None else subject.name if isinstance(subject, AgentKey) else subject.host
        shown, rows = self._rows
        more = f"{self.first + 1}–{self.first + shown} of {rows}  " if shown < rows else ""
        return name, f"{more}last {self.window}, t changes"

    def depends(self) -> Hashable:
        state, subject = self.session.state, self._subject()
        if state is None or subject is None:
            return self.session.phase
        # Nobody reads a plot faster than once a second.
        return subject, self.window, self.first, int(self.session.now().timestamp()), state.is_up(subject.host)

    def content(self, width: int, height: int) -> list[Strip]:
        state, subject = self.session.state, self._subject()
        if state is None or subject is None:
            return []
        found, wanted = metrics.spans(state, subject), metrics.metrics(state, subject)
        columns = 2 if width >= BESIDE else 1
        rows = -(-len(wanted) // columns)
        shown = max(1, min(rows, (height - 1) // plots.LEAST))
        tall = min(TALLEST, (height - 1) // shown)
        self._rows = (shown, rows)
        self.first = max(0, min(self.first, rows - shown))
        now, window_s = metrics.time_of(state, subject, self.session.now()), metrics.WINDOWS[self.window]
        wide = width // columns
        lines: list[Strip] = []
        for number in range(self.first, self.first + shown):
            beside = [
                plots.plot(metric, found, now, window_s, wide, tall, self.palette)
                for metric in wanted[number * columns : (number + 1) * columns]
            ]
            lines += [Strip.join(parts) for parts in zip(*beside, strict=True)]
        axis = [plots.time_axis(self.window, wide, self.palette)] * columns
        lines.append(Strip.join(axis))
        if not found and len(lines) > 2:
            said = "nothing was measured yet" if state.is_up(subject.host) else "the link is down: nothing is known"
            lines[2] = Row(width, self.palette.base).gap(plots.AXIS).add(said, self.palette.muted).strip()
        return lines[-height:] if len(lines) > height else lines

    def next_window(self, wanted: str = "") -> None:
        """Look as far back as `wanted` (one of `metrics.WINDOWS`), or as the next of them does."""
        names = list(metrics.WINDOWS)
        self.window = wanted or names[(names.index(self.window) + 1) % len(names)]
        self.paint()

    def move(self, how: Move) -> None:
        shown, rows = self._rows
        step = {"up": -1, "down": 1, "top": -rows, "bottom": rows}.get(how, shown if how.endswith("down") else -shown)
        self.first = max(0, min(self.first + step, rows - shown))
        self.paint()

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.stop()
        self.move("down")

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.stop()
        self.move("up")
