"""What an agent or a host used over the last hour: every sample for two minutes, then steps of 10 s, then of 1 min.

Rows are packed (32 bytes each), so that ten thousand agents fit. A time without samples stays a gap. Pure.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple, overload

HOLD_S = 5.0
"""A sample stands for the time since the one before it, if that was no longer ago than this; else there is a gap."""
FIRST_S = 0.5
"""What a sample after a gap stands for."""
HOUR_S = 3600.0
CROWD = 1_000
"""With more agents than this, each keeps less."""


class Figure(IntEnum):
    """Columns of a row. The first three are gauges, the others amounts since the row before."""

    CPU = 0
    MEMORY = 1
    PROCESSES = 2
    IO = 3
    TOKENS = 4
    COST = 5


GAUGES = (Figure.CPU, Figure.MEMORY, Figure.PROCESSES)
_WINDOW_S = {Figure.IO: 2.0, Figure.TOKENS: 30.0, Figure.COST: 300.0}
"""Over how long a rate is a mean: amounts come in lumps."""


class Scale(NamedTuple):
    """Rows kept: samples, steps of 10 s, steps of 1 min."""

    samples: int
    tens: int
    minutes: int


FULL = Scale(240, 90, 60)
CROWDED = Scale(40, 30, 60)


def scale_for(agents: int) -> Scale:
    return FULL if agents <= CROWD else CROWDED


class Row(NamedTuple):
    at: float
    """Unix seconds."""
    cpu: float
    """Agents: of one core. Hosts: of all cores, 0..1."""
    memory: float
    processes: float
    io: float
    """Bytes read and written."""
    tokens: float
    cost: float
    """US dollars."""


class Span(NamedTuple):
    """A stretch of time and what was seen in it."""

    start: float
    end: float
    figures: tuple[float, ...]
    """By `Figure`."""


class Ring:
    """The newest rows, packed."""

    __slots__ = ("_bytes", "_next")
    _PACKED = struct.Struct("d6f")
    _FIGURE = struct.Struct("f")

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._next = 0
        """The oldest row, once the ring is full."""

    def __len__(self) -> int:
        return len(self._bytes) // self._PACKED.size

    def __getitem__(self, index: int) -> Row:
        """The row at `index` from the oldest, or from the newest when negative."""
        return Row(*self._PACKED.unpack_from(self._bytes, self._place(index)))

    def figure(self, index: int, figure: Figure) -> float:
        """One figure of the row at `index`."""
        return self._FIGURE.unpack_from(self._bytes, self._place(index) + 8 + 4 * figure)[0]

    def _place(self, index: int) -> int:
        count = len(self)
        if not -count <= index < count:
            raise IndexError(index)
        return (self._next + index) % count * self._PACKED.size

    def rows(self) -> list[Row]:
        found = [Row(*row) for row in self._PACKED.iter_unpack(self._bytes)]
        return found[self._next :] + found[: self._next]

    def append(self, row: tuple[float, ...], capacity: int) -> None:
        """Add a `Row`; beyond `capacity` the oldest goes."""
        count = len(self._bytes) // self._PACKED.size
        if count == capacity:
            self._PACKED.pack_into(self._bytes, self._next * self._PACKED.size, *row)
            self._next = (self._next + 1) % capacity
            return
        if self._next or count > capacity:
            self._straighten(capacity)
        self._bytes += self._PACKED.pack(*row)

    def _straighten(self, capacity: int) -> None:
        """The oldest row first, with room for one more below `capacity`."""
        cut = self._next * self._PACKED.size
        straight = self._bytes[cut:] + self._bytes[:cut]
        self._bytes = straight[max(0, len(self) - capacity + 1) * self._PACKED.size :]
        self._next = 0


class Column(Sequence[float]):
    """One figure of all samples, oldest first."""

    def __init__(self, ring: Ring, figure: Figure) -> None:
        self._ring = ring
        self._figure = figure

    def __len__(self) -> int:
        return len(self._ring)

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> list[float]: ...
    def __getitem__(self, index: int | slice) -> float | list[float]:
        if isinstance(index, slice):
            return list(self)[index]
        return self._ring.figure(index, self._figure)

    def __iter__(self) -> Iterator[float]:
        return (row[self._figure + 1] for row in self._ring.rows())


class History:
    __slots__ = ("_cost", "_io", "_last", "_minutes", "_samples", "_tens", "_tokens")

    def __init__(self) -> None:
        self._samples, self._tens, self._minutes = Ring(), Ring(), Ring()
        self._tokens = self._cost = 0.0
        """Spent since the last sample."""
        self._io: float | None = None
        self._last: float | None = None
        """When the last sample was."""

    def spend(self, tokens: int, cost_usd: float) -> None:
        """A model call has ended; the next sample carries it."""
        self._tokens += tokens
        self._cost += cost_usd

    def add(self, at: float, cpu: float, memory: float, processes: float, io: float, scale: Scale) -> None:
        """A sample. `at`: Unix seconds. `io`: bytes read and written since the run began."""
        last = self._last
        if last is not None and at < last:
            if last - at < 60:
                return
            # The clock was set back: nothing before has a place on this time axis.
            self._samples, self._tens, self._minutes = Ring(), Ring(), Ring()
            last = None
        followed = last is not None and at - last <= HOLD_S
        turned = last is not None and at // 10 != last // 10
        if turned and last is not None:
            self._close(last, scale)
        # What was used while nobody looked belongs to no moment that is drawn.
        moved = io - self._io if followed and self._io is not None and io > self._io else 0.0
        tokens, cost = (self._tokens, self._cost) if followed or last is None else (0.0, 0.0)
        self._last, self._io, self._tokens, self._cost = at, io, 0.0, 0.0
        self._samples.append((at, cpu, memory, processes, moved, tokens, cost), scale.samples)
        if turned and last is not None and at // 60 != last // 60:
            self._minutes.append(_joined(_newest(self._tens, lambda row: row.at // 60 == last // 60)), scale.minutes)

    def _close(self, last: float, scale: Scale) -> None:
        self._tens.append(_joined(_newest(self._samples, lambda row: row.at // 10 == last // 10)), scale.tens)

    def column(self, figure: Figure) -> Column:
        """A figure of the samples themselves (the last two minutes)."""
        return Column(self._samples, figure)

    def spans(self) -> list[Span]:
        """All that is known, oldest first, at the finest step that is still there; they do not overlap."""
        samples = self._samples.rows()
        newest = _sample_spans(samples)
        middle = _steps(self._tens.rows(), 10.0, newest[0].start if newest else None)
        first = middle or newest
        return [*_steps(self._minutes.rows(), 60.0, first[0].start if first else None), *middle, *newest]


def _newest(ring: Ring, wanted: Callable[[Row], bool]) -> list[Row]:
    """The rows at the ring's end for which `wanted` holds."""
    found: list[Row] = []
    for index in range(1, len(ring) + 1):
        row = ring[-index]
        if not wanted(row):
            break
        found.append(row)
    return found


