"""How long history is kept. What is bulky and least asked for goes first; what an auditor asks for goes last."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import datetime

from toka_runtime.store.checkpoint import checkpoint_seq, current_runs
from toka_runtime.store.rows import to_micros
from toka_runtime.store.schema import BLOCK_BITS, get_meta, set_meta

DAY_S = 86_400.0
SLICE_ROWS = 2000
SLICE_PAGES = 256

OUTPUT = ("output.appended",)
RECORDS = (
    "runtime.started",
    "runtime.stopped",
    "spec.loaded",
    "spec.rejected",
    "agent.state_changed",
    "agent.process_started",
    "agent.process_ended",
    "agent.work_committed",
    "task.state_changed",
    "task.verified",
    "operation.denied",
    "command.handled",
)
"""Who did what, and what was refused. Every kind that is neither output nor one of these is detail."""

Slices = Generator[None, None, None]
Gone = Callable[[sqlite3.Connection, list[tuple[int, bytes | None]]], None]
"""Told, in the transaction that deletes them, the numbers and hashes of events that go."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Ages in seconds, None: kept for ever. When the file is larger than `max_bytes`, output goes first, then
    superseded and finished conversations, then detail (model and tool calls, notices, unknown kinds), then records,
    each from the oldest on, until the file is 10 % below its bound. The last `keep_events` events always stay."""

    max_bytes: int | None = 2 * 1024**3
    output_max_age_s: float | None = 7 * DAY_S
    detail_max_age_s: float | None = 30 * DAY_S
    record_max_age_s: float | None = 365 * DAY_S
    keep_events: int = 1000


def used_bytes(connection: sqlite3.Connection) -> int:
    """Bytes of the file that hold something."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def enforce(connection: sqlite3.Connection, retention: Retention, now: datetime, gone: Gone) -> Slices:
    """Delete what is too old or too much, in slices of a few milliseconds, and give the space back."""
    head: int = connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0]
    # The state as of the checkpoint can't be made again from events that are gone, so nothing after it goes.
    # The very last one always stays: the numbering goes on from it.
    last = min(checkpoint_seq(connection), head - max(1, retention.keep_events))

    def delete(kinds: tuple[str, ...], *, before: int | None = None, goal: int | None = None) -> Slices:
        return _delete_events(connection, kinds, last, gone, before=before, goal=goal)

    current = current_runs(connection)
    detail = _detail_kinds(connection)
    yield
    for kinds, max_age_s in (
        (OUTPUT, retention.output_max_age_s),
        (detail, retention.detail_max_age_s),
        (RECORDS, retention.record_max_age_s),
    ):
        if max_age_s is not None:
            yield from delete(kinds, before=to_micros(now) - round(max_age_s * 1e6))
    if retention.detail_max_age_s is not None:
        before = to_micros(now) - round(retention.detail_max_age_s * 1e6)
        yield from _delete_superseded(connection, before=before)
        yield from _delete_conversations(connection, current, before=before)
    if retention.max_bytes is not None and used_bytes(connection) > retention.max_bytes:
        goal = retention.max_bytes * 9 // 10
        yield from delete(OUTPUT, goal=goal)
        yield from _delete_superseded(connection, goal=goal)
        yield from _delete_conversations(connection, current, goal=goal)
        yield from delete(detail, goal=goal)
        yield from delete(RECORDS, goal=goal)
    connection.execute(
        "DELETE FROM agent_blocks WHERE block < (SELECT coalesce(min(seq), 0) FROM events) >> ?", (BLOCK_BITS,)
    )
    yield
    yield from _give_back(connection)


def _detail_kinds(connection: sqlite3.Connection) -> tuple[str, ...]:
    found: list[str] = []
    kind = ""
    # A walk along the index, one look-up a kind: DISTINCT would read it whole.
    while row := connection.execute("SELECT kind FROM events WHERE kind > ? ORDER BY kind LIMIT 1", (kind,)).fetchone():
        kind = str(row[0])
        found.append(kind)
    return tuple(kind for kind in found if kind not in OUTPUT and kind not in RECORDS)


def _reached(connection: sqlite3.Connection, goal: int | None) -> bool:
    return goal is not None and used_bytes(connection) <= goal


def _delete_events(
    connection: sqlite3.Connection,
    kinds: tuple[str, ...],
    last: int,
    gone: Gone,
    *,
    before: int | None,
    goal: int | None,
) -> Slices:
    """Oldest first, never past `last`: those older than `before` (microseconds), or until at most `goal` bytes are
    used."""
    marks = ",".join("?" * len(kinds))
    while not _reached(connection, goal):
        firsts = [
            connection.execute("SELECT seq, at FROM events WHERE kind = ? ORDER BY seq LIMIT 1", (kind,)).fetchone()
            for kind in kinds
        ]
        first = min((row for row in firsts if row is not None), default=None)
        if first is None or first[0] > last or (before is not None and first[1] >= before):
            return
        connection.execute("BEGIN IMMEDIATE")
        deleted: list[tuple[int, bytes | None]] = connection.execute(
            f"DELETE FROM events WHERE seq BETWEEN ? AND ? AND at < ? AND kind IN ({marks}) RETURNING seq, hash",  # noqa: S608 marks only
            (first[0], min(last, first[0] + SLICE_ROWS), 2**62 if before is None else before, *kinds),
        ).fetchall()
        gone(connection, deleted)
        complete_from = max(row[0] for row in deleted) + 1
        set_meta(connection, "oldest", str(max(complete_from, int(get_meta(connection, "oldest", "1")))))
        connection.execute("COMMIT")
        yield


def _delete_superseded(connection: sqlite3.Connection, *, before: int | None = None, goal: int | None = None) -> Slices:
    """Turns of earlier generations (a compacted or repaired conversation leaves them behind)."""
    deleted = 1
    while deleted and not _reached(connection, goal):
        deleted = connection.execute(
            "DELETE FROM turns WHERE id IN (SELECT id FROM turns WHERE until IS NOT NULL AND at < ? LIMIT ?)",
            (2**62 if before is None else before, SLICE_ROWS),
        ).rowcount
        yield


def _delete_conversations(
    connection: sqlite3.Connection, current: set[str], *, before: int | None = None, goal: int | None = None
) -> Slices:
    """Whole runs, the longest untouched first; never the latest run of an agent, which may be resumed."""
    runs = connection.execute(
        "SELECT run, max(updated_at) AS touched FROM conversations GROUP BY run ORDER BY touched"
    ).fetchall()
    for run, touched in runs:
        if run in current or (before is not None and touched >= before):
            continue
        if _reached(connection, goal):
            return
        deleted = 1
        while deleted:
            deleted = connection.execute(
                "DELETE FROM turns WHERE id IN (SELECT id FROM turns WHERE run = ? LIMIT ?)", (run, SLICE_ROWS)
            ).rowcount
            yield
        connection.execute("BEGIN IMMEDIATE")
        for table in ("conversations", "results", "tool_calls"):
            connection.execute(f"DELETE FROM {table} WHERE run = ?", (run,))  # noqa: S608 fixed names
        connection.execute("COMMIT")
        yield


def _give_back(connection: sqlite3.Connection) -> Slices:
    """Free pages back to the file system. A few stay for what comes next."""
    while connection.execute("PRAGMA freelist_count").fetchone()[0] > SLICE_PAGES:
        connection.execute(f"PRAGMA incremental_vacuum({SLICE_PAGES})").fetchall()
        yield
