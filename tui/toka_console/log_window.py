"""The log of one host in lines, as far as it is held here: what tools and the runtime printed, and what happened, in
the order of the log. Pure.

Envelopes are taken in as they come, and made lines only when somebody looks (`settle`): a flood that nobody watches
costs an append. What falls off is in the runtime's log and can be paged in again (`prepend`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from toka_console import record
from toka_console.ring import MAX_LINE
from toka_runtime.protocol import events as ev

KEPT_LINES, KEPT_CHARS = 10_000, 4 * 2**20
"""What is left when some have to go."""
MOST_LINES, MOST_CHARS = 3 * KEPT_LINES, 3 * KEPT_CHARS
"""Then the oldest go. Characters also of envelopes that nobody has looked at."""
PAGE = 500
"""Events that one read of the log brings."""
STREAMS = ("stdout", "stderr", "runtime", "event", "gap")
_PRINTED = frozenset({ev.Stream.STDOUT, ev.Stream.STDERR, ev.Stream.RUNTIME})
_ROLES = {"stderr": "warn", "runtime": "info"}
_ENVELOPE_CHARS = 200
"""What an envelope without text counts for."""


@dataclass(slots=True)
class LogLine:
    at: datetime
    seq: int
    agent: str
    """"" for the runtime itself."""
    stream: str
    """One of `STREAMS`."""
    text: str
    role: str = "base"
    task: int = -1
    cut: int = 0
    """Characters that are not here: shown as `… +84 kB`."""
    envelope: ev.Envelope | None = None
    """The event, for lines that are one."""
    version: int = 0

    @property
    def is_problem(self) -> bool:
        return self.role == "bad" or self.stream == "stderr" or (self.role == "warn" and self.stream == "event")


@dataclass(slots=True)
class LogWindow:
    lines: list[LogLine] = field(default_factory=list[LogLine])
    head: int = 0
    """Durable events up to here are in `lines`, waiting, or were let go."""
    first: int = 0
    """Events with seq ≤ this are not here; 0: everything is."""
    dropped: int = 0
    """Lines let go at the front."""
    version: int = 0
    shifts: int = 0
    """Grows when something else happened than that lines were appended or went on."""
    _waiting: deque[ev.Envelope] = field(default_factory=deque[ev.Envelope])
    _waiting_chars: int = 0
    _chars: int = 0
    _unfinished: dict[tuple[str, str, str], LogLine] = field(default_factory=dict[tuple[str, str, str], LogLine])

    def adopt(self, seq: int, at: datetime | None) -> None:
        """The host is at `seq`; how it came there was not seen."""
        if seq < self.head:
            self.lines.clear()
            self._waiting.clear()
            self._unfinished.clear()
            self.head = self._chars = self._waiting_chars = self.dropped = 0
        if seq == self.head:
            return
        self.settle()
        if self.lines and at is not None:
            missed = seq - self.head
            self._push(LogLine(at, seq, "", "gap", f"{missed:,} events are not shown here; the log has them", "warn"))
        else:
            self.first = seq
        self.head = seq
        self.shifts += 1
        self.version += 1

    def add(self, envelope: ev.Envelope) -> None:
        """The next event of the stream."""
        if not envelope.durable or envelope.seq <= self.head:
            return
        self.head = envelope.seq
        self._waiting.append(envelope)
        self._waiting_chars += _weight(envelope)
        self.version += 1
        if self._waiting_chars > MOST_CHARS:
            # Nobody looks: everything before what is left is paged in when somebody does.
            while self._waiting_chars > KEPT_CHARS:
                gone = self._waiting.popleft()
                self._waiting_chars -= _weight(gone)
                self.first = gone.seq
            self.dropped += len(self.lines)
            self.lines.clear()
            self._unfinished.clear()
            self._chars = 0
            self.shifts += 1

    def settle(self) -> None:
        """Make lines of what has come."""
        while self._waiting:
            self._take(self._waiting.popleft())
        self._waiting_chars = 0
        if len(self.lines) > MOST_LINES or self._chars > MOST_CHARS:
            self._let_go()

    def prepend(self, envelopes: Iterable[ev.Envelope], *, more: bool) -> None:
        """Put in front what the log has before `first`; `more`: and more before that."""
        found = sorted((each for each in envelopes if each.seq <= self.first), key=lambda each: each.seq)
        older = LogWindow()
        for envelope in found:
            older._take(envelope)
        self.lines[:0] = older.lines
        self._chars += older._chars
        self.first = found[0].seq - 1 if found and more else 0
        self.shifts += 1
        self.version += 1

    @property
    def has_room(self) -> bool:
        """An older page can be read without something else having to go."""
        return len(self.lines) < 2 * KEPT_LINES and self._chars < 2 * KEPT_CHARS

    def _take(self, envelope: ev.Envelope) -> None:
        event = envelope.event
        if isinstance(event, ev.OutputAppended):
            if event.stream in _PRINTED:
                self._printed(envelope, event)
            return
        found = record.activity(envelope)
        if found is not None:
            self._push(
                LogLine(
                    envelope.at, envelope.seq, envelope.agent or "", "event", found.text, found.role,
                    getattr(event, "task", -1), envelope=envelope,
                )
            )  # fmt: skip

    def _printed(self, envelope: ev.Envelope, event: ev.OutputAppended) -> None:
        agent, stream = envelope.agent or "", event.stream.value
        key = (agent, stream, event.call)
        *ended, rest = event.text.split("\n")
        for text in ended:
            self._extend(key, envelope, event, text)
            self._unfinished.pop(key, None)
        if rest:
            self._extend(key, envelope, event, rest)
        if event.dropped_bytes:
            text = f"{event.dropped_bytes:,} bytes are not shown: they came faster than the link"
            self._push(LogLine(envelope.at, envelope.seq, agent, "gap", text, "warn", event.task))

    def _extend(self, key: tuple[str, str, str], envelope: ev.Envelope, event: ev.OutputAppended, text: str) -> None:
        line = self._unfinished.get(key)
        if line is None:
            stream = event.stream.value
            line = LogLine(
                envelope.at, envelope.seq, envelope.agent or "", stream, "", _ROLES.get(stream, "base"), event.task
            )
            self._push(line)
            self._unfinished[key] = line
        room = max(0, MAX_LINE - len(line.text))
        line.text += text[:room]
        line.cut += max(0, len(text) - room)
        line.version += 1
        self._chars += min(room, len(text))

    def _push(self, line: LogLine) -> None:
        self.lines.append(line)
        self._chars += len(line.text) + 100

    def _let_go(self) -> None:
        count, chars = 0, self._chars
        while len(self.lines) - count > KEPT_LINES or chars > KEPT_CHARS:
            chars -= len(self.lines[count].text) + 100
            count += 1
        # Events as a whole, or what is paged in again would be here twice.
        while count < len(self.lines) and self.lines[count].seq == self.lines[count - 1].seq:
            chars -= len(self.lines[count].text) + 100
            count += 1
        self.first = self.lines[count - 1].seq
        gone = set(map(id, self.lines[:count]))
        self._unfinished = {key: line for key, line in self._unfinished.items() if id(line) not in gone}
        del self.lines[:count]
        self._chars, self.dropped = chars, self.dropped + count
        self.shifts += 1


def _weight(envelope: ev.Envelope) -> int:
    event = envelope.event
    return _ENVELOPE_CHARS + (len(event.text) if isinstance(event, ev.OutputAppended) else 0)


def fields(line: LogLine, host: str) -> dict[str, str | float]:
    """What a filter sees."""
    return {
        "agent": line.agent,
        "host": host,
        "stream": line.stream,
        "task": str(line.task + 1) if line.task >= 0 else "",
        "level": "problem" if line.is_problem else "",
        "text": f"{line.agent} {line.text}",
    }


def joined(windows: Sequence[tuple[str, LogWindow]]) -> list[tuple[str, LogLine]]:
    """The lines of several hosts by time, each with its host."""
    if len(windows) == 1:
        host, window = windows[0]
        return [(host, line) for line in window.lines]
    rows = [(host, line) for host, window in windows for line in window.lines]
    rows.sort(key=lambda row: row[1].at)
    return rows
