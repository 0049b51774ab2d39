"""Following the chain: the first record that is not as it was written, and what is wrong with it.

One pass, in order, in constant memory. It is given what there is (`Chain`, from a database or an exported file) and
says what it found; it changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from toka_runtime.audit.chain import BEGIN, Checkpoint, Dropped, Gap, Head, link
from toka_runtime.audit.key import AuditKey, PublicKey

PROBLEMS_MOST = 100
"""That many are told one by one; the rest are counted."""


class Fault(StrEnum):
    EDIT = "edit"
    DELETION = "deletion"
    INSERTION = "insertion"
    REORDERING = "reordering"
    TRUNCATION = "truncated tail"
    ROLLBACK = "rollback"
    REWRITE = "rewrite"
    """The chain is whole, but is not the one that was signed or seen."""
    SIGNATURE = "signature"
    """A statement about the chain is not signed by its key."""
    FORMAT = "format"


class Problem(NamedTuple):
    fault: Fault
    seq: int
    """The first record concerned; 0: none can be named."""
    line: int
    """In an exported file; 0 in a database."""
    message: str


class Link(NamedTuple):
    """A record as it was found. `hash` None: it has none."""

    seq: int
    record: bytes
    """Its line, as `chain.record_line` writes it."""
    hash: bytes | None
    line: int = 0


@dataclass(slots=True)
class Chain:
    """What there is to be verified."""

    links: Iterable[Link]
    checkpoints: Sequence[Checkpoint]
    dropped: Sequence[Dropped]
    public: PublicKey
    head: Head | None
    """What is said beside the records to be the last; None: nothing is said."""
    seal: bytes = b""
    omitted: Sequence[Gap] = ()
    """Left out by an export, which is signed as a whole."""
    before: Head | None = None
    """An export may begin in the middle: where the chain stood then."""


@dataclass(slots=True)
class Report:
    problems: list[Problem] = field(default_factory=list[Problem])
    more_problems: int = 0
    records: int = 0
    """Followed, each with a good hash unless there are problems."""
    unchained: int = 0
    """From before the chain began: nothing is proven about them."""
    dropped: int = 0
    """Taken by retention, which signed for it."""
    omitted: int = 0
    head: Head | None = None
    signed_seq: int = 0
    """The last record that a signature covers."""
    signed_at: int = 0
    sealed: bool | None = None
    """The records after that are covered by the seal. None: that cannot be told without the key."""
    public_key: str = ""

    @property
    def good(self) -> bool:
        return not self.problems

    @property
    def unsigned(self) -> int:
        """Records after the last signature."""
        return max(0, self.head.seq - self.signed_seq) if self.head is not None else 0

    def add(self, fault: Fault, message: str, *, seq: int = 0, line: int = 0) -> None:
        if len(self.problems) < PROBLEMS_MOST:
            self.problems.append(Problem(fault, seq, line, message))
        else:
            self.more_problems += 1


def verify(chain: Chain, *, key: AuditKey | None = None, seen: Iterable[tuple[Head, str]] = ()) -> Report:
    """`key`, when it is at hand, checks the seal of the head. `seen` are heads that somebody has seen, and who: each
    must be in this log."""
    return _Verification(chain, key, seen).run()


class _Verification:
    def __init__(self, chain: Chain, key: AuditKey | None, seen: Iterable[tuple[Head, str]]) -> None:
        self._chain = chain
        self._key = key
        self._report = Report(public_key=str(chain.public))
        self._claims = sorted(
            [(point.seq, point.hash, "the signed checkpoint") for point in chain.checkpoints if point.what != BEGIN]
            + [(head.seq, head.hash, who) for head, who in seen]
        )
        """What the chain is said to have been at some places, in order of these."""
        self._claim = 0
        self._gaps: dict[int, Gap] = {}
        self._before: bytes = b""
        self._expected = 0
        self._chained_from = 0

    def run(self) -> Report:
        report = self._report
        self._check_signatures()
        self._begin()
        held: Link | None = None
        for found in self._chain.links:
            if held is not None:
                self._take(held, found)
            held = found
        if held is not None:
            self._take(held, None)
        self._skip_gaps()
        report.head = Head(self._expected - 1, self._before)
        self._check_end(report.head)
        report.problems.sort(key=lambda problem: (problem.seq or 2**62, problem.line))
        return report

    # -- what is signed -----------------------------------------------------------------------------------------------

    def _check_signatures(self) -> None:
        report, public = self._report, self._chain.public
        if self._key is not None and self._key.public.raw != public.raw:
            report.add(Fault.SIGNATURE, "the public key that goes with the log is not that of the audit key")
        for point in self._chain.checkpoints:
            if not public.signed(point.statement(), point.signature):
                report.add(
                    Fault.SIGNATURE, f"the checkpoint at {point.seq} is not signed by the log's key", seq=point.seq
                )
            elif point.seq >= report.signed_seq:
                report.signed_seq, report.signed_at = point.seq, point.at
        gaps: list[Gap] = list(self._chain.omitted)
        for dropped in self._chain.dropped:
            if public.signed(dropped.statement(), dropped.signature):
                gaps += dropped.gaps
            else:
                report.add(
                    Fault.SIGNATURE,
                    f"what retention is said to have taken in block {dropped.block} is not signed by the log's key",
                    seq=dropped.gaps[0].first if dropped.gaps else 0,
                )
        self._gaps = {gap.first: gap for gap in gaps}
        report.omitted = sum(gap.last - gap.first + 1 for gap in self._chain.omitted)

    def _begin(self) -> None:
        begins = [point for point in self._chain.checkpoints if point.what == BEGIN]
        if len(begins) != 1:
            self._report.add(
                Fault.DELETION if not begins else Fault.SIGNATURE,
                "the signed beginning of the chain is missing" if not begins else "the chain has two beginnings",
            )
        if begins:
            self._chained_from = begins[0].seq + 1
        if self._chain.before is not None:
            start = self._chain.before
        elif begins:
            start = Head(begins[0].seq, begins[0].hash)
        else:
            start = Head(0, b"")
        self._expected, self._before = start.seq + 1, start.hash
        if self._chain.before is not None:
            while self._claim < len(self._claims) and self._claims[self._claim][0] < start.seq:
                self._claim += 1
        self._compare(start)

    # -- one record after another -------------------------------------------------------------------------------------

    def _take(self, found: Link, following: Link | None) -> None:
        seq, record, stored, line = found
        report = self._report
        if seq < self._chained_from:
            if stored is None:
                report.unchained += 1
            else:
                report.add(Fault.EDIT, f"record {seq} lies before the chain but has a hash", seq=seq, line=line)
            return
        if stored is None:
            report.add(Fault.INSERTION, f"record {seq} has no hash: it was put in", seq=seq, line=line)
            return
        if seq != self._expected:
            self._skip_gaps()
        if seq < self._expected:
            report.add(
                Fault.INSERTION, f"record {seq} comes after {self._expected - 1}: it was put in", seq=seq, line=line
            )
            return
        if seq > self._expected:
            self._jump(found, following)
        elif link(self._before, record) != stored:
            report.add(Fault.EDIT, f"record {seq} is not what its hash was made of: it was edited", seq=seq, line=line)
        report.records += 1
        self._before, self._expected = stored, seq + 1
        if self._claim < len(self._claims) and self._claims[self._claim][0] <= seq:
            self._compare(Head(seq, stored))

    def _jump(self, found: Link, following: Link | None) -> None:
        first, last = self._expected, found.seq - 1
        if following is not None and following.seq == first:
            self._report.add(
                Fault.REORDERING,
                f"record {found.seq} stands before record {first}: their order was changed",
                seq=first,
                line=found.line,
            )
            return
        which = f"record {first} is" if first == last else f"records {first} to {last} are"
        self._report.add(Fault.DELETION, f"{which} missing", seq=first, line=found.line)

    def _skip_gaps(self) -> None:
        """Over what retention has taken and what an export has left out."""
        while (gap := self._gaps.pop(self._expected, None)) is not None:
            while self._claim < len(self._claims) and self._claims[self._claim][0] < gap.last:
                # What was seen in the middle of what is gone cannot be compared any more.
                self._claim += 1
            if gap.before != self._before:
                self._report.add(
                    Fault.REWRITE,
                    f"record {gap.first - 1} is not the one that what was signed for {gap.first} to {gap.last} goes on "
                    "from: it was written anew",
                    seq=gap.first - 1,
                )
            self._report.dropped += gap.last - gap.first + 1
            self._before, self._expected = gap.hash, gap.last + 1
            self._compare(Head(gap.last, gap.hash))

    def _compare(self, here: Head) -> None:
        """With what was signed and seen, up to here."""
        while self._claim < len(self._claims) and self._claims[self._claim][0] <= here.seq:
            seq, claimed, who = self._claims[self._claim]
            if seq == here.seq and claimed != here.hash:
                since = max((other for other, _, _ in self._claims[: self._claim] if other < seq), default=0) + 1
                self._report.add(
                    Fault.REWRITE,
                    f"the log up to record {seq} is not the one that {who} is about: it was written anew "
                    f"somewhere from record {since} on",
                    seq=since,
                )
            self._claim += 1

    # -- the end ------------------------------------------------------------------------------------------------------

    def _check_end(self, end: Head) -> None:
        chain, report = self._chain, self._report
        report.dropped -= report.omitted
        for seq, _, who in self._claims[self._claim :]:
            fault = Fault.TRUNCATION if who == "the signed checkpoint" else Fault.ROLLBACK
            report.add(fault, f"the log ends with record {end.seq}, but {who} is about record {seq}", seq=end.seq + 1)
        if chain.head is None:
            report.add(Fault.TRUNCATION, "nothing says where the log ends", seq=end.seq + 1)
            return
        if chain.head.seq > end.seq:
            message = f"the log ends with record {end.seq}; there were records up to {chain.head.seq}"
            report.add(Fault.TRUNCATION, message, seq=end.seq + 1)
        elif chain.head.seq < end.seq:
            message = f"the head is record {chain.head.seq}; what follows it was put in"
            report.add(Fault.INSERTION, message, seq=chain.head.seq + 1)
        elif chain.head.hash != end.hash:
            report.add(Fault.EDIT, f"the hash of the head is not that of record {end.seq}", seq=end.seq)
        if self._key is not None:
            report.sealed = self._key.sealed(chain.head, chain.seal)
            if not report.sealed:
                report.add(Fault.SIGNATURE, "the head was not sealed with the audit key", seq=chain.head.seq)


def clock_text(micros: int) -> str:
    """Local time, to the second."""
    return f"{datetime.fromtimestamp(micros / 1e6).astimezone():%Y-%m-%d %H:%M:%S}"
