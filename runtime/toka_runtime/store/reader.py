"""Reading the log: its own connection, never in the way of the writer."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from toka_runtime.protocol.events import Envelope
from toka_runtime.store.rows import COLUMNS, StoredRow, decode_row
from toka_runtime.store.schema import BLOCK_BITS

BULKY = frozenset({"output.appended"})
"""Kinds that make up most of a log: looked for along an agent's own events rather than along the kind."""
READ_LIMIT = 10_000
"""Of one read: bounds the memory of a query from outside."""


def read_events(
    connection: sqlite3.Connection,
    *,
    after_seq: int,
    before_seq: int | None,
    agent: str | None,
    kinds: Sequence[str],
    limit: int,
    newest_first: bool,
) -> list[Envelope]:
    """Events with after_seq < seq < before_seq, in order of seq (or against it), at most `limit`."""
    limit = max(0, min(limit, READ_LIMIT))
    first, last = after_seq + 1, (2**62 if before_seq is None else before_seq - 1)
    if kinds and (agent is None or BULKY.isdisjoint(kinds)):
        rows = _along_kinds(connection, kinds, agent, first, last, limit, newest_first)
    elif agent is not None:
        rows = _along_agent(connection, agent, kinds, first, last, limit, newest_first)
    else:
        rows = _select(connection, "NOT INDEXED", "", (), first, last, limit, newest_first)
    return [decode_row(row) for row in rows]


def _along_kinds(
    connection: sqlite3.Connection,
    kinds: Sequence[str],
    agent: str | None,
    first: int,
    last: int,
    limit: int,
    newest_first: bool,
) -> list[StoredRow]:
    # One ordered walk a kind: SQLite would sort the whole range for an IN list.
    rows: list[StoredRow] = []
    for kind in dict.fromkeys(kinds):
        filters, values = "AND kind = ?", [kind]
        if agent is not None:
            filters, values = "AND kind = ? AND agent = ?", [kind, agent]
        rows += _select(connection, "INDEXED BY events_kind", filters, values, first, last, limit, newest_first)
    rows.sort(key=lambda row: row[0], reverse=newest_first)
    return rows[:limit]


def _along_agent(
    connection: sqlite3.Connection,
    agent: str,
    kinds: Sequence[str],
    first: int,
    last: int,
    limit: int,
    newest_first: bool,
) -> list[StoredRow]:
    filters, values = "AND agent = ?", [agent, *kinds]
    if kinds:
        filters += f" AND kind IN ({','.join('?' * len(kinds))})"
    order = "DESC" if newest_first else "ASC"
    blocks = connection.execute(
        f"SELECT block FROM agent_blocks WHERE agent = ? AND block BETWEEN ? AND ? ORDER BY block {order}",  # noqa: S608 fixed words only
        (agent, first >> BLOCK_BITS, last >> BLOCK_BITS),
    ).fetchall()
    rows: list[StoredRow] = []
    for (block,) in blocks:
        begin, end = max(first, block << BLOCK_BITS), min(last, ((block + 1) << BLOCK_BITS) - 1)
        rows += _select(connection, "NOT INDEXED", filters, values, begin, end, limit - len(rows), newest_first)
        if len(rows) >= limit:
            break
    return rows


def _select(
    connection: sqlite3.Connection,
    index: str,
    filters: str,
    values: Sequence[str | int],
    first: int,
    last: int,
    limit: int,
    newest_first: bool,
) -> list[StoredRow]:
    order = "DESC" if newest_first else "ASC"
    statement = f"SELECT {COLUMNS} FROM events {index} WHERE seq BETWEEN ? AND ? {filters} ORDER BY seq {order} LIMIT ?"  # noqa: S608 fixed words only; values are bound
    return connection.execute(statement, (first, last, *values, limit)).fetchall()
