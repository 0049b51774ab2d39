"""The file: tables, versions, and every way in which it can be unusable, said clearly. Nothing is ever deleted here."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from toka_runtime.errors import StoreError, StoreFull

DATABASE = "events.db"
APPLICATION_ID = 0x746F6B61
VERSION = 2
"""2: with a hash chain."""
QUICK_CHECK_BELOW_BYTES = 64 * 1024 * 1024
"""After an unclean end a file of at most this size is checked whole (about 0.1 s per 64 MiB)."""
BLOCK_BITS = 12
WAL_LIMIT_BYTES = 16 * 1024 * 1024

TABLES = """
CREATE TABLE events(
  seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, host TEXT NOT NULL, agent TEXT, run TEXT, kind TEXT NOT NULL,
  body TEXT NOT NULL, hash BLOB);
CREATE TABLE agent_blocks(agent TEXT NOT NULL, block INTEGER NOT NULL, PRIMARY KEY(agent, block)) WITHOUT ROWID;
CREATE INDEX events_kind ON events(kind, seq);
CREATE TABLE checkpoint(agent TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE conversations(
  run TEXT NOT NULL, task INTEGER NOT NULL, attempt INTEGER NOT NULL,
  generation INTEGER NOT NULL, length INTEGER NOT NULL, updated_at INTEGER NOT NULL,
  PRIMARY KEY(run, task, attempt)) WITHOUT ROWID;
CREATE TABLE turns(
  id INTEGER PRIMARY KEY, run TEXT NOT NULL, task INTEGER NOT NULL, attempt INTEGER NOT NULL,
  position INTEGER NOT NULL, since INTEGER NOT NULL, until INTEGER, at INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX turns_place ON turns(run, task, attempt, position);
CREATE INDEX turns_superseded ON turns(until) WHERE until IS NOT NULL;
CREATE TABLE results(
  run TEXT NOT NULL, task INTEGER NOT NULL, attempt INTEGER NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY(run, task));
CREATE TABLE tool_calls(
  run TEXT NOT NULL, call TEXT NOT NULL, task INTEGER NOT NULL, attempt INTEGER NOT NULL, tool TEXT NOT NULL,
  arguments TEXT NOT NULL, begun_at INTEGER NOT NULL, ended_at INTEGER, outcome TEXT, result TEXT,
  PRIMARY KEY(run, call));
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE probe(body BLOB);
CREATE VIEW log AS SELECT seq, datetime(at / 1000000, 'unixepoch') AS at, agent, run, kind, body FROM events;
"""
CHAIN_TABLES = """
CREATE TABLE audit_checkpoints(
  seq INTEGER PRIMARY KEY, what TEXT NOT NULL, at INTEGER NOT NULL, hash BLOB NOT NULL, signature BLOB NOT NULL);
CREATE TABLE audit_dropped(
  block INTEGER PRIMARY KEY, at INTEGER NOT NULL, gaps BLOB NOT NULL, signature BLOB NOT NULL);
"""
"""Which agents have events in which block of `1 << BLOCK_BITS` sequence numbers stands in `agent_blocks`: an index of
events by agent costs more than the rows themselves (a hundred agents dirty a hundred pages a commit: 22 µs an event
against 4).

Times are microseconds since 1970 (UTC). `events.body` is the event's own JSON; `turns` rows belong to generations
`since` ≤ g < `until` (NULL: still current); the checkpoint's row for agent '' holds the rest of the fleet."""

_RECOVER = (
    "nothing was changed; move {name}* to another folder to begin a new log, "
    "or try `sqlite3 {name} .recover` on a copy of it"
)


def unusable(path: Path, error: sqlite3.Error | str) -> StoreError:
    return StoreError(f"the event store {path} is damaged: {error}", hint=_RECOVER.format(name=path.name))


def store_error(path: Path, error: sqlite3.Error) -> StoreError:
    """What an SQLite error means for us: damaged, or not writable for now (`StoreFull`)."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return unusable(path, error)
    if isinstance(error, sqlite3.OperationalError):
        return StoreFull(
            f"the event store {path} cannot be written: {error}" + (f" [{name}]" if name else ""),
            hint="free some space on its disk, or check its permissions; it is tried again by itself",
        )
    return StoreError(f"the event store {path} failed: {error}" + (f" [{name}]" if name else ""))


def make_folder(folder: Path) -> None:
    """Create the state folder, readable by its owner only. An existing one keeps its permissions."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot create the state folder {folder}: {error.strerror}",
            hint="choose another one with --state-dir",
        ) from error


def open_database(path: Path) -> sqlite3.Connection:
    """A connection for writing; the file is created when missing. It may be used from one thread at a time.

    Raises `StoreError`: not a database, not ours, from a newer version, damaged. The file is then left as it was.
    """
    connection: sqlite3.Connection | None = None
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)
        connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
        _check_version(path, connection)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA journal_size_limit={WAL_LIMIT_BYTES}")
        connection.execute("PRAGMA cache_size=-8192")
        _check_integrity(path, connection)
    except OSError as error:
        raise StoreError(
            f"cannot open {path}: {error.strerror}", hint="check the folder's owner and permissions"
        ) from error
    except (sqlite3.Error, StoreError) as error:
        if connection is not None:
            connection.close()
        raise store_error(path, error) if isinstance(error, sqlite3.Error) else error from error
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write. It may be used from one thread at a time."""
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5.0, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA query_only=1")
        connection.execute("PRAGMA cache_size=-8192")
    except sqlite3.Error as error:
        raise store_error(path, error) from error
    return connection


def _check_version(path: Path, connection: sqlite3.Connection) -> None:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    if version == 0 and application == 0:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise StoreError(f"{path} is a database of another program", hint="choose another folder with --state-dir")
        # Order matters: auto_vacuum can only be set before the first table.
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(
            f"BEGIN IMMEDIATE; {TABLES} {CHAIN_TABLES} "
            f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={VERSION}; COMMIT;"
        )
    else:
        check_readable(path, connection)
        connection.execute("PRAGMA journal_mode=WAL")
        if version == 1:
            connection.executescript(
                f"BEGIN IMMEDIATE; ALTER TABLE events ADD COLUMN hash BLOB; {CHAIN_TABLES} "
                f"PRAGMA user_version={VERSION}; COMMIT;"
            )


def check_readable(path: Path, connection: sqlite3.Connection) -> None:
    """Raises StoreError for a file that is not ours, or of a later version."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID:
        raise StoreError(f"{path} is a database of another program", hint="choose another folder with --state-dir")
    if version > VERSION:
        raise StoreError(
            f"{path} was written by a newer toka (store version {version}, this one knows {VERSION})",
            hint="upgrade toka-console, or choose another folder with --state-dir",
        )


def _check_integrity(path: Path, connection: sqlite3.Connection) -> None:
    row = connection.execute("SELECT value FROM meta WHERE key = 'clean'").fetchone()
    clean = row is None or row[0] == "1"
    if not clean and path.stat().st_size <= QUICK_CHECK_BELOW_BYTES:
        answer: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if answer != "ok":
            raise unusable(path, answer)
    set_meta(connection, "clean", "0")


def set_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
    connection.execute("INSERT OR REPLACE INTO meta(key, value) VALUES (?, ?)", (key, value))


def get_meta(connection: sqlite3.Connection, key: str, default: str = "") -> str:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return default if row is None else str(row[0])
