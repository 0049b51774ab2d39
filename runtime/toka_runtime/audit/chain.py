"""The hash chain over the event log: every record's hash covers the record and the hash before it.

    hash = SHA-256(hash of the record before || the record as one line of ASCII JSON)

The hash needs no secret, so that another machine can follow the chain. What makes it binding are statements about it:
the head is sealed with HMAC-SHA-256 in every commit (`AuditKey.seal`, for whoever holds the key), and every so often it
is signed with Ed25519 (`Checkpoint`, for whoever holds the public key). Whoever changes a record would have to make all
hashes after it again, and could make neither seal nor signature again.

Retention takes records out of the middle of the log (output first). What it took is said by a signed `Dropped`: the
chain's hash at both ends of each gap, from which it can be followed on. Records from before there was a chain have no
hash: they are *unchained*, and the signed `BEGIN` says where the chain begins.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterable
from json.encoder import encode_basestring_ascii as _string  # pyright: ignore[reportUnknownVariableType]
from typing import Any, Literal, NamedTuple

from toka_runtime.errors import StoreError

BEGIN: Literal["begin"] = "begin"
HEAD: Literal["head"] = "head"


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return _string(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error("toka-json-ascii", _escape)


class Record(NamedTuple):
    """A row of the event log. `body` is the event's JSON, `at` microseconds since 1970 (UTC)."""

    seq: int
    at: int
    host: str
    agent: str | None
    run: str | None
    kind: str
    body: str


class Head(NamedTuple):
    """The end of the chain, or where it stood once. `hash` has 32 bytes."""

    seq: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash.hex()}"


def head_from(text: str) -> Head:
    """Of `seq:hash`, as `audit head` prints it. Raises StoreError."""
    seq, _, digest = text.strip().partition(":")
    try:
        head = Head(int(seq), bytes.fromhex(digest))
        if len(head.hash) != 32 or str(head) != text.strip():
            raise ValueError
    except ValueError:
        raise StoreError(
            f"{text.strip()[:100]!r} is no head of a chain", hint="give SEQ:HASH, as `audit head` prints it"
        ) from None
    return head


class Gap(NamedTuple):
    """Records `first` to `last` are gone; `before` is the hash of the one before them, `hash` that of `last`. Both ends
    are said, or nothing would hold what stands between two gaps."""

    first: int
    last: int
    before: bytes
    hash: bytes

    def as_json(self) -> list[int | str]:
        return [self.first, self.last, self.before.hex(), self.hash.hex()]

    @classmethod
    def from_json(cls, raw: Any) -> Gap:
        """Raises ValueError, TypeError."""
        first, last, before, hashed = raw
        return cls(int(first), int(last), bytes.fromhex(before), bytes.fromhex(hashed))


class Checkpoint(NamedTuple):
    """Signed: the chain's hash at `seq` was `hash`. `what` is HEAD, or BEGIN for the place where the chain begins:
    `seq` is then the last unchained record (0: none), `hash` the random one that the first record goes on from."""

    what: str
    seq: int
    at: int
    hash: bytes
    signature: bytes = b""

    def statement(self) -> bytes:
        return statement("checkpoint", self.what, self.seq, self.at, self.hash.hex())


class Dropped(NamedTuple):
    """Signed: retention took these records out of one block of the log. Gaps are in order and do not touch."""

    block: int
    at: int
    gaps: tuple[Gap, ...]
    signature: bytes = b""

    def statement(self) -> bytes:
        return statement("dropped", self.block, self.at, [gap.as_json() for gap in self.gaps])


def statement(*words: Any) -> bytes:
    """What a signature is made over: one line, and no two things that are said have the same."""
    return json.dumps(["toka audit 1", *words], separators=(",", ":")).encode("ascii")


def record_line(record: Record) -> bytes:
    """One line of ASCII JSON, without its newline. Text beyond ASCII is escaped; the body is else as it is."""
    seq, at, host, agent, run, kind, body = record
    text = (
        f'{{"seq":{seq},"at":{at},"host":{_string(host)},"agent":{"null" if agent is None else _string(agent)},'
        f'"run":{"null" if run is None else _string(run)},"kind":{_string(kind)},"body":{body}}}'
    )
    return text.encode("ascii", "toka-json-ascii")


def link(before: bytes, line: bytes) -> bytes:
    """The hash of the record whose line this is."""
    return hashlib.sha256(before + line).digest()


def merged(gaps: Iterable[Gap]) -> tuple[Gap, ...]:
    """In order, those that touch made one."""
    joined: list[Gap] = []
    for gap in sorted(gaps):
        if joined and joined[-1].last + 1 == gap.first:
            joined[-1] = joined[-1]._replace(last=gap.last, hash=gap.hash)
        else:
            joined.append(gap)
    return tuple(joined)
