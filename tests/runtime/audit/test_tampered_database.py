"""Thousands of ways to change a log behind the runtime's back: none goes unseen."""

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from toka_runtime.audit.chain import Head, Record, link, record_line
from toka_runtime.audit.key import AuditKey
from toka_runtime.audit.verify import Fault, Report, verify
from toka_runtime.store.chain_rows import hash_at, read_records, witnessed_head
from toka_runtime.store.proof import chain_of
from toka_runtime.store.schema import DATABASE

CASES = 1500
COLUMNS = ("at", "host", "agent", "run", "kind", "body", "hash")

Change = Callable[[sqlite3.Connection, random.Random], None]


class Log:
    """Copies of a log in memory."""

    def __init__(self, folder: Path) -> None:
        self.key = AuditKey.load(folder)
        self.witness = witnessed_head(folder)
        with closing(sqlite3.connect(folder / DATABASE)) as source, closing(sqlite3.connect(":memory:")) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")
            image = bytearray(target.serialize())
        # The file's own note that it is in WAL mode, which memory can't be.
        image[18:20] = b"\x01\x01"
        self._image = bytes(image)

    def copy(self) -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.deserialize(self._image)
        return connection

    def verify(self, connection: sqlite3.Connection, *, with_key: bool = True) -> Report:
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        seen = [(self.witness, "the witness")] if self.witness else []
        return verify(chain_of(connection, self.key.public), key=self.key if with_key else None, seen=seen)


@pytest.fixture(scope="module")
def log(recorded: Path) -> Log:
    return Log(recorded)


def seqs(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT seq FROM events ORDER BY seq")]


def flipped(value: object, chance: random.Random) -> object:
    """The same with one bit changed."""
    if value is None:
        return chance.choice(["", "x"])
    if isinstance(value, int):
        return value ^ (1 << chance.randrange(40))
    raw = bytearray(value if isinstance(value, bytes) else str(value).encode())
    if not raw:
        return "x"
    raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    if isinstance(value, bytes):
        return bytes(raw)
    return raw.decode("utf-8", "replace")


def edit(connection: sqlite3.Connection, chance: random.Random) -> None:
    seq, column = chance.choice(seqs(connection)), chance.choice(COLUMNS)
    value = connection.execute(f"SELECT {column} FROM events WHERE seq = ?", (seq,)).fetchone()[0]
    connection.execute(f"UPDATE events SET {column} = ? WHERE seq = ?", (flipped(value, chance), seq))


def delete(connection: sqlite3.Connection, chance: random.Random) -> None:
    connection.execute("DELETE FROM events WHERE seq = ?", (chance.choice(seqs(connection)),))


def delete_inside(connection: sqlite3.Connection, chance: random.Random) -> None:
    connection.execute("DELETE FROM events WHERE seq = ?", (chance.choice(seqs(connection)[:-1]),))


def cut(connection: sqlite3.Connection, chance: random.Random) -> None:
    connection.execute("DELETE FROM events WHERE seq >= ?", (chance.choice(seqs(connection)),))


def behead(connection: sqlite3.Connection, chance: random.Random) -> None:
    connection.execute("DELETE FROM events WHERE seq <= ?", (chance.choice(seqs(connection)),))


def close_up(connection: sqlite3.Connection, chance: random.Random) -> None:
    """Delete a record and move those behind it up."""
    found = seqs(connection)
    gone = chance.choice(found)
    connection.execute("DELETE FROM events WHERE seq = ?", (gone,))
    for seq in found:
        if seq > gone and not connection.execute("SELECT 1 FROM events WHERE seq = ?", (seq - 1,)).fetchone():
            connection.execute("UPDATE events SET seq = seq - 1 WHERE seq = ?", (seq,))


def insert(connection: sqlite3.Connection, chance: random.Random) -> None:
    """A copy of a record at a free place: behind the end, or where retention has made one."""
    found = seqs(connection)
    free = sorted(set(range(1, found[-1] + 3)) - set(found))
    connection.execute(
        "INSERT INTO events SELECT ?, at, host, agent, run, kind, body, "
        + chance.choice(["NULL", "hash", "zeroblob(32)"])
        + " FROM events WHERE seq = ?",
        (chance.choice(free), chance.choice(found)),
    )


def swap(connection: sqlite3.Connection, chance: random.Random) -> None:
    one, other = chance.sample(seqs(connection), 2)
    for before, after in ((one, -1), (other, one), (-1, other)):
        connection.execute("UPDATE events SET seq = ? WHERE seq = ?", (after, before))


def rewrite(connection: sqlite3.Connection, chance: random.Random) -> None:
    """Edit a record, make every hash after it again and the head, too: all that is possible without the key."""
    target = chance.choice(seqs(connection))
    connection.execute("UPDATE events SET body = body || ' ' WHERE seq = ?", (target,))
    before = hash_at(connection, target - 1) or bytes(32)
    rows = [(record, hashed) for record, hashed in read_records(connection, target - 1)]
    last = target - 1
    for record, _ in rows:
        if record.seq != last + 1:
            before = hash_at(connection, record.seq - 1) or bytes(32)
        before, last = link(before, record_line(record)), record.seq
        connection.execute("UPDATE events SET hash = ? WHERE seq = ?", (before, record.seq))
    connection.execute("UPDATE meta SET value = ? WHERE key = 'audit_head'", (f"{Head(last, before)} {'00' * 32}",))


def statements(connection: sqlite3.Connection, chance: random.Random) -> None:
    """What is signed: checkpoints and what retention took."""
    table, columns = chance.choice(
        [("audit_checkpoints", ("what", "at", "hash", "signature")), ("audit_dropped", ("at", "gaps", "signature"))]
    )
    row, column = chance.choice(connection.execute(f"SELECT rowid FROM {table}").fetchall())[0], chance.choice(columns)
    value = connection.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", (row,)).fetchone()[0]
    connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (flipped(value, chance), row))


