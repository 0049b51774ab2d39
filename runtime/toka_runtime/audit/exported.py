"""An exported part of the chain: ASCII JSON lines that can be verified anywhere, with nothing but the public key.

    {"audit":"toka 1","public_key":…}
    {"checkpoint":[what,seq,at,hash,signature]} …      as they stand in the log
    {"dropped":[block,at,[[first,last,before,hash]…],signature]} …
    {"seq":…,"at":…,"host":…,"agent":…,"run":…,"kind":…,"body":{…},"hash":…} …     in order, and between them
    {"omitted":[first,last,before,hash]}               what the export leaves out; its hash leads on
    {"end":{"lines":…,"sha256":…,"head":"seq:hash","signature":…}}

A record's line without its hash is what the hash was made of (`chain.record_line`). The end signs all lines before it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from toka_runtime.audit.chain import BEGIN, Checkpoint, Dropped, Gap, Head, Record, head_from, record_line, statement
from toka_runtime.audit.key import AuditKey, PublicKey
from toka_runtime.audit.verify import Chain, Fault, Link, Report, verify
from toka_runtime.errors import StoreError

VERSION = "toka 1"
_RECORD = re.compile(rb'(\{"seq":([0-9]{1,18}),.*),"hash":(?:"([0-9a-f]{64})"|null)\}\n')
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


class ExportWriter:
    """Writes to a file opened for bytes; `end` last."""

    def __init__(self, file: IO[bytes], key: AuditKey) -> None:
        self._file = file
        self._key = key
        self._digest = hashlib.sha256()
        self._lines = 0
        self._head: Head | None = None
        self._omitted: Gap | None = None
        self._ends: dict[int, bytes] = {}
        """The chain's hash where it begins and at the end of what retention took."""
        self.records = 0
        self._put(_dump({"audit": VERSION, "public_key": str(key.public)}))

    def checkpoint(self, point: Checkpoint) -> None:
        if point.what == BEGIN:
            self._ends[point.seq] = point.hash
        self._put(_dump({"checkpoint": [point.what, point.seq, point.at, point.hash.hex(), point.signature.hex()]}))

    def dropped(self, dropped: Dropped) -> None:
        gaps = [gap.as_json() for gap in dropped.gaps]
        self._ends |= {gap.last: gap.hash for gap in dropped.gaps}
        self._put(_dump({"dropped": [dropped.block, dropped.at, gaps, dropped.signature.hex()]}))

    def record(self, record: Record, hashed: bytes | None) -> None:
        self._flush_omitted()
        tail = "null" if hashed is None else f'"{hashed.hex()}"'
        # Valid records have no control characters; whatever else is in the log must not end a line.
        line = _CONTROL.sub(b"?", record_line(record))
        self._put(line[:-1] + f',"hash":{tail}}}'.encode())
        self._came_to(record.seq, hashed)
        self.records += 1

    def omit(self, seq: int, hashed: bytes | None) -> None:
        """Leave a record out."""
        if hashed is None:
            return
        if self._omitted is not None and self._omitted.last + 1 == seq:
            self._omitted = self._omitted._replace(last=seq, hash=hashed)
        else:
            self._flush_omitted()
            follows = self._head is not None and self._head.seq == seq - 1
            before = self._head.hash if self._head is not None and follows else self._ends.get(seq - 1, b"")
            self._omitted = Gap(seq, seq, before, hashed)
        self._came_to(seq, hashed)

    def end(self, begin: Head) -> None:
        """`begin` is where the chain begins, for an export without any record."""
        self._flush_omitted()
        head = self._head or begin
        digest = self._digest.hexdigest()
        signature = self._key.sign(_end_statement(self._lines, digest, head))
        self._put(_end_line(self._lines, digest, head, signature))

    def _came_to(self, seq: int, hashed: bytes | None) -> None:
        if hashed is not None:
            self._head = Head(seq, hashed)

    def _flush_omitted(self) -> None:
        if (gap := self._omitted) is not None:
            self._omitted = None
            self._put(_dump({"omitted": gap.as_json()}))

    def _put(self, line: bytes) -> None:
        whole = line + b"\n"
        self._file.write(whole)
        self._digest.update(whole)
        self._lines += 1


@dataclass(slots=True)
class _Frame:
    """What stands around the records of a file."""

    report: Report = field(default_factory=Report)
    public: PublicKey | None = None
    checkpoints: list[Checkpoint] = field(default_factory=list[Checkpoint])
    dropped: list[Dropped] = field(default_factory=list[Dropped])
    omitted: list[Gap] = field(default_factory=list[Gap])
    head: Head | None = None
    signed: bool = False


