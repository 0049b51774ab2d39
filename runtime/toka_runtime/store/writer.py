"""The one thread that writes. It commits as soon as something waits and takes along what arrived meanwhile (group
commit); upkeep (checkpoints, retention) runs between commits, a few milliseconds at a time."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toka_runtime.audit.chain import Record
from toka_runtime.errors import StoreError, StoreFull
from toka_runtime.protocol.events import Envelope
from toka_runtime.protocol.ids import HostId
from toka_runtime.store.pending import Item, Job, Pending, Row, Sample, Sweep
from toka_runtime.store.rows import COLUMNS, kind_of, to_micros
from toka_runtime.store.schema import BLOCK_BITS, get_meta, set_meta, store_error

if TYPE_CHECKING:
    from toka_runtime.store.chained import ChainKeeper

BATCH_ROWS = 1000
BATCH_BYTES = 4 * 1024 * 1024
"""Of one commit: bounds how long the event loop is busy with handing out what was committed."""
RETRY_S = 0.25
RETRY_MAX_S = 5.0
IDLE_S = 600.0
"""Upkeep is looked after at least this often, when nothing is written."""
QUIET_S = 10.0
"""When nothing has come for so long, the last records are signed."""
UPKEEP_ROWS = 2500
"""… and after so many rows."""
PROBE_BYTES = 64 * 1024
_WIDTH = 8
_CHUNKS = (128, 16, 4, 1)
_INSERT = {
    size: f"INSERT INTO events({COLUMNS}, hash) VALUES " + ",".join(["(?,?,?,?,?,?,?,?)"] * size)  # noqa: S608 marks
    for size in _CHUNKS
}
"""Many rows a statement: up to three times as fast as executemany, and the interpreter's lock is free while SQLite
works through them, so that the event loop is not held up row by row."""

_ENDED = object()
Upkeep = Generator[None, None, None]
"""Work in slices: between two `yield`s at most some milliseconds, and no open transaction across one."""


@dataclass(slots=True)
class Outcome:
    """What one turn of the writer came to, handed to the event loop."""

    envelopes: list[Envelope] = field(default_factory=list[Envelope])
    """Committed events in order, with samples between them."""
    done: list[tuple[asyncio.Future[Any], Any]] = field(default_factory=list[tuple[asyncio.Future[Any], Any]])
    refused: list[tuple[asyncio.Future[Any], Exception]] = field(
        default_factory=list[tuple[asyncio.Future[Any], Exception]]
    )
    taken: int = 0
    """How many items are no longer queued."""
    head: int = 0
    oldest: int = 1
    failed: StoreError | None = None
    """Writing fails at present."""
    upkeep_failed: Exception | None = None
    """The last checkpoint or retention run did not come to its end."""
    ended: bool = False
    """The thread has stopped; this is the last outcome."""
    lost: int = 0
    """At the end: events that could not be written."""


class Writer:
    """Owns the writing connection. `deliver` is called in the writer thread, once for each outcome, in order."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        *,
        host: HostId,
        chain: ChainKeeper,
        pending: Pending,
        deliver: Callable[[Outcome], None],
        upkeep: Callable[[sqlite3.Connection], Upkeep],
        last_upkeep: Callable[[sqlite3.Connection], Upkeep],
    ) -> None:
        self.path = path
        self._connection = connection
        self._host = host
        self._chain = chain
        self._pending = pending
        self._deliver = deliver
        self._periodic, self._last = upkeep, last_upkeep
        self._head = chain.head.seq
        self._oldest = int(get_meta(connection, "oldest", "1"))
        self._failed: StoreError | None = None
        self._delay = RETRY_S
        self._upkeep: Upkeep | None = None
        self._upkeep_failed: Exception | None = None
        self._sweepers: list[asyncio.Future[None]] = []
        self._in_hand: list[Item] = []
        self._block = -1
        self._agents_in_block: set[str] = set()
        self._rows_since = 0
        self._looked_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)

    @property
    def head(self) -> int:
        return self._head

    @property
    def oldest(self) -> int:
        return self._oldest

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    # -- everything below runs in the writer thread -----------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not (self._pending.closing and not self._pending):
                self._turn()
                if self._failed is not None and self._pending.closing:
                    break
            self._finish()
        except BaseException as error:  # noqa: BLE001 a thread that ends silently would hang every writer
            self._stopped(error)

    def _turn(self) -> None:
        if self._upkeep is not None:
            timeout = 0.0
        elif self._failed is not None:
            timeout = self._delay
        else:
            timeout = QUIET_S if self._chain.unsigned else IDLE_S
        items = self._pending.take(BATCH_ROWS, BATCH_BYTES, timeout=timeout, hold=self._failed is not None)
        if items:
            self._in_hand = items
            self._write(items)
            self._in_hand = []
        elif self._failed is not None:
            self._probe()
        elif self._chain.unsigned and self._upkeep is None:
            self._write([])
        if self._failed is None:
            self._look_after()

    def _write(self, items: list[Item]) -> None:
        outcome = Outcome(taken=len(items))
        connection = self._connection
        try:
            rows = [item for item in items if isinstance(item, Row)]
            jobs = [item for item in items if isinstance(item, Job)]
            if rows or jobs or not items:
                connection.execute("BEGIN IMMEDIATE")
                self._insert(rows)
                for job in jobs:
                    self._do(job, outcome)
                if rows or not items:
                    self._chain.save(connection, sign=not items)
                connection.execute("COMMIT")
                self._chain.committed()
        except sqlite3.Error as error:
            self._roll_back()
            self._refuse(items, store_error(self.path, error))
            return
        seq = self._head
        for item in items:
            if isinstance(item, Job):
                continue
            if isinstance(item, Sweep):
                self._sweepers.append(item.waiter)
                self._rows_since = UPKEEP_ROWS
                continue
            durable = isinstance(item, Row)
            seq += durable
            envelope = Envelope(
                seq=seq,
                at=item.at,
                host=self._host,
                agent=item.agent,
                run=item.run,
                durable=durable,
                event=item.event,  # pyright: ignore[reportArgumentType] any event is one of the union or UnknownEvent
            )
            outcome.envelopes.append(envelope)
            if item.waiter is not None:
                outcome.done.append((item.waiter, envelope))
        self._head = seq
        self._rows_since += len(rows)
        self._failed, self._delay = None, RETRY_S
        self._hand_over(outcome)

    def _insert(self, rows: list[Row]) -> None:
        host, seq, chain = self._host, self._head, self._chain
        chain.begin_batch()
        values: list[Any] = []
        places: list[tuple[str, int]] = []
        for row in rows:
            seq += 1
            if seq >> BLOCK_BITS != self._block:
                self._block = seq >> BLOCK_BITS
                self._agents_in_block.clear()
            if row.agent is not None and row.agent not in self._agents_in_block:
                self._agents_in_block.add(row.agent)
                places.append((row.agent, self._block))
            record = Record(seq, to_micros(row.at), host, row.agent, row.run, kind_of(row.event), row.body)
            values += (*record, chain.extend(record))
        at = 0
        for size in _CHUNKS:
            while len(values) - at >= size * _WIDTH:
                self._connection.execute(_INSERT[size], values[at : at + size * _WIDTH])
                at += size * _WIDTH
        if places:
            self._connection.executemany("INSERT OR IGNORE INTO agent_blocks(agent, block) VALUES (?, ?)", places)

    def _do(self, job: Job, outcome: Outcome) -> None:
        connection = self._connection
        connection.execute("SAVEPOINT job")
        try:
            result = job.work(connection)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001 it belongs to whoever awaits the job, and to nobody else
            connection.execute("ROLLBACK TO job")
            outcome.refused.append((job.waiter, error))
        else:
            outcome.done.append((job.waiter, result))
        connection.execute("RELEASE job")

    def _roll_back(self) -> None:
        self._agents_in_block.clear()
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                # Some failures roll back by themselves; a transaction that is really stuck fails the next BEGIN.
                return

    def _refuse(self, items: list[Item], error: StoreError) -> None:
        """Whoever waits is told; what was posted goes back, in order; samples go on (a screen stays live)."""
        keep = [item for item in items if isinstance(item, Row) and item.waiter is None]
        outcome = Outcome(taken=len(items) - len(keep))
        for item in items:
            if item.waiter is not None:
                outcome.refused.append((item.waiter, error))
            elif isinstance(item, Sample):
                outcome.envelopes.append(
                    Envelope(
                        seq=self._head,
                        at=item.at,
                        host=self._host,
                        agent=item.agent,
                        run=item.run,
                        durable=False,
                        event=item.event,  # pyright: ignore[reportArgumentType] as above
                    )
                )
        self._pending.put_back(keep)
        self._delay = RETRY_S if self._failed is None else min(self._delay * 2, RETRY_MAX_S)
        self._failed = error
        self._drop_upkeep()
        self._hand_over(outcome)

    def _probe(self) -> None:
        """Nothing waits, and the last write failed: find out whether it would work now, so that it can be said."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO probe VALUES (zeroblob(?))", (PROBE_BYTES,))
            connection.execute("COMMIT")
            connection.execute("DELETE FROM probe")
        except sqlite3.Error as error:
            self._roll_back()
            self._refuse([], store_error(self.path, error))
        else:
            self._failed, self._delay = None, RETRY_S
            self._hand_over(Outcome())

    def _look_after(self) -> None:
        due = self._rows_since >= UPKEEP_ROWS or time.monotonic() - self._looked_at >= IDLE_S
        if self._upkeep is None and due and not self._pending.closing:
            self._rows_since, self._looked_at = 0, time.monotonic()
            self._upkeep = self._periodic(self._connection)
        if self._upkeep is None:
            return
        try:
            ended = next(self._upkeep, _ENDED) is _ENDED
            self._oldest = int(get_meta(self._connection, "oldest", "1"))
        except Exception as error:  # noqa: BLE001 upkeep can wait, and must not end the writer; it is reported
            self._upkeep_failed = error
            self._roll_back()
            self._drop_upkeep()
            self._hand_over(Outcome())
            return
        if ended:
            self._upkeep, self._upkeep_failed = None, None
            # A sweep asked for while one was under way waits for the next.
            swept, self._sweepers = (self._sweepers, []) if self._rows_since < UPKEEP_ROWS else ([], self._sweepers)
            self._hand_over(Outcome(done=[(waiter, None) for waiter in swept]))

    def _drop_upkeep(self) -> None:
        if self._upkeep is not None:
            self._upkeep.close()
            self._upkeep = None
        if self._sweepers:
            error = self._failed or StoreError("upkeep of the event store was broken off")
            self._hand_over(Outcome(refused=[(waiter, error) for waiter in self._sweepers]))
            self._sweepers = []

    def _hand_over(self, outcome: Outcome) -> None:
        outcome.head, outcome.oldest = self._head, self._oldest
        outcome.failed, outcome.upkeep_failed = self._failed, self._upkeep_failed
        self._deliver(outcome)

    def _finish(self) -> None:
        self._drop_upkeep()
        try:
            if self._failed is None:
                for _ in self._last(self._connection):
                    pass
                if self._chain.unsigned:
                    self._write([])
                set_meta(self._connection, "clean", "1")
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:
            # Everything is committed; the next open merges the write-ahead log and folds what is not checkpointed.
            self._roll_back()
        self._connection.close()
        self._hand_over(self._abandon())

    def _stopped(self, error: BaseException) -> None:
        self._failed = StoreFull(f"the event store's writer stopped: {error!r}", hint="restart the runtime")
        self._pending.close()
        self._hand_over(self._abandon())

    def _abandon(self) -> Outcome:
        """The last outcome: whoever still waits is told that it was not written."""
        left = self._in_hand + self._pending.take(2**31, 2**62, timeout=0, hold=False)
        outcome = Outcome(taken=len(left), ended=True)
        error = self._failed or StoreError("the event store is closed")
        for item in left:
            if item.waiter is not None:
                outcome.refused.append((item.waiter, error))
            elif isinstance(item, Row):
                outcome.lost += 1
        outcome.refused += [(waiter, error) for waiter in self._sweepers]
        return outcome
