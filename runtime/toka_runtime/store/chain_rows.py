"""What stands in the log about its hash chain, read back and not judged: `toka_runtime.audit.verify` does that."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from toka_runtime.audit.chain import BEGIN, Checkpoint, Dropped, Gap, Head, Record, head_from
from toka_runtime.errors import StoreError
from toka_runtime.store.schema import BLOCK_BITS, get_meta

_GAP = struct.Struct(">QQ32s32s")
HEAD_KEY, PUBLIC_KEY = "audit_head", "audit_public_key"
WITNESS = "audit.head"
"""A file beside the log with the last head that was signed: a log that was put back from an older copy lacks it."""


def begin_of(connection: sqlite3.Connection) -> Checkpoint | None:
    return next((point for point in read_checkpoints(connection) if point.what == BEGIN), None)


def read_checkpoints(connection: sqlite3.Connection) -> list[Checkpoint]:
    rows = connection.execute("SELECT what, seq, at, hash, signature FROM audit_checkpoints ORDER BY seq, what")
    return [Checkpoint(what, seq, at, _blob(hashed), _blob(signature)) for what, seq, at, hashed, signature in rows]


def read_dropped(connection: sqlite3.Connection, block: int | None = None) -> list[Dropped]:
    rows = connection.execute(
        "SELECT block, at, gaps, signature FROM audit_dropped WHERE ?1 IS NULL OR block = ?1 ORDER BY block", (block,)
    )
    return [Dropped(block, at, _gaps(_blob(gaps)), _blob(signature)) for block, at, gaps, signature in rows]


def stored_head(connection: sqlite3.Connection) -> tuple[Head | None, bytes]:
    """The head that the last commit left, with its seal. None when it is missing or no head."""
    try:
        place, digits = get_meta(connection, HEAD_KEY).split(" ")
        head, seal = head_from(place), bytes.fromhex(digits)
        return (head, seal) if seal.hex() == digits else (None, b"")
    except (StoreError, ValueError):
        return None, b""


def stored_public_key(connection: sqlite3.Connection) -> str:
    return get_meta(connection, PUBLIC_KEY)


def witnessed_head(folder: Path) -> Head | None:
    """The last head that was signed, as the file beside the log tells it."""
    try:
        return head_from((folder / WITNESS).read_text(encoding="ascii", errors="replace"))
    except FileNotFoundError:
        return None


def hash_at(connection: sqlite3.Connection, seq: int) -> bytes | None:
    """The chain's hash at a record; None when it is not there, unchained or in the middle of a gap."""
    row = connection.execute("SELECT hash FROM events WHERE seq = ?", (seq,)).fetchone()
    if row is not None:
        return None if row[0] is None else bytes(row[0])
    for dropped in read_dropped(connection, seq >> BLOCK_BITS):
        if (hashed := next((gap.hash for gap in dropped.gaps if gap.last == seq), None)) is not None:
            return hashed
    begin = begin_of(connection)
    return begin.hash if begin is not None and begin.seq == seq else None


def read_records(connection: sqlite3.Connection, after_seq: int = 0) -> Iterator[tuple[Record, bytes | None]]:
    """All of them, in order, each with its hash."""
    statement = "SELECT seq, at, host, agent, run, kind, body, hash FROM events NOT INDEXED WHERE seq > ? ORDER BY seq"
    for row in connection.execute(statement, (after_seq,)):
        yield Record(*row[:7]), row[7]


def packed(gaps: Iterable[Gap]) -> bytes:
    return b"".join(_GAP.pack(*gap) for gap in gaps)


def _gaps(raw: bytes) -> tuple[Gap, ...]:
    """What is no list of gaps is none: its signature then does not fit."""
    return tuple(Gap(*fields) for fields in _GAP.iter_unpack(raw)) if len(raw) % _GAP.size == 0 else ()


def _blob(value: Any) -> bytes:
    return value if isinstance(value, bytes) else b""