def _joined(rows: Sequence[Row]) -> Row:
    """One row for all, newest first: peaks of gauges, sums of amounts."""
    columns = list(zip(*rows, strict=True))
    return Row(*(max(column) for column in columns[:4]), *(sum(column) for column in columns[4:]))


def _sample_spans(rows: Iterable[Row]) -> list[Span]:
    spans: list[Span] = []
    last = float("-inf")
    for row in rows:
        start = last if row.at - last <= HOLD_S else row.at - FIRST_S
        spans.append(Span(start, row.at, row[1:]))
        last = row.at
    return spans


def _steps(rows: Iterable[Row], step: float, until: float | None) -> list[Span]:
    """Spans of a step each; what lies after `until` is told by finer ones."""
    spans: list[Span] = []
    last = float("-inf")
    for row in rows:
        start, end = row.at // step * step, row.at
        # The first sample of a step stands for the time since the last one of the step before.
        start, last = (last if start - last <= HOLD_S else start), end
        kept = end if until is None else min(end, until)
        if kept > start:
            share = (kept - start) / (end - start)
            spans.append(Span(start, kept, (*row[1:4], *(amount * share for amount in row[4:]))))
    return spans


def resample(
    spans: Sequence[Span], figure: Figure, end: float, window_s: float, columns: int
) -> list[float | None]:  # fmt: skip
    """`columns` values up to `end`: peaks of a gauge, or an amount a second (cost: an hour). None: nothing known."""
    if columns <= 0:
        return []
    width = window_s / columns
    begin = end - window_s
    peaks: list[float | None] = [None] * columns
    for span in spans:
        if span.end <= begin or span.start >= end:
            continue
        first = max(0, int((span.start - begin) / width))
        # A span that ends on the border of a column is not in the next one.
        final = min(columns - 1, max(first, -int(-(span.end - begin) // width) - 1))
        for column in range(first, final + 1):
            before = peaks[column]
            peaks[column] = span.figures[figure] if before is None else max(before, span.figures[figure])
    if figure in GAUGES:
        return peaks
    over = max(_WINDOW_S[figure], width)
    unit = HOUR_S if figure is Figure.COST else 1.0
    total = _Total(spans, figure)
    # The newest column may have begun just now: a rate is a mean over what was seen.
    last = spans[-1].end if spans else end
    ends = (min(begin + (column + 1) * width, last) for column in range(columns))
    return [
        None if peak is None else (total.at(until) - total.at(until - over)) / over * unit
        for peak, until in zip(peaks, ends, strict=True)
    ]  # fmt: skip


class _Total:
    """The running sum of an amount, at any time."""

    def __init__(self, spans: Sequence[Span], figure: Figure) -> None:
        self._spans = spans
        self._figure = figure
        self._ends = [span.end for span in spans]
        self._sums = [0.0]
        for span in spans:
            self._sums.append(self._sums[-1] + span.figures[figure])

    def at(self, when: float) -> float:
        index = bisect_right(self._ends, when)
        if index == len(self._spans) or when <= self._spans[index].start:
            return self._sums[index]
        span = self._spans[index]
        return self._sums[index] + span.figures[self._figure] * (when - span.start) / (span.end - span.start)
