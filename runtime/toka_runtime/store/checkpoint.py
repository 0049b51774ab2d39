"""The folded state, kept beside the log, so that opening a big log costs a fold of its last few thousand events."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator

from pydantic import ValidationError

from toka_runtime.protocol.events import Envelope
from toka_runtime.protocol.fold import fold
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.snapshot import AgentView, FleetState
from toka_runtime.protocol.usage import HostUsage, Usage
from toka_runtime.store.rows import COLUMNS, decode_row

EVERY_EVENTS = 5000
SLICE_AGENTS = 25
SLICE_EVENTS = 200
_FLEET = ""
"""Key of the row that holds everything but the agents; no agent has an empty name."""

Slices = Generator[None, None, None]


class Checkpoints:
    """Writes checkpoints, one row an agent, only those that changed. For the writer thread."""

    def __init__(self) -> None:
        self._saved: dict[AgentName, AgentView] = {}

    def save(self, connection: sqlite3.Connection, state: FleetState) -> Slices:
        """In slices; what is written is written at the end, in one transaction. `state` must hold committed events."""
        if state.seq <= checkpoint_seq(connection):
            return
        saved = self._saved
        # Until it is written, nothing may count as written.
        self._saved = {}
        rows: list[tuple[str, str]] = [(_FLEET, state.model_copy(update={"agents": {}}).model_dump_json())]
        for number, (name, view) in enumerate(state.agents.items(), 1):
            if saved.get(name) is not view:
                rows.append((name, view.model_dump_json()))
            if number % SLICE_AGENTS == 0:
                yield
        connection.execute("BEGIN IMMEDIATE")
        if not saved:
            connection.execute("DELETE FROM checkpoint")
        connection.executemany(
            "DELETE FROM checkpoint WHERE agent = ?", [(name,) for name in saved.keys() - state.agents]
        )
        connection.executemany("INSERT OR REPLACE INTO checkpoint(agent, body) VALUES (?, ?)", rows)
        connection.execute("COMMIT")
        self._saved = dict(state.agents)

    def catch_up(self, connection: sqlite3.Connection) -> Slices:
        """Make the checkpoint from the log itself, for a store whose owner keeps no state."""
        state = load(connection)
        while True:
            after = fold(state, _events(connection, state.seq, SLICE_EVENTS))
            if after.seq == state.seq:
                break
            state = after
            yield
        yield from self.save(connection, state)


def checkpoint_seq(connection: sqlite3.Connection) -> int:
    """The last event that the checkpoint holds, 0 without one."""
    row = connection.execute("SELECT json_extract(body, '$.seq') FROM checkpoint WHERE agent = ?", (_FLEET,)).fetchone()
    return 0 if row is None else int(row[0])


def current_runs(connection: sqlite3.Connection) -> set[str]:
    """The latest run of each agent, as far as the checkpoint knows."""
    rows = connection.execute("SELECT json_extract(body, '$.run') FROM checkpoint WHERE agent <> ?", (_FLEET,))
    return {str(row[0]) for row in rows if row[0] is not None}


def load(connection: sqlite3.Connection) -> FleetState:
    """The checkpoint; an empty state when there is none, or none that this version can read (the log is then folded
    from its beginning). Samples are not kept over a restart: of their figures only the CPU time consumed stays."""
    bodies: dict[str, str] = dict(connection.execute("SELECT agent, body FROM checkpoint"))
    fleet = bodies.pop(_FLEET, None)
    if fleet is None:
        return FleetState()
    try:
        state = FleetState.model_validate_json(fleet)
        agents = {AgentName(name): AgentView.model_validate_json(body) for name, body in bodies.items()}
    except ValidationError:
        return FleetState()
    agents = {name: view.model_copy(update={"usage": Usage(cpu_s=view.usage.cpu_s)}) for name, view in agents.items()}
    return state.model_copy(update={"agents": agents, "host_usage": HostUsage()})


def latest_state(connection: sqlite3.Connection) -> FleetState:
    """The checkpoint carried forward to the end of the log, as of one moment."""
    connection.execute("BEGIN")
    try:
        state = load(connection)
        while True:
            after = fold(state, _events(connection, state.seq, 2000))
            if after.seq == state.seq:
                return state
            state = after
    finally:
        connection.execute("COMMIT")


def _events(connection: sqlite3.Connection, after_seq: int, limit: int) -> list[Envelope]:
    rows = connection.execute(f"SELECT {COLUMNS} FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (after_seq, limit))  # noqa: S608
    return [decode_row(row) for row in rows.fetchall()]
