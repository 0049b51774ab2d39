"""The conversation journal: what each task attempt said and did, so that a run resumes where it was. Same file and same
group commit as the events."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

from toka_runtime.clock import Clock
from toka_runtime.errors import StoreError
from toka_runtime.protocol.ids import CallId, RunId
from toka_runtime.store.rows import clean_text, from_micros, to_micros
from toka_runtime.store.transcript_pages import Page, Part, read_page

T = TypeVar("T")

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
"""Of one message, result or tool call as JSON. What goes in is capped well below by whoever makes it."""

_KEY_CHARS = 300

Message = dict[str, Any]


class Journal(Protocol):
    """What this needs of the store (`EventStore` has it)."""

    @property
    def clock(self) -> Clock: ...

    async def transact(self, work: Callable[[sqlite3.Connection], T]) -> T: ...

    async def query(self, work: Callable[[sqlite3.Connection], T]) -> T: ...


def call_key(task: int, attempt: int, turn: int, call: CallId) -> CallId:
    """Name of a tool call in its run's journal: a model's own ids are unique in one conversation only."""
    return CallId(f"{task}.{attempt}.{turn}:{call}"[:_KEY_CHARS])


def call_of(key: CallId) -> CallId:
    """The model's own id (see `call_key`)."""
    return CallId(key.partition(":")[2])


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation and its place in it."""

    run: RunId
    task: int
    attempt: int
    position: int
    """In its generation, from 0."""
    since: int
    """The generation that it was first part of."""
    until: int | None
    """The generation that no longer has it; None: it is current."""
    at: datetime
    message: Message


@dataclass(frozen=True, slots=True)
class TaskResult:
    run: RunId
    task: int
    attempt: int
    at: datetime
    result: Message


@dataclass(frozen=True, slots=True)
class ToolCall:
    run: RunId
    call: CallId
    task: int
    attempt: int
    tool: str
    arguments: Message
    begun_at: datetime
    ended_at: datetime | None
    outcome: str
    """"" while it is open; after a crash that is: unknown."""
    result: Message | None


class Transcripts:
    """All writing returns after the commit, and raises `StoreFull` when it cannot be written (nothing is then half
    written). Tasks and attempts are numbered as in the events."""

    def __init__(self, store: Journal) -> None:
        self._store = store

    # -- conversations -----------------------------------------------------------------------------------------------

    async def record(self, run: RunId, task: int, attempt: int, base: int, messages: Sequence[Message]) -> None:
        """The conversation is now its first `base` messages and then `messages`. Where this takes something away
        (compaction, an interrupted turn), a new generation begins; the earlier one stays readable with `turns`.
        Raises StoreError when fewer than `base` messages are on record."""
        bodies = [_dump(message) for message in messages]
        at = to_micros(self._store.clock.now())

        def write(connection: sqlite3.Connection) -> None:
            place = (run, task, attempt)
            generation, length = connection.execute(
                "SELECT generation, length FROM conversations WHERE run = ? AND task = ? AND attempt = ?", place
            ).fetchone() or (0, 0)
            if not 0 <= base <= length:
                raise StoreError(
                    f"run {run}, task {task}, attempt {attempt}: {length} messages are on record, fewer than {base}"
                )
            if base < length:
                generation += 1
                connection.execute(
                    "UPDATE turns SET until = ? WHERE run = ? AND task = ? AND attempt = ? AND position >= ?"
                    " AND until IS NULL",
                    (generation, *place, base),
                )
            connection.executemany(
                "INSERT INTO turns(run, task, attempt, position, since, at, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(*place, base + number, generation, at, body) for number, body in enumerate(bodies)],
            )
            connection.execute(
                "INSERT OR REPLACE INTO conversations(run, task, attempt, generation, length, updated_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (*place, generation, base + len(bodies), at),
            )

        await self._store.transact(write)

    async def conversation(self, run: RunId, task: int, attempt: int) -> list[Message]:
        """The latest generation, whole and in order; empty when nothing is on record."""
        rows = await self._store.query(
            lambda connection: connection.execute(
                "SELECT body FROM turns WHERE run = ? AND task = ? AND attempt = ? AND until IS NULL ORDER BY position",
                (run, task, attempt),
            ).fetchall()
        )
        return [json.loads(row[0]) for row in rows]

    async def turns(
        self, run: RunId, task: int | None = None, attempt: int | None = None, *, generation: int | None = None
    ) -> list[Turn]:
        """Every message ever recorded, superseded ones included, in the order of recording; or, with `generation`, the
        conversation as it was in that one."""
        where: list[str] = ["run = ?"]
        values: list[str | int] = [run]
        for column, value in (("task", task), ("attempt", attempt)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)
        if generation is not None:
            where.append("since <= ? AND (until IS NULL OR until > ?)")
            values += [generation, generation]
        statement = (
            "SELECT task, attempt, position, since, until, at, body FROM turns"  # noqa: S608 fixed words only
            f" WHERE {' AND '.join(where)} ORDER BY id"
        )
        rows = await self._store.query(lambda connection: connection.execute(statement, values).fetchall())
        return [
            Turn(run, row[0], row[1], row[2], row[3], row[4], from_micros(row[5]), json.loads(row[6])) for row in rows
        ]

    async def page(self, run: RunId, part: Part, after: int, limit: int) -> Page:
        """Everything on record of a run, a page at a time, superseded messages included."""
        return await self._store.query(lambda connection: read_page(connection, run, part, after, limit))

    # -- results of tasks --------------------------------------------------------------------------------------------

    async def record_result(self, run: RunId, task: int, attempt: int, result: Mapping[str, Any]) -> None:
        """How a task ended. A later attempt replaces the result of an earlier one."""
        body, at = _dump(result), to_micros(self._store.clock.now())

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO results(run, task, attempt, at, body) VALUES (?, ?, ?, ?, ?)",
                (run, task, attempt, at, body),
            )

        await self._store.transact(write)

    async def results(self, run: RunId) -> dict[int, TaskResult]:
        """By task, of those that have ended."""
        rows = await self._store.query(
            lambda connection: connection.execute(
                "SELECT task, attempt, at, body FROM results WHERE run = ? ORDER BY task", (run,)
            ).fetchall()
        )
        return {row[0]: TaskResult(run, row[0], row[1], from_micros(row[2]), json.loads(row[3])) for row in rows}

    # -- tool calls --------------------------------------------------------------------------------------------------

    async def tool_begun(
        self, run: RunId, call: CallId, *, task: int, attempt: int, tool: str, arguments: Mapping[str, Any]
    ) -> None:
        """Write down, before it acts, that a call is about to. Raises StoreError when this call of this run was begun
        before: it must not run twice."""
        body, at = _dump(arguments), to_micros(self._store.clock.now())

        def write(connection: sqlite3.Connection) -> None:
            added = connection.execute(
                "INSERT OR IGNORE INTO tool_calls(run, call, task, attempt, tool, arguments, begun_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (run, call, task, attempt, tool, body, at),
            ).rowcount
            if not added:
                raise StoreError(f"tool call {call} of run {run} was begun before; it is not repeated")

        await self._store.transact(write)

    async def tool_ended(self, run: RunId, call: CallId, outcome: str, result: Mapping[str, Any] | None = None) -> None:
        """`outcome` as in `ToolCallEnded`; `unknown` closes a call that a crash left open. `result` is what the model
        is told, so that a resumed run goes on without repeating the call. Raises StoreError when it is not open."""
        body = None if result is None else _dump(result)
        at = to_micros(self._store.clock.now())

        def write(connection: sqlite3.Connection) -> None:
            changed = connection.execute(
                "UPDATE tool_calls SET ended_at = ?, outcome = ?, result = ?"
                " WHERE run = ? AND call = ? AND ended_at IS NULL",
                (at, outcome, body, run, call),
            ).rowcount
            if not changed:
                raise StoreError(f"tool call {call} of run {run} is not open")

        await self._store.transact(write)

    async def open_calls(self, run: RunId) -> list[ToolCall]:
        """Begun and not ended. After a crash nobody knows what they did: they are not repeated blindly."""
        return await self._calls("run = ? AND ended_at IS NULL", (run,))

    async def calls(self, run: RunId, task: int, attempt: int) -> list[ToolCall]:
        """All calls of one task attempt, in the order in which they were begun."""
        return await self._calls("run = ? AND task = ? AND attempt = ?", (run, task, attempt))

    async def _calls(self, where: str, values: tuple[Any, ...]) -> list[ToolCall]:
        statement = (
            "SELECT run, call, task, attempt, tool, arguments, begun_at, ended_at, outcome, result FROM tool_calls"  # noqa: S608 fixed words only
            f" WHERE {where} ORDER BY rowid"
        )
        rows = await self._store.query(lambda connection: connection.execute(statement, values).fetchall())
        return [
            ToolCall(
                run=RunId(row[0]),
                call=CallId(row[1]),
                task=row[2],
                attempt=row[3],
                tool=row[4],
                arguments=json.loads(row[5]),
                begun_at=from_micros(row[6]),
                ended_at=None if row[7] is None else from_micros(row[7]),
                outcome=row[8] or "",
                result=None if row[9] is None else json.loads(row[9]),
            )
            for row in rows
        ]


def _dump(value: Mapping[str, Any]) -> str:
    try:
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise StoreError(f"the journal cannot hold this: {error}") from error
    if not body.isascii():
        # Quotes and escapes are ASCII, so cleaning the whole cleans each string in it.
        body = clean_text(body)
    if len(body) > MAX_MESSAGE_BYTES // 4 and (size := len(body.encode())) > MAX_MESSAGE_BYTES:
        raise StoreError(f"the journal takes at most {MAX_MESSAGE_BYTES} bytes in one piece, not {size}")
    return body
