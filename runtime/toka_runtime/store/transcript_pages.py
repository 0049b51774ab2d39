"""Journals page by page, for whoever reads a whole run: bounded however long its messages are."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any, Literal

from toka_runtime.protocol.ids import RunId
from toka_runtime.store.rows import from_micros

PAGE_RECORDS = 500
PAGE_CHARS = 1024 * 1024
"""Of the JSON in a page; one longer record is a page of its own."""

Part = Literal["turns", "calls", "results"]


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    key: str
    columns: tuple[str, ...]
    json: tuple[str, ...]
    times: tuple[str, ...]


_TABLES: dict[Part, _Table] = {
    "turns": _Table(
        "turns", "id", ("run", "task", "attempt", "position", "since", "until", "at", "body"), ("body",), ("at",)
    ),
    "calls": _Table(
        "tool_calls",
        "rowid",
        ("run", "task", "attempt", "call", "tool", "arguments", "begun_at", "ended_at", "outcome", "result"),
        ("arguments", "result"),
        ("begun_at", "ended_at"),
    ),
    "results": _Table("results", "rowid", ("run", "task", "attempt", "at", "body"), ("body",), ("at",)),
}


@dataclass(frozen=True, slots=True)
class Page:
    records: list[dict[str, Any]]
    """As `Turn`, `ToolCall` and `TaskResult`, but times are ISO text, and the message or result is called `body`."""
    next: int | None
    """To be asked for with `after`; None: there is no more."""


def read_page(connection: sqlite3.Connection, run: RunId, part: Part, after: int, limit: int) -> Page:
    """The records of a run after the one that `after` stands for (0: from the first), in the order of recording."""
    table = _TABLES[part]
    limit = max(1, min(limit, PAGE_RECORDS))
    # Keys alone are sorted: bodies are long.
    keys = [
        key
        for (key,) in connection.execute(
            f"SELECT {table.key} FROM {table.name} WHERE run = ? AND {table.key} > ? ORDER BY {table.key} LIMIT ?",  # noqa: S608 fixed words only
            (run, after, limit + 1),
        )
    ]
    records: list[dict[str, Any]] = []
    chars = 0
    for key in keys[:limit]:
        row = connection.execute(
            f"SELECT {', '.join(table.columns)} FROM {table.name} WHERE {table.key} = ?",  # noqa: S608 fixed words only
            (key,),
        ).fetchone()
        chars += sum(len(value) for value in row if isinstance(value, str))
        if records and chars > PAGE_CHARS:
            break
        records.append(_record(table, dict(zip(table.columns, row, strict=True))))
    return Page(records, keys[len(records) - 1] if len(records) < len(keys) else None)


def _record(table: _Table, row: dict[str, Any]) -> dict[str, Any]:
    for column in table.json:
        row[column] = None if row[column] is None else json.loads(row[column])
    for column in table.times:
        row[column] = None if row[column] is None else from_micros(row[column]).isoformat()
    return row
