"""The event log's hash chain where it is written and read: `toka_runtime.audit` says what it is."""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from toka_runtime.audit.chain import (
    BEGIN,
    HEAD,
    Checkpoint,
    Dropped,
    Gap,
    Head,
    Record,
    link,
    merged,
    record_line,
)
from toka_runtime.audit.key import KEY_FILE, AuditKey
from toka_runtime.errors import StoreError
from toka_runtime.protocol.events import Level, Noticed
from toka_runtime.store.chain_rows import (
    HEAD_KEY,
    PUBLIC_KEY,
    WITNESS,
    begin_of,
    hash_at,
    packed,
    read_dropped,
    stored_head,
    witnessed_head,
)
from toka_runtime.store.proof import verify_tail
from toka_runtime.store.rows import to_micros
from toka_runtime.store.schema import BLOCK_BITS, get_meta, set_meta

SIGN_RECORDS = 1000
SIGN_S = 10.0
"""A checkpoint is signed after so many records, or so long after the last one when there is anything new."""


class ChainKeeper:
    """The writer's side; used in its thread. What `extend` adds counts once `committed` is called."""

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        """Begins the chain when there is none: what is in the log then stays unchained. Raises StoreError: without the
        key that the log was chained with, it is not written."""
        self.findings: list[Noticed] = []
        """What the operator should know about how the log was found."""
        self._witness = folder / WITNESS
        last: int = connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0]
        begun = begin_of(connection) is not None
        self._key = _key_of(folder, get_meta(connection, PUBLIC_KEY) if begun else None)
        if not begun:
            self._begin(connection, last)
        head, _ = stored_head(connection)
        if head is None:
            # Somebody took it away; the records still tell where to go on, and `verify` tells what is wrong.
            head = Head(last, hash_at(connection, last) or bytes(32))
        # Behind whatever was put in, and never a number twice: what is missing stays to be seen.
        self.head = Head(max(head.seq, last), head.hash)
        self._next = self.head
        self._signed: int = connection.execute("SELECT coalesce(max(seq), 0) FROM audit_checkpoints").fetchone()[0]
        self._signed_at = time.monotonic()
        self._signing: Checkpoint | None = None
        if begun:
            self._look_back(folder, connection)

    def _begin(self, connection: sqlite3.Connection, last: int) -> None:
        begin = Head(last, secrets.token_bytes(32))
        connection.execute("BEGIN IMMEDIATE")
        set_meta(connection, PUBLIC_KEY, str(self._key.public))
        self._save_checkpoint(connection, BEGIN, begin, time.time_ns() // 1000)
        self._save_head(connection, begin)
        connection.execute("COMMIT")

    def _look_back(self, folder: Path, connection: sqlite3.Connection) -> None:
        """At what was written since the last signature: a runtime that was killed did not sign its last records."""
        report = verify_tail(connection, self._key)
        for problem in report.problems:
            self._find(Level.ERROR, "audit.altered", f"the log was altered: {problem.message}")
        if report.good and report.unsigned:
            self._find(
                Level.INFO,
                "audit.reopened",
                f"the log was not closed in order; its last {report.unsigned} records were checked and are whole, "
                "and what was half written is undone",
            )
        witnessed = witnessed_head(folder)
        if witnessed is not None and witnessed.seq > self.head.seq:
            self._find(
                Level.ERROR,
                "audit.rolled_back",
                f"the log ends with record {self.head.seq}, but record {witnessed.seq} was written and signed: "
                "a power failure took it, or an older copy was put in its place",
            )

    def _find(self, level: Level, code: str, message: str) -> None:
        hint = "" if level is Level.INFO else "see `toka-runtime audit verify`"
        self.findings.append(Noticed(level=level, code=code, message=message, hint=hint))

    @property
    def unsigned(self) -> bool:
        return self._signed < self.head.seq

    def begin_batch(self) -> None:
        """What an earlier batch added and did not commit is forgotten."""
        self._next, self._signing = self.head, None

    def extend(self, record: Record) -> bytes:
        """The hash of the record, which is the next."""
        hashed = link(self._next.hash, record_line(record))
        self._next = Head(record.seq, hashed)
        return hashed

    def save(self, connection: sqlite3.Connection, *, sign: bool) -> None:
        """The head and, when it is time or asked for, a signed checkpoint: in the transaction of the records."""
        head = self._next
        self._save_head(connection, head)
        due = head.seq - self._signed >= SIGN_RECORDS or time.monotonic() - self._signed_at >= SIGN_S
        if (due or sign) and head.seq > self._signed:
            self._signing = self._save_checkpoint(connection, HEAD, head, time.time_ns() // 1000)

    def committed(self) -> None:
        self.head = self._next
        if (signed := self._signing) is not None:
            self._signing, self._signed, self._signed_at = None, signed.seq, time.monotonic()
            with suppress(OSError):
                # A full disk is told where records can't be written; the next one may fit again.
                _replace(self._witness, f"{self.head}\n")

    def drop(self, connection: sqlite3.Connection, gone: Iterable[tuple[int, bytes | None]], at: datetime) -> None:
        """Sign for records that retention has taken, in the transaction that deletes them. Raises StoreError, before
        anything is signed, where what was signed before is not as it was."""
        hashes = {seq: hashed for seq, hashed in gone if hashed is not None}
        blocks: dict[int, list[Gap]] = {}
        for seq, hashed in hashes.items():
            before = hashes.get(seq - 1) or hash_at(connection, seq - 1) or bytes(32)
            blocks.setdefault(seq >> BLOCK_BITS, []).append(Gap(seq, seq, before, hashed))
        for block, gaps in blocks.items():
            earlier = read_dropped(connection, block)
            for dropped in earlier:
                if not self._key.public.signed(dropped.statement(), dropped.signature):
                    raise StoreError(
                        f"block {block} of the audit chain was altered; retention leaves everything as it is",
                        hint="see what `toka-runtime audit verify` says",
                    )
                gaps += dropped.gaps
            now = Dropped(block, to_micros(at), merged(gaps))
            connection.execute(
                "INSERT OR REPLACE INTO audit_dropped(block, at, gaps, signature) VALUES (?, ?, ?, ?)",
                (block, now.at, packed(now.gaps), self._key.sign(now.statement())),
            )
            # A checkpoint in the middle of what is gone cannot be compared with anything any more.
            connection.executemany(
                "DELETE FROM audit_checkpoints WHERE seq >= ? AND seq < ? AND what = 'head'",
                [(gap.first, gap.last) for gap in now.gaps],
            )

    def _save_head(self, connection: sqlite3.Connection, head: Head) -> None:
        set_meta(connection, HEAD_KEY, f"{head} {self._key.seal(head).hex()}")

    def _save_checkpoint(self, connection: sqlite3.Connection, what: str, head: Head, at: int) -> Checkpoint:
        point = Checkpoint(what, head.seq, at, head.hash)
        connection.execute(
            "INSERT OR REPLACE INTO audit_checkpoints(seq, what, at, hash, signature) VALUES (?, ?, ?, ?, ?)",
            (point.seq, what, at, point.hash, self._key.sign(point.statement())),
        )
        return point


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
    draft.replace(path)


def _key_of(folder: Path, chained_with: str | None) -> AuditKey:
    """The folder's key; a new one where nothing is chained yet."""
    lost = f"the log in {folder} is chained, and its key {KEY_FILE}"
    hint = f"put the log's own {KEY_FILE} back, or move events.db* to another folder to begin a new log"
    try:
        key = AuditKey.load(folder)
    except FileNotFoundError:
        if chained_with is not None:
            raise StoreError(f"{lost} is missing", hint=hint) from None
        return AuditKey.create(folder)
    if chained_with is not None and chained_with != str(key.public):
        raise StoreError(f"{lost} is another one", hint=hint)
    return key
