"""What waits for the writer thread: one order for events, samples and journal work, bounded where it may be."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from toka_runtime.protocol.events import Envelope, Event, OutputAppended
from toka_runtime.protocol.ids import AgentName, RunId
from toka_runtime.store.rows import encode_body


@dataclass(slots=True)
class Row:
    """A durable event. Someone awaits it (`waiter`), or it was posted and is kept until it can be written."""

    event: Event
    body: str
    """"" while its text may still grow (see `Pending.put_output`)."""
    agent: AgentName | None
    run: RunId | None
    at: datetime
    waiter: asyncio.Future[Envelope] | None = None

    @property
    def size(self) -> int:
        return len(self.body) + 200


@dataclass(slots=True)
class Sample:
    """An event that is not stored: it only keeps its place in the order."""

    event: Event
    agent: AgentName | None
    run: RunId | None
    at: datetime
    size: int = 200
    waiter: None = None


@dataclass(slots=True)
class Job:
    """Other writing in the same group commit: `work` runs in the writer thread, inside a savepoint."""

    work: Callable[[sqlite3.Connection], Any]
    waiter: asyncio.Future[Any]
    size: int = 1000


@dataclass(slots=True)
class Sweep:
    """Upkeep, now and to its end."""

    waiter: asyncio.Future[None]
    size: int = 0


Item = Row | Sample | Job | Sweep


class Pending:
    """Thread-safe queue between the event loop (puts) and the writer thread (takes). Above `max_rows` or `max_bytes`
    output is dropped and counted, one row for each agent and stream; nothing else is ever dropped."""

    def __init__(self, *, max_rows: int, max_bytes: int) -> None:
        self._changed = threading.Condition()
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._urgent = 0
        self._closing = False
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self._over: dict[tuple[object, ...], Row] = {}
        """Rows at the end of the queue that only count what is left out."""

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Item) -> None:
        with self._changed:
            self._push(item)

    def put_output(self, row: Row, event: OutputAppended) -> bool:
        """Like `put`; when too much waits, the text is left out and counted in one row per agent, stream and call.
        True when the queue has one item more."""
        with self._changed:
            if not self._over and len(self._items) < self._max_rows and self._bytes < self._max_bytes:
                self._push(row)
                return True
            dropped = len(event.text.encode(errors="replace")) + event.dropped_bytes
            key = _stream_of(row, event)
            if (waiting := self._over.get(key)) is None:
                row.event, row.body = event.model_copy(update={"text": "", "dropped_bytes": dropped}), ""
                self._over[key] = row
                self._push(row)
                return True
            if isinstance(waiting.event, OutputAppended):
                total = waiting.event.dropped_bytes + dropped
                waiting.event = waiting.event.model_copy(update={"dropped_bytes": total})
            return False

    def _push(self, item: Item) -> None:
        self._items.append(item)
        self._bytes += item.size
        self._urgent += item.waiter is not None
        self._changed.notify()

    def put_back(self, items: Sequence[Item]) -> None:
        """Items that could not be written, in front of what came later."""
        with self._changed:
            self._items.extendleft(reversed(items))
            self._bytes += sum(item.size for item in items)

    def close(self) -> None:
        """Wake the taker; it takes what is left."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    @property
    def closing(self) -> bool:
        return self._closing

    def take(self, max_rows: int, max_bytes: int, *, timeout: float | None, hold: bool) -> list[Item]:
        """The oldest items, at once when there are some, else after waiting up to `timeout` seconds (None: for ever).
        `hold`: writing fails at present; wait the timeout out unless something comes that someone awaits."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closing or self._urgent > 0 or (len(self._items) > 0 and not hold), timeout
            )
            taken: list[Item] = []
            size = 0
            while self._items and len(taken) < max_rows and size < max_bytes:
                item = self._items.popleft()
                taken.append(item)
                size += item.size
                self._urgent -= item.waiter is not None
            self._bytes -= size
            if not self._items:
                self._bytes = 0
            growing = [item for item in taken if isinstance(item, Row) and not item.body] if self._over else []
            for row in growing:
                # A row that has been taken must not grow any more.
                if isinstance(row.event, OutputAppended):
                    self._over.pop(_stream_of(row, row.event), None)
        for row in growing:
            row.event, row.body = encode_body(row.event)
        return taken


def _stream_of(row: Row, event: OutputAppended) -> tuple[object, ...]:
    return row.agent, row.run, event.stream, event.call
