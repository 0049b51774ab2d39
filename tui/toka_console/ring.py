"""The bounded window on one agent's output: text, tool cards and marks, in order. The whole is in the runtime's store.

Entries are mutable and carry a `version`, so that a pane re-wraps only what changed. Serial numbers only grow at the
end and only shrink at the front (history paged in from the store), and never name two entries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from toka_runtime.protocol.events import Envelope

MAX_LINE = 2_000
"""Characters of one logical line that are kept; the rest is counted."""
MAX_TEXT = 2_000
"""Characters after which a text entry is closed, so that appending stays cheap to draw."""

MarkKind = Literal["task", "turn", "state", "verify", "denial", "notice", "commit", "command", "gap"]


@dataclass(slots=True)
class Text:
    at: datetime
    stream: str
    call: str
    task: int
    turn: int
    text: str = ""
    line_length: int = 0
    """Of the last, unfinished line, with what was cut."""
    cut: int = 0
    """Characters left out of the lines of this entry: shown as `… +84 kB`."""
    serial: int = 0
    version: int = 0

    @property
    def size(self) -> int:
        return len(self.text) + 120

    @property
    def lines(self) -> int:
        return self.text.count("\n") + (not self.text.endswith("\n"))


@dataclass(slots=True)
class Tool:
    at: datetime
    call: str
    tool: str
    target: str
    arguments: dict[str, Any]
    task: int
    turn: int
    outcome: str = ""
    duration_s: float = 0.0
    summary: str = ""
    streamed: bool = False
    """What it wrote came live, and stands below: the summary would say it again."""
    result_bytes: int = 0
    serial: int = 0
    version: int = 0

    @property
    def size(self) -> int:
        return 400 + len(self.summary) + sum(len(str(value)) for value in self.arguments.values())

    @property
    def lines(self) -> int:
        return 2 + self.summary.count("\n")


@dataclass(slots=True)
class Mark:
    at: datetime
    kind: MarkKind
    text: str
    role: str = "muted"
    source: Envelope | None = None
    """The denial that it tells of, to be opened."""
    serial: int = 0
    version: int = 0

    @property
    def size(self) -> int:
        return len(self.text) + 120

    @property
    def lines(self) -> int:
        return 1


Entry = Text | Tool | Mark


def is_problem(entry: Entry) -> bool:
    """A denial, or something that failed."""
    return entry.outcome == "error" if isinstance(entry, Tool) else isinstance(entry, Mark) and entry.role == "bad"


@dataclass(slots=True)
class OutputRing:
    """Bounded by `capacity` (characters, with a price per entry). What falls off the front is counted in lines."""

    capacity: int
    entries: deque[Entry] = field(default_factory=deque[Entry])
    dropped_lines: int = 0
    version: int = 0
    history_seq: int | None = None
    """Durable events up to here happened before this window began and can be paged in; None: nothing came before."""
    _size: int = 0
    _open_tools: dict[str, Tool] = field(default_factory=dict[str, Tool])

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def size(self) -> int:
        return self._size

    @property
    def first_serial(self) -> int:
        return self.entries[0].serial if self.entries else 0

    @property
    def last_serial(self) -> int:
        return self.entries[-1].serial if self.entries else -1

    def get(self, serial: int) -> Entry | None:
        index = serial - self.first_serial
        return self.entries[index] if 0 <= index < len(self.entries) else None

    def back(self, serial: int) -> Iterator[Entry]:
        """Entries from `serial` towards the oldest."""
        for number in range(min(serial, self.last_serial), self.first_serial - 1, -1):
            entry = self.get(number)
            if entry is not None:
                yield entry

    def text(self, at: datetime, stream: str, text: str, task: int, turn: int, call: str) -> None:
        """Append output. Long lines are cut here, not on screen: the ring stays small whatever comes."""
        for piece in _pieces(text):
            # Only the first line of a piece can have grown too long (a piece is no longer than a line may be). It ends
            # its entry, so that the note of what was cut stands at the cut.
            head, newline, rest = piece.partition("\n")
            last = self._continued(stream, call, task, turn)
            if last is not None and last.line_length + len(head) > MAX_LINE:
                self._extend(last, head, newline)
                piece = rest
                last = None if newline else last
            if piece:
                self._extend(last or self._new_text(at, stream, call, task, turn), piece)
        self._trim()

    def _continued(self, stream: str, call: str, task: int, turn: int) -> Text | None:
        """The newest entry, if this text goes on in it."""
        last = self.entries[-1] if self.entries else None
        if not isinstance(last, Text) or (last.stream, last.call, last.task, last.turn) != (stream, call, task, turn):
            return None
        closed = last.text.endswith("\n") and (last.cut > 0 or len(last.text) >= MAX_TEXT)
        return None if closed else last

    def _new_text(self, at: datetime, stream: str, call: str, task: int, turn: int) -> Text:
        entry = Text(at, stream, call, task, turn)
        if (tool := self._open_tools.get(call)) is not None:
            tool.streamed = True
        self._push(entry)
        return entry

    def _extend(self, entry: Text, text: str, newline: str = "") -> None:
        before = entry.size
        room = max(0, MAX_LINE - entry.line_length) if entry.line_length + len(text) > MAX_LINE else len(text)
        if newline or "\n" not in text:
            entry.cut += len(text) - min(room, len(text))
            entry.text += text[:room] + newline
            entry.line_length = 0 if newline else entry.line_length + len(text)
        else:
            entry.text += text
            entry.line_length = len(text) - text.rfind("\n") - 1
        entry.version += 1
        self._size += entry.size - before

    def tool_started(self, tool: Tool) -> None:
        self._push(tool)
        self._open_tools[tool.call] = tool
        self._trim()

    def tool_ended(self, call: str, outcome: str, duration_s: float, summary: str, result_bytes: int) -> None:
        tool = self._open_tools.pop(call, None)
        if tool is None:
            return
        before = tool.size
        tool.outcome, tool.duration_s, tool.summary, tool.result_bytes = outcome, duration_s, summary, result_bytes
        tool.version += 1
        self._size += tool.size - before
        self.version += 1

    def mark(
        self, at: datetime, kind: MarkKind, text: str, role: str = "muted", source: Envelope | None = None
    ) -> None:
        self._push(Mark(at, kind, text, role, source))
        self._trim()

    def prepend(self, older: Iterable[Entry]) -> None:
        """Put history in front, as much of its end as there is room for."""
        for entry in reversed(list(older)):
            if self._size + entry.size > self.capacity:
                self.dropped_lines += entry.lines
                continue
            entry.serial = self.first_serial - 1
            self.entries.appendleft(entry)
            self._size += entry.size
        self.version += 1

    def _push(self, entry: Entry) -> None:
        entry.serial = self.last_serial + 1 if self.entries else 0
        self.entries.append(entry)
        self._size += entry.size

    def _trim(self) -> None:
        self.version += 1
        while self._size > self.capacity and len(self.entries) > 1:
            gone = self.entries.popleft()
            self._size -= gone.size
            self.dropped_lines += gone.lines
            if isinstance(gone, Tool):
                self._open_tools.pop(gone.call, None)


def _pieces(text: str) -> Iterator[str]:
    """`text` in pieces of about `MAX_TEXT`, split after newlines where possible."""
    start = 0
    while len(text) - start > MAX_TEXT:
        end = text.rfind("\n", start, start + MAX_TEXT) + 1
        end = end if end > start else start + MAX_TEXT
        yield text[start:end]
        start = end
    yield text[start:]