def verify_export(path: Path, *, public: PublicKey | None = None, seen: Iterable[tuple[Head, str]] = ()) -> Report:
    """`public` is the key that the caller knows; None: the one in the file, which proves nothing against who could have
    written all of it. Raises StoreError for what is no export."""
    frame = _read_frame(path, public)
    trusted = public or frame.public
    if trusted is None:
        raise StoreError(f"{path} is no exported audit log", hint="`toka-runtime audit export -o FILE` makes one")
    with path.open("rb") as file:
        chain = Chain(_records(file), frame.checkpoints, frame.dropped, trusted, frame.head, omitted=frame.omitted)
        report = verify(chain, seen=seen)
    if frame.signed and report.head is not None:
        report.signed_seq = report.head.seq
    report.problems = sorted(report.problems + frame.report.problems, key=lambda problem: problem.line or 2**62)
    return report


def is_export(path: Path) -> bool:
    """It begins like one, or at least not like a database."""
    with path.open("rb") as file:
        return not file.read(16).startswith(b"SQLite format 3")


def _records(file: IO[bytes]) -> Iterator[Link]:
    for number, line in enumerate(file, 1):
        if (found := _RECORD.fullmatch(line)) is not None:
            record, seq, digest = found.groups()
            yield Link(int(seq), record + b"}", bytes.fromhex(digest.decode()) if digest else None, number)


def _read_frame(path: Path, public: PublicKey | None) -> _Frame:
    """One pass over the file for all that is no record."""
    frame = _Frame()
    digest = hashlib.sha256()
    number = 0
    ended = False
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if ended:
                frame.report.add(Fault.INSERTION, "there is something after the end", line=number)
                frame.signed = False
                break
            if line.startswith(b'{"end":'):
                ended = True
                _read_end(frame, line, number, digest.hexdigest(), public)
                continue
            digest.update(line)
            if _RECORD.fullmatch(line) is None:
                _read_meta(frame, line, number)
    if not ended:
        frame.report.add(Fault.TRUNCATION, "the file has no signed end: it was cut off", line=number + 1)
    return frame


def _read_meta(frame: _Frame, line: bytes, number: int) -> None:
    try:
        raw: Any = json.loads(line)
        if _dump(raw) + b"\n" != line:
            raise ValueError("written otherwise")
        match raw:
            case {"audit": str(version), "public_key": str(key)} if version == VERSION and number == 1:
                frame.public = PublicKey(bytes.fromhex(key))
            case {"checkpoint": [str(what), int(seq), int(at), str(hashed), str(signature)]}:
                frame.checkpoints.append(Checkpoint(what, seq, at, bytes.fromhex(hashed), bytes.fromhex(signature)))
            case {"dropped": [int(block), int(at), [*gaps], str(signature)]}:
                frame.dropped.append(Dropped(block, at, tuple(map(Gap.from_json, gaps)), bytes.fromhex(signature)))
            case {"omitted": [*gap]}:
                frame.omitted.append(Gap.from_json(gap))
            case _:
                raise ValueError("nothing known")
    except (ValueError, TypeError) as error:
        frame.report.add(Fault.FORMAT, f"line {number} is no line of an exported audit log: {error}", line=number)


def _read_end(frame: _Frame, line: bytes, number: int, digest: str, public: PublicKey | None) -> None:
    report, trusted = frame.report, public or frame.public
    try:
        raw: Any = json.loads(line)["end"]
        lines, said, signature = int(raw["lines"]), str(raw["sha256"]), bytes.fromhex(raw["signature"])
        head = head_from(raw["head"])
        if _end_line(lines, said, head, signature) + b"\n" != line:
            raise ValueError("written otherwise")
    except (ValueError, TypeError, KeyError, AttributeError, StoreError) as error:
        report.add(Fault.FORMAT, f"the end of the file is damaged: {error}", line=number)
        return
    frame.head = head
    if trusted is None or not trusted.signed(_end_statement(lines, said, head), signature):
        report.add(Fault.SIGNATURE, "the end of the file is not signed by the log's key", line=number)
    elif lines != number - 1 or said != digest:
        report.add(
            Fault.EDIT,
            f"the lines before the end are not those that were signed ({number - 1} lines; signed: {lines})",
            line=number,
        )
    else:
        frame.signed = True


def _end_statement(lines: int, digest: str, head: Head) -> bytes:
    return statement("export", lines, digest, str(head))


def _end_line(lines: int, digest: str, head: Head, signature: bytes) -> bytes:
    return _dump({"end": {"lines": lines, "sha256": digest, "head": str(head), "signature": signature.hex()}})


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")