def remove_statements(connection: sqlite3.Connection, chance: random.Random) -> None:
    what = ["audit_dropped", "audit_checkpoints WHERE what = 'begin'", "meta WHERE key = 'audit_head'"]
    connection.execute(f"DELETE FROM {chance.choice(what)}")


def head(connection: sqlite3.Connection, chance: random.Random) -> None:
    value = connection.execute("SELECT value FROM meta WHERE key = 'audit_head'").fetchone()[0]
    connection.execute("UPDATE meta SET value = ? WHERE key = 'audit_head'", (flipped(value, chance),))


CHANGES: tuple[Change, ...] = (
    edit, edit, edit, delete, cut, behead, close_up, insert, swap, rewrite, statements, remove_statements, head,
)  # fmt: skip


def content(connection: sqlite3.Connection) -> Iterator[str]:
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    return iter(line for line in connection.iterdump())


def test_as_it_was_written_it_is_good(log: Log) -> None:
    with closing(log.copy()) as connection:
        for with_key in (True, False):
            report = log.verify(connection, with_key=with_key)
            assert report.good, report.problems
            assert report.records == len(seqs(connection)) > 60
            assert report.dropped > 5
            assert report.head is not None
            assert report.signed_seq == report.head.seq == report.records + report.dropped


def test_every_change_is_seen(log: Log) -> None:
    chance = random.Random(20261123)
    with closing(log.copy()) as connection:
        untouched = list(content(connection))
    missed: list[str] = []
    for case in range(CASES):
        change = CHANGES[case % len(CHANGES)]
        with closing(log.copy()) as connection:
            change(connection, chance)
            if log.verify(connection).good and list(content(connection)) != untouched:
                missed.append(f"{case}: {change.__name__}")
    assert missed == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (edit, Fault.EDIT),
        (delete_inside, Fault.DELETION),
        (cut, Fault.TRUNCATION),
        (rewrite, Fault.REWRITE),
        (swap, Fault.EDIT),
    ],
)
def test_the_public_key_alone_tells(log: Log, change: Change, fault: Fault) -> None:
    chance = random.Random(7)
    for _ in range(20):
        with closing(log.copy()) as connection:
            change(connection, chance)
            report = log.verify(connection, with_key=False)
            assert not report.good
            assert fault in {problem.fault for problem in report.problems}


def test_the_first_bad_record_is_named(log: Log) -> None:
    with closing(log.copy()) as connection:
        target = seqs(connection)[10]
        connection.execute("UPDATE events SET body = '{}' WHERE seq = ?", (target,))
        problem = log.verify(connection).problems[0]
        assert (problem.fault, problem.seq) == (Fault.EDIT, target)
        assert f"record {target} " in problem.message


def test_a_log_put_back_from_an_older_copy_is_seen(log: Log) -> None:
    """Whole and sealed in itself: only who has seen a later head can tell."""
    with closing(log.copy()) as connection:
        head_now = log.verify(connection).head
        assert head_now is not None
        later = Head(head_now.seq + 3, bytes(32))
        report = verify(chain_of(connection), key=log.key, seen=[(later, "an operator")])
        assert [problem.fault for problem in report.problems] == [Fault.ROLLBACK]
        other = Head(head_now.seq, bytes(32))
        report = verify(chain_of(connection), key=log.key, seen=[(other, "an operator")])
        assert [problem.fault for problem in report.problems] == [Fault.REWRITE]
        assert "an operator" in report.problems[0].message


def test_lines_are_ascii_and_tell_all_fields_apart() -> None:
    record = Record(1, 2, "h\u202e", None, "r", "k", '{"text":"\u00fc\U0001f600\u2028"}')
    line = record_line(record)
    assert line.isascii()
    assert b"\\u202e" in line
    assert b"\\ud83d\\ude00" in line
    variants = [record._replace(agent=""), record._replace(agent="null"), record._replace(run=None)]
    assert len({line, *map(record_line, variants)}) == 4
