"""The chain as the store writes it: migration, retention, crashes, a lost key, a log that was put back."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fakes import events as fake
from fakes.clock import FakeClock
from fakes.crash import Crash
from fakes.recorded_log import OUTPUT_GOES
from toka_runtime.audit.key import KEY_FILE, AuditKey
from toka_runtime.audit.verify import Fault
from toka_runtime.errors import StoreError
from toka_runtime.store.chain_rows import stored_head
from toka_runtime.store.events import EventStore
from toka_runtime.store.proof import verify_log
from toka_runtime.store.retention import DAY_S
from toka_runtime.store.schema import DATABASE

ALPHA = fake.AGENTS[0]


async def write(store: EventStore, count: int) -> None:
    for number in range(count):
        store.post(fake.output(f"line {number}\n"), agent=ALPHA)
        await store.append(fake.tool_started(str(number)), agent=ALPHA)


async def test_a_log_is_verified_while_it_is_written(store: EventStore) -> None:
    await write(store, 20)
    report = verify_log(store.state_dir)
    assert report.good, report.problems
    assert report.records == 40
    assert report.sealed
    assert not store.findings


async def test_without_the_key_only_what_is_signed_is_proven(open_store, tmp_path: Path) -> None:
    store = await open_store()
    await write(store, 20)
    public = AuditKey.load(store.state_dir).public
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(store.state_dir / DATABASE)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    report = verify_log(copy, public=public)
    assert report.good, report.problems
    assert (report.sealed, report.unsigned) == (None, 40)
    await store.aclose()
    report = verify_log(store.state_dir, public=public)
    assert report.unsigned == 0, "closing signs the head"


async def test_a_log_from_before_the_chain_says_so(open_store) -> None:
    store = await open_store()
    await write(store, 5)
    await store.aclose()
    folder = store.state_dir
    with closing(sqlite3.connect(folder / DATABASE)) as old:
        # As version 1 had it.
        old.executescript(
            "ALTER TABLE events DROP COLUMN hash; DROP TABLE audit_checkpoints; DROP TABLE audit_dropped;"
            "DELETE FROM meta WHERE key LIKE 'audit%'; PRAGMA user_version=1;"
        )
    for name in (KEY_FILE, "audit.head", "audit.pub"):
        (folder / name).unlink()
    assert [problem.fault for problem in verify_log(folder).problems] == [Fault.DELETION]
    again = await open_store()
    await write(again, 5)
    report = verify_log(folder)
    assert report.good, report.problems
    assert (report.unchained, report.records) == (10, 10)
    assert len(await again.read()) == 20


async def test_what_retention_takes_is_signed_for_again_and_again(open_store, clock: FakeClock) -> None:
    store = await open_store(retention=OUTPUT_GOES)
    for round_ in range(3):
        await write(store, 30)
        await clock.advance(2 * DAY_S)
        await store.apply_retention()
        report = verify_log(store.state_dir)
        assert report.good, report.problems
        assert report.records + report.dropped == 60 * (round_ + 1)
        assert report.dropped >= 25 * (round_ + 1)


async def test_retention_signs_for_nothing_that_was_altered(open_store, clock: FakeClock) -> None:
    store = await open_store(retention=OUTPUT_GOES)
    await write(store, 30)
    await clock.advance(2 * DAY_S)
    await store.apply_retention()
    await store.transact(lambda connection: connection.execute("UPDATE audit_dropped SET at = at + 1"))
    await write(store, 30)
    await clock.advance(2 * DAY_S)
    with pytest.raises(StoreError):
        await store.apply_retention()
    assert len(await store.read(kinds=["output.appended"])) > 25


async def test_a_crash_is_noted_and_leaves_a_good_log(open_store) -> None:
    store = await open_store()
    await write(store, 20)
    crash = Crash(store.state_dir)
    crash.freeze()
    await store.aclose()
    crash.thaw()
    again = await open_store()
    assert [finding.code for finding in again.findings] == ["audit.reopened"]
    await write(again, 5)
    assert verify_log(again.state_dir).good


async def test_an_older_copy_put_back_is_noted(open_store, tmp_path: Path) -> None:
    store = await open_store()
    await write(store, 5)
    await store.aclose()
    shutil.copy(store.state_dir / DATABASE, tmp_path / "older")
    again = await open_store()
    await write(again, 5)
    await again.aclose()
    shutil.copy(tmp_path / "older", store.state_dir / DATABASE)
    assert [problem.fault for problem in verify_log(store.state_dir).problems] == [Fault.ROLLBACK]
    last = await open_store()
    assert [finding.code for finding in last.findings] == ["audit.rolled_back"]


async def test_a_cut_tail_is_noted_and_stays_to_be_seen(open_store) -> None:
    store = await open_store()
    await write(store, 5)
    await store.aclose()
    with closing(sqlite3.connect(store.state_dir / DATABASE)) as connection, connection:
        connection.execute("DELETE FROM events WHERE seq > 7")
    again = await open_store()
    assert "audit.altered" in {finding.code for finding in again.findings}
    envelope = await again.append(fake.tool_started("later"), agent=ALPHA)
    assert envelope.seq == 11, "no number is used twice"
    first = verify_log(again.state_dir).problems[0]
    assert (first.fault, first.seq) == (Fault.DELETION, 8)


async def test_without_its_key_a_log_is_not_written(open_store) -> None:
    store = await open_store()
    await write(store, 1)
    await store.aclose()
    key = store.state_dir / KEY_FILE
    assert key.stat().st_mode & 0o777 == 0o600
    kept = key.rename(key.with_name("kept"))
    with pytest.raises(StoreError, match="is missing"):
        await open_store()
    AuditKey.create(store.state_dir)
    with pytest.raises(StoreError, match="another one"):
        await open_store()
    shutil.copy(kept, key)
    key.chmod(0o644)
    with pytest.raises(StoreError, match="read by others"):
        await open_store()
    key.chmod(0o600)
    again = await open_store()
    assert again.head == 2


async def test_a_failed_commit_leaves_the_chain_whole(store: EventStore) -> None:
    await write(store, 3)

    def fail(connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(StoreError):
        await store.transact(fail)
    await write(store, 3)
    with closing(sqlite3.connect(store.state_dir / DATABASE)) as connection:
        head, _ = stored_head(connection)
    assert head is not None
    assert head.seq == store.head
    assert verify_log(store.state_dir).good
