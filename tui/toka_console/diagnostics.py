"""The console's own health: event rate, folds, paints, stalls, memory, bytes to the terminal. Counted always, shown
with F12."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from toka_runtime.protocol.ids import HostId

STALL_S = 0.1
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Stall(NamedTuple):
    at: float
    """Monotonic seconds of its end."""
    seconds: float
    what: str
    """`drain`, `paint`, or `loop` when it was neither."""


class _Second(NamedTuple):
    at: float
    events: int
    written: int


class Timings:
    """How long the last 512 of something took."""

    def __init__(self) -> None:
        self.count = 0
        self._seconds: deque[float] = deque(maxlen=512)

    def add(self, seconds: float) -> None:
        self.count += 1
        self._seconds.append(seconds)

    def percentile(self, fraction: float) -> float:
        """Seconds; 0 before the first."""
        ordered = sorted(self._seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))] if ordered else 0.0


@dataclass
class Diagnostics:
    events: int = 0
    coalesced: int = 0
    """Samples that were passed over, because a newer one of the same kind and agent was there already."""
    largest_batch: int = 0
    frames: int = 0
    """Updates sent to the terminal."""
    stalls: int = 0
    worst: Stall | None = None
    last: Stall | None = None
    drains: Timings = field(default_factory=Timings)
    folds: Timings = field(default_factory=Timings)
    """A fold of one slice, with its cleaning."""
    paints: Timings = field(default_factory=Timings)
    reconnects: Counter[HostId] = field(default_factory=Counter["HostId"])
    clock: Callable[[], float] = time.monotonic
    _explained_s: float = 0.0
    """Of the stalls since the last tick, what is counted already."""
    _seconds: deque[_Second] = field(default_factory=lambda: deque[_Second](maxlen=12))

    def drained(self, count: int, seconds: float) -> None:
        self.events += count
        self.largest_batch = max(self.largest_batch, count)
        self.drains.add(seconds)
        self._took("drain", seconds)

    def folded(self, seconds: float) -> None:
        self.folds.add(seconds)

    def painted(self, seconds: float) -> None:
        self.paints.add(seconds)
        self._took("paint", seconds)

    def tick(self, now: float, late_s: float, written: int = 0) -> None:
        """Once a second. `late_s`: how much later than asked for the loop came to it; `written`: bytes to the
        terminal so far."""
        self._seconds.append(_Second(now, self.events, written))
        late_s -= self._explained_s
        self._explained_s = 0.0
        if late_s > STALL_S:
            self._stalled("loop", late_s)

    def _took(self, what: str, seconds: float) -> None:
        if seconds > STALL_S:
            self._explained_s += seconds
            self._stalled(what, seconds)

    def _stalled(self, what: str, seconds: float) -> None:
        self.stalls += 1
        self.last = Stall(self.clock(), seconds, what)
        if self.worst is None or seconds > self.worst.seconds:
            self.worst = self.last

    def events_per_s(self) -> float:
        """Over the last ten seconds or so."""
        return self._rate(lambda second: second.events)

    def written_per_s(self) -> float:
        """Bytes to the terminal, over the last ten seconds or so."""
        return self._rate(lambda second: second.written)

    def _rate(self, figure: Callable[[_Second], int]) -> float:
        if len(self._seconds) < 2:
            return 0.0
        first, last = self._seconds[0], self._seconds[-1]
        return (figure(last) - figure(first)) / (last.at - first.at) if last.at > first.at else 0.0


def resident_bytes() -> int:
    """Of this process; 0 where /proc does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0
