"""The log of a state folder seen from outside: also while a runtime in another process writes it."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from toka_runtime.errors import StoreError
from toka_runtime.protocol.events import Envelope
from toka_runtime.store.reader import READ_LIMIT, read_events
from toka_runtime.store.schema import DATABASE, check_readable, open_reader


class LogTail:
    """Reads on from where it has come to. It takes no lock that a writer would wait for, and changes nothing."""

    def __init__(self, state_dir: Path) -> None:
        """Raises StoreError: no log there, not readable, not ours, from a newer version, damaged."""
        self._path = state_dir / DATABASE
        if not self._path.is_file():
            raise StoreError(f"there is no event log in {state_dir}", hint="name a runtime's folder with --state-dir")
        with _reading(self._path):
            self._connection = open_reader(self._path)
            try:
                check_readable(self._path, self._connection)
            except (sqlite3.Error, StoreError):
                self._connection.close()
                raise
        self._seq = 0

    def __enter__(self) -> LogTail:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    def read_on(self, *, kinds: Sequence[str], agent: str | None = None) -> Iterator[Envelope]:
        """Committed events of these kinds that were not read yet, in order, to the last. Raises StoreError. Where there
        is nothing new it costs some 10 µs: it may be asked several times a second."""
        while True:
            with _reading(self._path):
                page = read_events(
                    self._connection,
                    after_seq=self._seq,
                    before_seq=None,
                    agent=agent,
                    kinds=kinds,
                    limit=READ_LIMIT,
                    newest_first=False,
                )
            for envelope in page:
                self._seq = envelope.seq
                yield envelope
            if len(page) < READ_LIMIT:
                return


@contextmanager
def _reading(path: Path) -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(
            f"the event log {path} cannot be read: {error}", hint="check its owner, its permissions and its disk"
        ) from error
