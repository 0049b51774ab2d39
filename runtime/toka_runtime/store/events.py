"""The event log: every change gets a sequence number and is committed before anyone sees it. One SQLite file."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

from toka_runtime.clock import Clock
from toka_runtime.errors import StoreError, StoreFull
from toka_runtime.protocol.events import Envelope, Event, Noticed, OutputAppended
from toka_runtime.protocol.ids import AgentName, HostId, RunId
from toka_runtime.protocol.snapshot import FleetState
from toka_runtime.store import checkpoint, retention
from toka_runtime.store.lock import StateLock
from toka_runtime.store.pending import Job, Pending, Row, Sample, Sweep
from toka_runtime.store.reader import read_events
from toka_runtime.store.retention import Retention
from toka_runtime.store.rows import clean_text, encode_body, kind_of
from toka_runtime.store.schema import DATABASE, make_folder, open_database, open_reader, store_error
from toka_runtime.store.writer import Outcome, Upkeep, Writer

T = TypeVar("T")

QUEUE_ROWS = 50_000
QUEUE_BYTES = 32 * 1024 * 1024
"""Above either of these, posted output is dropped and counted."""
CATCH_UP_AT_CLOSE = range(200, 20_000)
"""How many events without a checkpoint are worth folding when the store closes and nobody keeps the state for us. It
costs some 15 µs an event; in the middle of work it is left until a sweep needs it, or so many have come together:"""
CATCH_UP_BEHIND = 200_000


class EventStore:
    """Append, post, sample; read; what is committed comes out at `on_commit`, in order, on the event loop.

    One event loop uses it. All methods may raise `StoreError` once it is closed. `on_commit(envelopes)` is called
    before the append that it answers returns. `on_failure(error)` is called when writing begins to fail,
    `on_recovery()` when it works again. `state_source`, when set (the bus does), gives the folded state as of the last
    `on_commit`; checkpoints are then made from it, else from the log itself.
    """

    def __init__(self, folder: Path, host: HostId, clock: Clock, retention: Retention) -> None:
        """Use `open`."""
        self.state_dir = folder
        self.host = host
        self.epoch = secrets.token_hex(8)
        """New with each open: sequence numbers go on, what is only in memory does not."""
        self.on_commit: Callable[[list[Envelope]], None] | None = None
        self.on_failure: Callable[[StoreError], None] | None = None
        self.on_recovery: Callable[[], None] | None = None
        self.state_source: Callable[[], FleetState] | None = None
        self.clock = clock
        self._retention = retention
        self._loop = asyncio.get_running_loop()
        self._pending = Pending(max_rows=QUEUE_ROWS, max_bytes=QUEUE_BYTES)
        self._outstanding = 0
        self._failed: StoreError | None = None
        self._closing = False
        self._closed: asyncio.Future[int] = self._loop.create_future()
        self._checkpoints = checkpoint.Checkpoints()
        self._wanted: FleetState | None = None
        """A state to be checkpointed, left for the writer thread."""
        self._sweeping = False
        self._upkeep_failed: Exception | None = None

    @classmethod
    async def open(
        cls,
        state_dir: Path,
        *,
        host: HostId,
        clock: Clock,
        retention: Retention = Retention(),  # noqa: B008 frozen
    ) -> EventStore:
        """Raises `StoreLocked` when another runtime holds the folder, `StoreError` when folder or file is unusable; the
        file is then as it was."""
        store = cls(Path(state_dir), host, clock, retention)
        await store._open()
        return store

    async def _open(self) -> None:
        path = self.state_dir / DATABASE

        # Here, in its thread: verbs that only read a log need no signatures.
        from toka_runtime.store.chained import ChainKeeper

        def prepare() -> tuple[StateLock, ChainKeeper, Writer, sqlite3.Connection, int]:
            make_folder(self.state_dir)
            lock = StateLock.acquire(self.state_dir)
            connection: sqlite3.Connection | None = None
            try:
                connection = open_database(path)
                chain = ChainKeeper(self.state_dir, connection)
                writer = Writer(
                    path,
                    connection,
                    host=self.host,
                    chain=chain,
                    pending=self._pending,
                    deliver=self._deliver,
                    upkeep=self._upkeep,
                    last_upkeep=self._last_upkeep,
                )
                return lock, chain, writer, open_reader(path), checkpoint.checkpoint_seq(connection)
            except (StoreError, sqlite3.Error) as error:
                if connection is not None:
                    connection.close()
                lock.release()
                raise store_error(path, error) if isinstance(error, sqlite3.Error) else error from error

        opened = await asyncio.to_thread(prepare)
        self._lock, self._chain, self._writer, self._reading, self._checkpointed = opened
        self._reads = ThreadPoolExecutor(1, "store-reader")
        self._head, self._oldest = self._writer.head, self._writer.oldest
        self._writer.start()

    # -- how it stands -----------------------------------------------------------------------------------------------

    @property
    def head(self) -> int:
        """The last committed sequence number that subscribers have been given; 0 in an empty log."""
        return self._head

    @property
    def oldest(self) -> int:
        """From this sequence number on the log is whole. Before it, retention has taken events (mostly output)."""
        return self._oldest

    @property
    def findings(self) -> tuple[Noticed, ...]:
        """What opening found out about the log's past that an operator should know."""
        return tuple(self._chain.findings)

    @property
    def failed(self) -> StoreError | None:
        """Set while writing fails. Side effects should wait until it is None again."""
        return self._failed

    @property
    def closed(self) -> bool:
        return self._closing

    # -- writing -----------------------------------------------------------------------------------------------------

    async def append(self, event: Event, *, agent: AgentName | None = None, run: RunId | None = None) -> Envelope:
        """Returns when the event is committed and subscribers have been given it. Raises `StoreFull` when it cannot be
        written at present; nothing is left behind, so it may be appended again. Cancelled, it may still be written."""
        if not type(event).durable:
            raise StoreError(f"event {kind_of(event)} is a sample, which the log does not keep; use sample()")
        waiter: asyncio.Future[Envelope] = self._loop.create_future()
        self._put(event, agent, run, waiter)
        return await waiter

    def post(self, event: Event, *, agent: AgentName | None = None, run: RunId | None = None) -> None:
        """Same order as `append`, without waiting: kept, and tried again, until it can be written. When too much waits,
        output is dropped and counted in `dropped_bytes`; other events never are."""
        if not type(event).durable:
            self.sample(event, agent=agent, run=run)
            return
        self._put(event, agent, run, None)

    def sample(self, event: Event, *, agent: AgentName | None = None, run: RunId | None = None) -> None:
        """Give it to subscribers in its place among the durable events, with the number of the last one, but don't keep
        it. Goes on while writing fails."""
        self._check_open()
        if self._outstanding and self._failed is None:
            self._outstanding += 1
            self._pending.put(Sample(event, agent, run, self.clock.now()))
            return
        envelope = Envelope(
            seq=self._head,
            at=self.clock.now(),
            host=self.host,
            agent=agent,
            run=run,
            durable=False,
            event=cast(Any, event),
        )
        if self.on_commit is not None:
            self.on_commit([envelope])

    async def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run other writing in the writer thread, in the order and the group commit of events; returns after the
        commit. When `work` raises, only what it wrote is undone. For the journals of this package."""
        self._check_open()
        waiter: asyncio.Future[T] = self._loop.create_future()
        self._outstanding += 1
        self._pending.put(Job(work, waiter))
        return await waiter

    def _put(
        self, event: Event, agent: AgentName | None, run: RunId | None, waiter: asyncio.Future[Envelope] | None
    ) -> None:
        self._check_open()
        for name in (agent, run):
            if name is not None and not name.isascii() and clean_text(name) != name:
                raise StoreError(f"event {kind_of(event)} of {name!r} cannot be stored: the name is no text")
        event, body = encode_body(event)
        row = Row(event, body, agent, run, self.clock.now(), waiter)
        if waiter is None and isinstance(event, OutputAppended):
            self._outstanding += self._pending.put_output(row, event)
        else:
            self._outstanding += 1
            self._pending.put(row)

    def _check_open(self) -> None:
        if self._closing:
            raise StoreError(f"the event store {self.state_dir} is closed")

    # -- reading -----------------------------------------------------------------------------------------------------

    async def read(
        self,
        *,
        after_seq: int = 0,
        before_seq: int | None = None,
        agent: AgentName | None = None,
        kinds: Sequence[str] = (),
        limit: int = 1000,
        newest_first: bool = False,
    ) -> list[Envelope]:
        """Committed events with after_seq < seq < before_seq, at most `limit` (10,000), oldest first unless
        `newest_first`. Kinds that this version does not know come as `UnknownEvent`."""
        return await self.query(
            lambda connection: read_events(
                connection,
                after_seq=after_seq,
                before_seq=before_seq,
                agent=agent,
                kinds=kinds,
                limit=limit,
                newest_first=newest_first,
            )
        )

    async def latest_state(self) -> FleetState:
        """The fold of the whole log (checkpoint and what came after it). Samples are not in it."""
        state = await self.query(checkpoint.latest_state)
        return state if state.host else state.model_copy(update={"host": self.host})

    async def query(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on the reading connection, in the reader thread."""
        self._check_open()
        return await self._query(work)

    async def _query(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._loop.run_in_executor(self._reads, work, self._reading)
        except sqlite3.Error as error:
            raise store_error(self.state_dir / DATABASE, error) from error

    # -- upkeep ------------------------------------------------------------------------------------------------------

    async def apply_retention(self) -> None:
        """Make a checkpoint and apply the retention settings now, to the end."""
        self._check_open()
        self._sweeping = True
        if self.state_source is not None:
            self._wanted = self.state_source()
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._outstanding += 1
        self._pending.put(Sweep(waiter))
        await waiter

    @property
    def upkeep_failed(self) -> Exception | None:
        """Why the last checkpoint or retention run broke off. It is tried again; nothing is lost meanwhile."""
        return self._upkeep_failed

    def _upkeep(self, connection: sqlite3.Connection) -> Upkeep:
        """Runs in the writer thread."""
        behind = self._writer.head - checkpoint.checkpoint_seq(connection)
        if (state := self._wanted) is not None:
            self._wanted = None
            yield from self._checkpoints.save(connection, state)
        elif self._sweeping or behind >= CATCH_UP_BEHIND:
            self._sweeping = False
            yield from self._checkpoints.catch_up(connection)
        now = self.clock.now()
        yield from retention.enforce(
            connection, self._retention, now, lambda where, gone: self._chain.drop(where, gone, now)
        )

    def _last_upkeep(self, connection: sqlite3.Connection) -> Upkeep:
        if self._wanted is not None:
            yield from self._checkpoints.save(connection, self._wanted)
        elif self._writer.head - checkpoint.checkpoint_seq(connection) in CATCH_UP_AT_CLOSE:
            yield from self._checkpoints.catch_up(connection)

    # -- what the writer thread has to say ---------------------------------------------------------------------------

    def _deliver(self, outcome: Outcome) -> None:
        """In the writer thread."""
        try:
            self._loop.call_soon_threadsafe(self._received, outcome)
        except RuntimeError:
            # The loop is closed: nobody is left to be told. What is committed is committed.
            return

    def _received(self, outcome: Outcome) -> None:
        """On the loop, in order."""
        self._head, self._oldest = outcome.head, outcome.oldest
        self._outstanding -= outcome.taken
        failed_before, self._failed = self._failed, outcome.failed
        try:
            if outcome.envelopes and self.on_commit is not None:
                self.on_commit(outcome.envelopes)
        finally:
            for waiter, value in outcome.done:
                if not waiter.done():
                    waiter.set_result(value)
            for waiter, error in outcome.refused:
                if not waiter.done():
                    waiter.set_exception(error)
            if outcome.ended:
                self._release(outcome.lost)
        self._upkeep_failed = outcome.upkeep_failed
        if self._failed is not None and failed_before is None and self.on_failure is not None:
            self.on_failure(self._failed)
        if self._failed is None and failed_before is not None and self.on_recovery is not None:
            self.on_recovery()
        if self.state_source is not None and self._head - self._checkpointed >= checkpoint.EVERY_EVENTS:
            self._checkpointed = self._head
            self._wanted = self.state_source()

    def _release(self, lost: int) -> None:
        self._closing = True
        self._reads.submit(self._reading.close)
        self._reads.shutdown(wait=False)
        self._lock.release()
        if not self._closed.done():
            self._closed.set_result(lost)

    async def aclose(self) -> None:
        """Write everything that waits, make a checkpoint, close. Safe to call twice, or cancelled: it is closed all the
        same. Raises `StoreFull` (the first call only) when posted events could not be written."""
        if self._closing:
            await asyncio.shield(self._closed)
            return
        self._closing = True
        flushed: asyncio.Future[None] = self._loop.create_future()
        self._outstanding += 1
        self._pending.put(Job(lambda _: None, flushed))
        try:
            # Subscribers have now seen everything, so their state is the state at the end of the log.
            await flushed
            if self.state_source is not None:
                self._wanted = self.state_source()
            # The last connection to close tidies up, which one for reading cannot.
            await self._loop.run_in_executor(self._reads, self._reading.close)
        except StoreError:
            # Said below, with what it cost.
            pass
        finally:
            self._pending.close()
        if lost := await asyncio.shield(self._closed):
            why = self._failed.message if self._failed is not None else "the writer stopped"
            raise StoreFull(f"{lost} events could not be written before the store closed: {why}")
