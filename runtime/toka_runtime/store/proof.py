"""Verifying a log where it lies: a state folder or a copied file, also while a runtime writes it. Changes nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from toka_runtime.audit.chain import BEGIN, Head, Record, record_line
from toka_runtime.audit.key import AuditKey, PublicKey
from toka_runtime.audit.verify import Chain, Fault, Link, Report, verify
from toka_runtime.errors import StoreError
from toka_runtime.store.chain_rows import (
    read_checkpoints,
    read_dropped,
    read_records,
    stored_head,
    stored_public_key,
    witnessed_head,
)
from toka_runtime.store.schema import DATABASE, check_readable, open_reader, store_error

_text = partial(str, encoding="utf-8", errors="surrogateescape")


def database_of(place: Path) -> Path:
    """The log's file, of a state folder or of the file itself. Raises StoreError."""
    path = place / DATABASE if place.is_dir() else place
    if not path.is_file():
        raise StoreError(f"there is no event log at {place}", hint="name a state folder, or a copy of its events.db")
    return path


def open_proof(path: Path) -> sqlite3.Connection:
    """For reading all of it, whatever was done to it: text that is no UTF-8 is read, too. Raises StoreError."""
    connection = open_reader(path)
    try:
        check_readable(path, connection)
        connection.text_factory = _text
    except (sqlite3.Error, StoreError) as error:
        connection.close()
        raise store_error(path, error) if isinstance(error, sqlite3.Error) else error from error
    return connection


def verify_log(place: Path, *, public: PublicKey | None = None, seen: tuple[tuple[Head, str], ...] = ()) -> Report:
    """`public` is the key that the caller knows; None: the one that goes with the log is taken, which proves nothing
    against who could change that, too. A key file beside the log is used when it can be read. Raises StoreError for
    what is no log, is damaged or has no chain at all."""
    path = database_of(place)
    folder = path.parent
    try:
        key = AuditKey.load(folder)
    except FileNotFoundError:
        key = None
    if (witness := witnessed_head(folder)) is not None:
        seen = (*seen, (witness, "the head written beside the log"))
    with closing(open_proof(path)) as connection:
        try:
            # One moment of the log, whatever is written meanwhile.
            connection.execute("BEGIN")
            if not chained(connection):
                return _unchained(path, connection, key)
            return verify(chain_of(connection, public), key=key, seen=seen)
        except sqlite3.Error as error:
            raise store_error(path, error) from error


def verify_tail(connection: sqlite3.Connection, key: AuditKey) -> Report:
    """Only the end: what follows the last signature but one that lies before the head."""
    chain = chain_of(connection)
    head = chain.head.seq if chain.head is not None else 2**62
    start = max((point for point in chain.checkpoints if point.seq < head), key=lambda point: point.seq, default=None)
    if start is not None:
        chain.links = _links(connection, start.seq)
        chain.checkpoints = [point for point in chain.checkpoints if point.what == BEGIN or point.seq >= start.seq]
        chain.dropped = [dropped for dropped in chain.dropped if any(gap.last > start.seq for gap in dropped.gaps)]
        chain.before = Head(start.seq, start.hash)
    return verify(chain, key=key)


def chain_of(connection: sqlite3.Connection, public: PublicKey | None = None) -> Chain:
    """Of a log that has one."""
    head, seal = stored_head(connection)
    return Chain(
        links=_links(connection, 0),
        checkpoints=read_checkpoints(connection),
        dropped=read_dropped(connection),
        public=public or PublicKey.from_text(stored_public_key(connection)),
        head=head,
        seal=seal,
    )


def chained(connection: sqlite3.Connection) -> bool:
    tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'audit_checkpoints'").fetchone()[0]
    return bool(tables) and bool(stored_public_key(connection))


def _unchained(path: Path, connection: sqlite3.Connection, key: AuditKey | None) -> Report:
    count: int = connection.execute("SELECT count(*) FROM events").fetchone()[0]
    report = Report(unchained=count)
    if key is not None:
        report.add(Fault.DELETION, f"the hash chain of {path} was taken away: its key is there, the chain is not")
    else:
        report.add(Fault.DELETION, f"{path} has no hash chain: it is of an older version, or the chain was taken away")
    return report


def _links(connection: sqlite3.Connection, after_seq: int) -> Iterator[Link]:
    for record, hashed in read_records(connection, after_seq):
        yield Link(record.seq, _line(record), hashed if isinstance(hashed, bytes) else None)


def _line(record: Record) -> bytes:
    """Empty for a row of which no record can be made: its hash then does not fit."""
    at: Any = record.at
    if not isinstance(at, int):
        return b""
    try:
        return record_line(record)
    except TypeError:
        return b""
