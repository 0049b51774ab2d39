"""The console's own health: event rate, drains, stalls, memory. Counted always, shown with F12."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

STALL_S = 0.1
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Diagnostics:
    events: int = 0
    drains: int = 0
    paints: int = 0
    reconnects: int = 0
    largest_batch: int = 0
    stalls: int = 0
    worst_stall_s: float = 0.0
    drain_s: deque[float] = field(default_factory=lambda: deque[float](maxlen=512))
    _seconds: deque[tuple[float, int]] = field(default_factory=lambda: deque[tuple[float, int]](maxlen=12))

    def drained(self, count: int, seconds: float) -> None:
        self.events += count
        self.drains += 1
        self.largest_batch = max(self.largest_batch, count)
        self.drain_s.append(seconds)

    def tick(self, now: float, late_s: float) -> None:
        """Once a second. `late_s`: how much later than asked for the loop came to it."""
        self._seconds.append((now, self.events))
        if late_s > STALL_S:
            self.stalls += 1
            self.worst_stall_s = max(self.worst_stall_s, late_s)

    def events_per_s(self) -> float:
        """Over the last ten seconds or so."""
        if len(self._seconds) < 2:
            return 0.0
        (start, before), (end, after) = self._seconds[0], self._seconds[-1]
        return (after - before) / (end - start) if end > start else 0.0

    def drain_percentile(self, fraction: float) -> float:
        """Seconds; 0 before the first drain."""
        ordered = sorted(self.drain_s)
        return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))] if ordered else 0.0


def resident_bytes() -> int:
    """Of this process; 0 where /proc does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0
