"""The lines of logs: follows, wraps or scrolls sideways, marks, searches. Only what is in view is formatted.

The place in the log is a line (an object that stays), never a row number: lines may come in front of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal, NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual.events import Click, MouseScrollDown, MouseScrollUp
from textual.message import Message
from textual.strip import Strip

from toka_console import log_window
from toka_console.format import units
from toka_console.format.cells import Row, width_of, wrap
from toka_console.log_window import LogLine
from toka_console.panes.base import Move, Pane

if TYPE_CHECKING:
    from toka_console.entries import HostEntry
    from toka_console.identity import AgentKey
    from toka_console.session import Session

Times = Literal["clock", "ago", "none"]
TIMES: tuple[Times, ...] = ("clock", "ago", "none")
SINCE: tuple[tuple[str, float], ...] = (
    ("all", 0.0), ("last 1m", 60.0), ("last 5m", 300.0), ("last 15m", 900.0), ("last 1h", 3600.0), ("last 6h", 21600.0),
    ("last 24h", 86400.0),
)  # fmt: skip
"""By digit: name, seconds."""
SIDE = 20
"""Cells of one step sideways."""
_GLYPH = {"stdout": "│", "stderr": "┃", "runtime": "»", "event": "•", "gap": "⋯"}


class Chosen(Message):
    """The cursor is on another line."""


class _Shown(NamedTuple):
    host: str
    line: LogLine


class LogsPane(Pane, can_focus=True):
    def __init__(self, session: Session, *, id: str | None = None) -> None:
        super().__init__(session, id=id, frame="box")
        self.scope: AgentKey | None = None
        """One agent; None: all of them."""
        self.following = True
        self.wraps = True
        self.times: Times = "clock"
        self.since = 0
        """Index of `SINCE`."""
        self.search = ""
        self.skipped = 0
        """Cells that are scrolled past, when lines are not wrapped."""
        self.marked: dict[int, LogLine] = {}
        """By `id`: lines are told apart by what they are, not by what they say."""
        self._shown: list[_Shown] = []
        self._cursor: LogLine | None = None
        self._index = 0
        self._top = 0
        self._known: Hashable = None
        self._taken = 0
        """Lines of the windows that were looked at."""

    # -- what is shown --------------------------------------------------------------------------------------------

    def hosts(self) -> list[tuple[str, HostEntry]]:
        state = self.session.state
        if state is None:
            return []
        return [(name, host) for name, host in state.hosts.items() if self.scope is None or self.scope.host == name]

    def sync(self) -> None:
        """Take in what has come."""
        hosts = self.hosts()
        for _, host in hosts:
            host.log.settle()
        floor = self._floor()
        chosen = self.session.filter("logs")
        known = (tuple((name, host.log.shifts) for name, host in hosts), chosen, self.scope, floor)
        windows = [(name, host.log) for name, host in hosts]
        if known == self._known and len(windows) == 1:
            rows = [_Shown(windows[0][0], line) for line in windows[0][1].lines[self._taken :]]
            self._shown += [row for row in rows if self._lets(row, floor)]
        elif known != self._known or sum(len(window.lines) for _, window in windows) != self._taken:
            rows = [_Shown(*row) for row in log_window.joined(windows)]
            self._shown = [row for row in rows if self._lets(row, floor)]
            self._relocate()
        self._known = known
        self._taken = sum(len(window.lines) for _, window in windows)
        if self.following and self._shown:
            self._index, self._cursor = len(self._shown) - 1, self._shown[-1].line

    def _floor(self) -> datetime | None:
        """To the second: what is older than the range leaves the list once a second."""
        seconds = SINCE[self.since][1]
        return (self.session.now() - timedelta(seconds=seconds)).replace(microsecond=0) if seconds else None

    def _lets(self, row: _Shown, floor: datetime | None) -> bool:
        line, scope = row.line, self.scope
        if floor is not None and line.at < floor:
            return False
        if scope is not None and line.agent != scope.name and line.stream != "gap":
            return False
        chosen = self.session.filter("logs")
        return not chosen or chosen.matches(log_window.fields(line, row.host))

    def _relocate(self) -> None:
        """The cursor stays with its line, or near it."""
        if self._cursor is None:
            return
        before = self._index
        self._index = next(
            (number for number, row in enumerate(self._shown) if row.line is self._cursor),
            max(0, min(before, len(self._shown) - 1)),
        )
        self._top = max(0, self._top + self._index - before)

    def selected(self) -> LogLine | None:
        self.sync()
        return self._shown[self._index].line if self._shown else None

    def selected_host(self) -> str:
        return self._shown[self._index].host if self._shown else ""

    def visible_text(self) -> list[str]:
        """Every line that scope, range and filter let through, as it would be written to a file."""
        self.sync()
        return [f"{row.line.at.isoformat()} {row.line.agent or row.host} {row.line.stream}: {row.line.text}"
                for row in self._shown]  # fmt: skip

    @property
    def wants_older(self) -> bool:
        """The view is near the oldest line."""
        return (self._top < 20 and not self.following) or len(self._shown) < max(1, self.inner_height)

    # -- moving ---------------------------------------------------------------------------------------------------

    def move(self, how: Move) -> None:
        self.sync()
        page = max(1, self.inner_height - 1)
        step = {
            "up": -1, "down": 1, "page_up": -page, "page_down": page, "half_up": -(page // 2), "half_down": page // 2,
            "top": -len(self._shown), "bottom": len(self._shown),
        }[how]  # fmt: skip
        self.go(self._index + step)

    def go(self, index: int) -> None:
        if self._shown:
            self._index = max(0, min(index, len(self._shown) - 1))
            self._cursor = self._shown[self._index].line
            self.following = index >= len(self._shown) - 1
        self.paint()
        self.post_message(Chosen())

    def sideways(self, step: int) -> None:
        self.skipped = max(0, self.skipped + step * SIDE)
        self.paint()

    def to_match(self, step: int) -> bool:
        """To the next (1) or previous (-1) line in which the search text is."""
        found = self._pattern()
        return found is not None and self._to(step, lambda line: found.search(line.text) is not None)

    def to_problem(self, step: int) -> bool:
        return self._to(step, lambda line: line.is_problem)

    def _to(self, step: int, wanted: Callable[[LogLine], bool]) -> bool:
        self.sync()
        index = self._index + step
        while 0 <= index < len(self._shown):
            if wanted(self._shown[index].line):
                self.go(index)
                self.following = False
                return True
            index += step
        return False

    def toggle_mark(self) -> None:
        line = self.selected()
        if line is None:
            return
        if self.marked.pop(id(line), None) is None:
            self.marked[id(line)] = line
        self.paint()

    def _pattern(self) -> re.Pattern[str] | None:
        return re.compile(re.escape(self.search), re.IGNORECASE) if self.search else None

    # -- drawing --------------------------------------------------------------------------------------------------

    def heading(self) -> tuple[str, str]:
        chosen = self.session.filter("logs")
        title = f"Logs {self.scope.name if self.scope is not None else 'of all agents'} {len(self._shown):,}"
        title += f"  /{chosen.source}" if chosen else ""
        notes = [SINCE[self.since][0] if self.since else "", f"search {self.search}" if self.search else ""]
        notes += ["" if self.wraps else f"→ {self.skipped}", "following" if self.following else "paused: s follows"]
        return title, " · ".join(note for note in notes if note)

    def depends(self) -> Hashable:
        hosts = self.hosts()
        clock = int(self.session.now().timestamp()) if self.times == "ago" or self.since else 0
        versions = tuple(host.log.version for _, host in hosts)
        return (versions, self.session.filter("logs"), self.scope, self.following, self.wraps, self.times, self.since,
                self.search, self.skipped, len(self.marked), self._index, clock)  # fmt: skip

    def content(self, width: int, height: int) -> list[Strip]:
        self.sync()
        if not self._shown:
            chosen = self.session.filter("logs")
            text = f"no line matches /{chosen.source}; esc clears the filter" if chosen else "nothing was printed"
            return [Row(width, self.palette.base).gap(2).add(text, self.palette.muted).strip()]
        return self._from_end(width, height) if self.following else self._around_cursor(width, height)

    def _from_end(self, width: int, height: int) -> list[Strip]:
        parts: list[list[Strip]] = []
        count, index = 0, len(self._shown)
        while index > 0 and count < height:
            index -= 1
            parts.append(self._rows(index, width))
            count += len(parts[-1])
        self._top = index
        rows = [row for part in reversed(parts) for row in part]
        return rows[-height:]

    def _around_cursor(self, width: int, height: int) -> list[Strip]:
        self._top = max(0, min(self._top, self._index))
        rows: list[Strip] = []
        index = self._top
        if self._index - self._top >= height:
            index = self._top = self._index - height + 1
        while index <= self._index:
            rows += self._rows(index, width)
            index += 1
        # The cursor's line is in view; what is above it goes.
        while len(rows) > height and self._top < self._index:
            del rows[: len(self._rows(self._top, width))]
            self._top += 1
        while index < len(self._shown) and len(rows) < height:
            rows += self._rows(index, width)
            index += 1
        return rows[:height]

    def _rows(self, index: int, width: int) -> list[Strip]:
        shown = self._shown[index]
        line, palette = shown.line, self.palette
        style = palette.role(line.role)
        mark = "▌" if id(line) in self.marked else " "
        time = {"clock": units.clock_time(line.at), "ago": units.age(line.at, self.session.now()), "none": ""}
        prefix = [(mark, palette.accent)]
        if self.times != "none":
            prefix.append((f"{time[self.times]:>8} ", palette.muted))
        state = self.session.state
        if self.scope is None and state is not None and len(state.hosts) > 1:
            prefix.append((f"{shown.host[:10]:<10} ", self.session.host_style(shown.host)))
        if self.scope is None:
            size = 18 if width >= 100 else 10
            prefix.append((f"{(line.agent or 'runtime')[:size]:<{size}} ", palette.accent))
        prefix.append((f"{_GLYPH.get(line.stream, ' ')} ", style if line.stream != "stdout" else palette.faint))
        used = sum(width_of(text) for text, _ in prefix)
        room = max(8, width - used)
        text = line.text.expandtabs(4)
        if line.cut:
            text += f" … +{units.size(line.cut)}"
        pieces = wrap(text, room) if self.wraps else [text[self.skipped : self.skipped + room]]
        rows: list[Strip] = []
        for number, piece in enumerate(pieces):
            row = Row(width, palette.base)
            if number == 0:
                for cell, drawn in prefix:
                    row.add(cell, drawn)
            else:
                row.gap(used)
            for part, found in self._highlighted(piece):
                row.add(part, palette.banner if found else style)
            strip = row.strip()
            rows.append(self._selected(strip) if index == self._index and self.has_focus else strip)
        return rows

    def _highlighted(self, text: str) -> list[tuple[str, bool]]:
        pattern = self._pattern()
        if pattern is None:
            return [(text, False)]
        parts: list[tuple[str, bool]] = []
        at = 0
        for match in pattern.finditer(text):
            parts += [(text[at : match.start()], False), (match.group(), True)]
            at = match.end()
        return [part for part in [*parts, (text[at:], False)] if part[0]]

    def _selected(self, strip: Strip) -> Strip:
        over = self.palette.selected
        return Strip([Segment(each.text, over(each.style or Style())) for each in strip], strip.cell_length)

    def thumb(self, height: int) -> tuple[int, int] | None:
        total = len(self._shown)
        if total <= height or height <= 0:
            return None
        size = max(1, height * height // total)
        return round((height - size) * min(1.0, self._top / max(1, total - height))), size

    def invalidate(self) -> None:
        super().invalidate()
        self._known = None

    # -- mouse ----------------------------------------------------------------------------------------------------

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.stop()
        self.go(self._index + 3)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.stop()
        self.go(self._index - 3)

    def on_click(self, event: Click) -> None:
        # Textual calls the base's handler, too.
        row = event.y - 1
        at = 0
        for index in range(self._top, len(self._shown)):
            at += len(self._rows(index, self.size.width - 2))
            if at > row:
                self.go(index)
                return
