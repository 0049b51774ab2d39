"""The audit trail as a list, newest last, that follows until the operator looks further up. Gaps are rows."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from toka_console.filters import Filter
from toka_console.format import trail_text, units
from toka_console.format.cells import Row
from toka_console.panes.columns import Column
from toka_console.panes.table import TablePane
from toka_console.trail import Gap, Record, Trail

if TYPE_CHECKING:
    from toka_runtime.protocol.ids import HostId

_COLUMNS = (
    Column("time", "TIME", 8, 8, rank=1),
    Column("host", "HOST", 6, 10, 16, rank=7),
    Column("agent", "AGENT", 10, 20, 30, rank=2),
    Column("kind", "KIND", 8, 9, rank=3),
    Column("actor", "ACTOR", 10, 18, 28, rank=6),
    Column("what", "WHAT", 20, 60, weight=1, rank=0),
)
_NEAR = 20
"""A gap is filled when it is so many rows from what is in view."""
_EARLY = datetime.min.replace(tzinfo=UTC)


class TrailKey(NamedTuple):
    host: HostId
    seq: int
    """Of a gap: the number that it comes after."""
    gap: Gap | None = None


class TrailTable(TablePane[TrailKey]):
    columns = _COLUMNS
    following = True
    """The cursor stays with what is newest."""
    reading: Gap | None = None
    chain = "unavailable"
    """What the check of the hash chain says."""
    _known: Hashable = None
    _version = -1
    _made: Sequence[TrailKey] = ()
    _seen = 0
    """Records of the only trail that have been made rows."""
    held: dict[TrailKey, Record] = {}  # noqa: RUF012 replaced, never changed, by `rows`

    def heading(self) -> tuple[str, str]:
        chosen, shown = self._filter(), len(self.held)
        title = f"Timeline {shown:,}" + (f"  /{chosen.source}" if chosen else "")
        mode = "following" if self.following else "paused: G follows"
        return title, f"{mode} · chain: {self.chain}"

    def empty(self) -> str:
        if chosen := self._filter():
            return f"no record matches /{chosen.source}\nesc clears the filter"
        return "nothing was recorded"

    def visible_columns(self) -> Sequence[Column]:
        state = self.session.state
        return [each for each in _COLUMNS if each.id != "host" or (state is not None and len(state.hosts) > 1)]

    # -- rows -----------------------------------------------------------------------------------------------------

    def rows(self) -> Sequence[TrailKey]:
        state = self.session.state
        if state is None:
            return ()
        chosen, now = _within(self._filter()), self.session.now()
        trails = [(host, entry.trail) for host, entry in state.hosts.items()]
        known = (
            tuple((host, trail.shifts) for host, trail in trails),
            chosen,
            int(now.timestamp()) if chosen.compares else 0,
        )
        version = sum(trail.version for _, trail in trails)
        if (known, version) == (self._known, self._version):
            return self._made
        if known == self._known and len(trails) == 1:
            made = list(self._made)
        else:
            made, self.held, self._seen = [], {}, 0
        self._known, self._version = known, version
        each = [self._of_host(host, trail, chosen, now) for host, trail in trails]
        made += (key for _, key in (each[0] if len(each) == 1 else heapq.merge(*each, key=lambda row: row[0])))
        self._made = made
        return made

    def _of_host(
        self, host: HostId, trail: Trail, chosen: Filter, now: datetime
    ) -> Iterator[tuple[datetime, TrailKey]]:
        """What is new of a trail that was seen, or all of it: rows with their times."""
        seen, self._seen = self._seen, len(trail.records)
        gaps = iter(trail.gaps if not seen else ())
        gap, at = next(gaps, None), _EARLY
        for record in itertools.islice(trail.records, seen, None):
            envelope = record.envelope
            while gap is not None and gap.after < envelope.seq:
                yield at, TrailKey(host, gap.after, gap)
                gap = next(gaps, None)
            at = envelope.at
            if not chosen or chosen.matches(_fields(record, now)):
                key = TrailKey(host, envelope.seq)
                self.held[key] = record
                yield at, key
        while gap is not None:
            yield at, TrailKey(host, gap.after, gap)
            gap = next(gaps, None)

    def _filter(self) -> Filter:
        return self.session.filter("timeline")

    def selected(self) -> Record | None:
        return self.held.get(self.cursor) if self.cursor is not None else None

    def wanted(self) -> TrailKey | None:
        """The gap that the view has come near, newest first; None: nothing has to be read."""
        end = self.top + max(1, self.inner_height) + _NEAR
        near = self.order[max(0, self.top - _NEAR) : end]
        return next((key for key in reversed(near) if key.gap is not None), None)

    def around(self, change: Callable[[], None]) -> None:
        """Let rows come and go elsewhere, with what is in view staying where it is."""
        self.sync()
        anchor = next((key for key in self.order[self._index :] if key.gap is None), None)
        offset = self.order.index(anchor) - self.top if anchor is not None else 0
        change()
        if not self.following and anchor is not None:
            self.cursor = anchor
            self.order = ()
            super().sync()
            self.top = max(0, self._index - offset)
        self.sync()

    # -- cursor ---------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        if self.following:
            rows = self.rows()
            if rows and self.cursor != rows[-1]:
                self.cursor = rows[-1]
                self.order = ()
        super().sync()

    def _place(self, index: int) -> None:
        self.following = index >= len(self.order) - 1
        super()._place(index)

    def to_problem(self, step: int) -> bool:
        """To the next (1) or previous (-1) denial, failure or warning; False: there is none."""
        self.sync()
        index = self._index + step
        while 0 <= index < len(self.order):
            record = self.held.get(self.order[index])
            if record is not None and record.is_problem:
                self._place_by_hand(index)
                return True
            index += step
        return False

    # -- drawing --------------------------------------------------------------------------------------------------

    def version(self, key: TrailKey) -> Hashable:
        return self.reading is not None and key.gap == self.reading

    def cells(self, key: TrailKey, row: Row, layout: list[tuple[Column, int]]) -> None:
        palette = self.palette
        if key.gap is not None:
            size = key.gap.before - key.gap.after - 1
            text = "reading the log …" if key.gap == self.reading else "not read yet; enter reads on"
            row.add(f"⋯ up to {size:,} events {text} ", palette.muted).fill("┄", palette.faint)
            return
        record = self.held[key]
        envelope = record.envelope
        texts = {
            "time": (units.clock_time(envelope.at), palette.muted),
            "host": (envelope.host, self.session.host_style(envelope.host)),
            "agent": (envelope.agent or "", palette.base),
            "kind": (trail_text.group(envelope.event.kind), palette.accent),
            "actor": (trail_text.actor(envelope), palette.muted),
            "what": (record.line.text, palette.role(record.line.role)),
        }
        for column, width in layout:
            text, style = texts[column.id]
            row.add(text, style, width).gap()

    def invalidate(self) -> None:
        super().invalidate()
        self._known = None


def matching(records: Iterable[Record], chosen: Filter, now: datetime) -> list[Record]:
    """Those that the filter lets through."""
    chosen = _within(chosen)
    return [record for record in records if not chosen or chosen.matches(_fields(record, now))]


def _fields(record: Record, now: datetime) -> dict[str, str | float]:
    found = trail_text.fields(record.envelope, record.line.text)
    found["since"] = (now - record.envelope.at).total_seconds()
    return found


def _within(chosen: Filter) -> Filter:
    """`since:10m` means within the last ten minutes, not ten minutes ago to the second."""
    if not chosen.compares:
        return chosen
    terms = tuple(
        dataclasses.replace(
            term,
            comparisons=tuple(
                dataclasses.replace(each, sign="<=") if each.sign == "" else each for each in term.comparisons
            ),
        )
        for term in chosen.terms
    )
    return dataclasses.replace(chosen, terms=terms)
