"""The audit trail of one host as far as it is held here: records in order, and gaps that stand for what is not. Pure.

The log is the truth; this is a window on it. It begins as one gap, is filled from the log where somebody looks, and
grows with the stream. When it is full, what is farthest from the place that grows becomes a gap again.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, get_args

from toka_console.format import trail_text
from toka_runtime.protocol import events as ev

MOST = 20_000
"""Records held."""
TRIM = 2_000
"""So many more than it has to are let go at once."""
PAGE = 500
"""Records that one read of the log brings."""
_KNOWN: tuple[type[ev.Event], ...] = get_args(get_args(ev.KnownEvent)[0])
KINDS = tuple(
    str(kind.model_fields["kind"].default) for kind in _KNOWN if kind.durable and kind is not ev.OutputAppended
)
"""What the log is asked for: all that it keeps, but output. A kind that this version does not know is shown when it
comes live; it cannot be asked for."""


class Gap(NamedTuple):
    """Events with after < seq < before may be in the log, and are not here."""

    after: int
    before: int


@dataclass(frozen=True, slots=True)
class Record:
    """A durable event with what is shown of it."""

    envelope: ev.Envelope
    line: trail_text.Line

    @property
    def is_problem(self) -> bool:
        """A denial, a failure, something that the operator should look at."""
        return self.line.role in ("warn", "bad")


@dataclass(slots=True)
class Trail:
    records: list[Record] = field(default_factory=list[Record])
    gaps: list[Gap] = field(default_factory=list[Gap])
    """In order; no two touch."""
    head: int = 0
    """Sequence number up to which everything is here or in a gap."""
    detached: bool = False
    """The newest records were let go: the last gap grows with the stream."""
    crowded: bool = False
    """Something was let go: what is read now takes the place of something else."""
    version: int = 0
    shifts: int = 0
    """Grows when something else happened than that records were appended."""

    def adopt(self, seq: int) -> None:
        """The host is at `seq`; how it came there was not seen. A lower number than before: another log."""
        if seq < self.head:
            self.records.clear()
            self.gaps.clear()
            self.head, self.detached, self.crowded = 0, False, False
        if seq == self.head:
            return
        after = self.gaps.pop().after if self.detached or self._gap_at_head() else self.head
        self.gaps.append(Gap(after, seq + 1))
        self.head = seq
        self._shifted()

    def add(self, envelope: ev.Envelope) -> None:
        """The next event of the stream. Samples and output are left out."""
        if not envelope.durable or envelope.seq <= self.head:
            return
        self.head = envelope.seq
        if self.detached:
            self.gaps[-1] = Gap(self.gaps[-1].after, self.head + 1)
            self._shifted()
        elif not isinstance(envelope.event, ev.OutputAppended):
            self.records.append(record_of(envelope))
            self.version += 1
            if len(self.records) > MOST:
                self._let_go_oldest()

    def reads_forward(self, gap: Gap) -> bool:
        """Whether what comes next of this gap is what follows it in time; else what precedes the record after it."""
        return self.detached and gap == self.gaps[-1]

    def fill(self, gap: Gap, envelopes: Iterable[ev.Envelope], *, forward: bool, more: bool) -> None:
        """Put in what the log has there; `more`: it has still more, beyond these; `forward`: they were read
        forward. A gap that changed meanwhile is left as it is, but for one that the stream made longer."""
        place = next((place for place, each in enumerate(self.gaps) if each.after == gap.after), None)
        if place is None:
            return
        now = self.gaps[place]
        tail = self.reads_forward(now)
        if (now.before < gap.before) if forward else (now != gap or tail):
            return
        found = sorted((each for each in envelopes if gap.after < each.seq < gap.before), key=lambda each: each.seq)
        if more and found:
            self.gaps[place] = Gap(found[-1].seq, now.before) if forward else Gap(gap.after, found[0].seq)
        elif now.before > gap.before:
            self.gaps[place] = Gap(gap.before - 1, now.before)
        else:
            del self.gaps[place]
            self.detached = self.detached and not tail
        at = bisect.bisect_right(self.records, gap.after, key=_seq)
        self.records[at:at] = [record_of(each) for each in found]
        if len(self.records) > MOST:
            if forward:
                self._let_go_oldest()
            else:
                self._let_go_newest()
        self._shifted()

    # -- letting go -----------------------------------------------------------------------------------------------

    def _gap_at_head(self) -> bool:
        return bool(self.gaps) and self.gaps[-1].before == self.head + 1

    def _let_go_oldest(self) -> None:
        kept = self.records[len(self.records) - MOST + TRIM :]
        first = kept[0].envelope.seq
        self.gaps = [Gap(0, first), *(gap for gap in self.gaps if gap.after >= first)]
        self.records, self.crowded = kept, True
        self._shifted()

    def _let_go_newest(self) -> None:
        kept = self.records[: MOST - TRIM]
        last = kept[-1].envelope.seq
        self.gaps = [*(gap for gap in self.gaps if gap.before <= last), Gap(last, self.head + 1)]
        self.records, self.detached, self.crowded = kept, True, True
        self._shifted()

    def _shifted(self) -> None:
        self.shifts += 1
        self.version += 1


def _seq(record: Record) -> int:
    return record.envelope.seq


def record_of(envelope: ev.Envelope) -> Record:
    """The event with its line."""
    return Record(envelope, trail_text.line(envelope))
