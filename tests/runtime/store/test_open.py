"""Opening: one holder, private files, and a clear answer for every file that cannot be used, which is left alone."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes import events as fake
from toka_runtime.errors import StoreError, StoreLocked
from toka_runtime.store.schema import VERSION

ALPHA = fake.AGENTS[0]


async def test_folder_and_files_are_for_their_owner_only(open_store, tmp_path: Path) -> None:
    store = await open_store(tmp_path / "a" / "b")
    await store.append(fake.tool_started("c"), agent=ALPHA)
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o700
    files = list((tmp_path / "a/b").iterdir())
    assert {file.name for file in files} >= {"events.db", "events.db-wal", "lock"}
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)


async def test_a_file_that_others_could_read_is_closed_to_them(open_store, tmp_path: Path) -> None:
    await (await open_store()).aclose()
    (tmp_path / "state/events.db").chmod(0o644)
    await open_store()
    assert (tmp_path / "state/events.db").stat().st_mode & 0o777 == 0o600


async def test_a_second_store_on_the_folder_is_refused_by_pid(store, open_store, tmp_path: Path) -> None:
    with pytest.raises(StoreLocked) as caught:
        await open_store()
    assert f"pid {os.getpid()}" in caught.value.message
    assert str(tmp_path / "state") in caught.value.message
    assert caught.value.hint
    assert (await store.append(fake.tool_started("c"), agent=ALPHA)).seq == 1


async def test_the_lock_of_another_process_counts_and_dies_with_it(open_store, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, pathlib\n"
            "from toka_runtime.store.lock import StateLock\n"
            "lock = StateLock.acquire(pathlib.Path(sys.argv[1]))\n"
            "print('held', flush=True)\nsys.stdin.read()",
            str(folder),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreLocked, match=f"pid {holder.pid}"):
            await open_store()
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        assert (await open_store()).head == 0
    finally:
        holder.kill()
        holder.communicate()


async def test_a_failed_open_lets_go_of_the_lock(open_store, tmp_path: Path) -> None:
    file = tmp_path / "state/events.db"
    file.parent.mkdir()
    file.write_bytes(b"not a database, but long enough to be taken for one" * 40)
    for _ in range(2):
        with pytest.raises(StoreError, match="damaged"):
            await open_store()
    file.unlink()
    assert (await open_store()).head == 0


def overwrite(file: Path) -> None:
    file.write_bytes(b"\0" * file.stat().st_size)


def cut_short(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)


def cut_off_the_last_page(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size - 4096)


def cut_to_a_stump(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(50)


@pytest.mark.parametrize("damage", [overwrite, cut_short, cut_off_the_last_page, cut_to_a_stump])
async def test_a_damaged_file_is_reported_and_left_alone(
    open_store, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    store = await open_store()
    for n in range(300):
        store.post(fake.output(f"{n}" * 50), agent=ALPHA)
    await store.aclose()
    file = tmp_path / "state/events.db"
    damage(file)
    before = file.read_bytes()
    with pytest.raises(StoreError) as caught:
        await open_store()
    assert "damaged" in caught.value.message
    assert "events.db" in caught.value.hint
    assert "recover" in caught.value.hint
    assert file.read_bytes() == before


async def test_a_clean_end_is_written_down(open_store, tmp_path: Path) -> None:
    def clean() -> str:
        database = sqlite3.connect(tmp_path / "state/events.db")
        (value,) = database.execute("SELECT value FROM meta WHERE key = 'clean'").fetchone()
        database.close()
        return value

    for _ in range(2):
        store = await open_store()
        assert clean() == "0"
        await store.aclose()
        assert clean() == "1"


async def test_after_an_unclean_end_the_whole_file_is_checked(open_store, tmp_path: Path) -> None:
    store = await open_store()
    for n in range(300):
        store.post(fake.output(f"{n}" * 50), agent=ALPHA)
    await store.aclose()
    file = tmp_path / "state/events.db"
    database = sqlite3.connect(file)
    database.execute("UPDATE meta SET value = '0' WHERE key = 'clean'")
    database.commit()
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (root,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'events_kind'").fetchone()
    database.close()
    with file.open("r+b") as opened:
        opened.seek((root - 1) * 4096)
        opened.write(b"\xff" * 4096)
    with pytest.raises(StoreError, match="damaged"):
        await open_store()


async def test_a_newer_version_is_refused_by_name(open_store, tmp_path: Path) -> None:
    await (await open_store()).aclose()
    database = sqlite3.connect(tmp_path / "state/events.db")
    database.execute(f"PRAGMA user_version={VERSION + 1}")
    database.close()
    with pytest.raises(StoreError, match=f"store version {VERSION + 1}, this one knows {VERSION}") as caught:
        await open_store()
    assert "upgrade" in caught.value.hint


async def test_a_database_of_another_program_is_not_touched(open_store, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    database = sqlite3.connect(tmp_path / "state/events.db")
    database.execute("CREATE TABLE theirs(x)")
    database.close()
    with pytest.raises(StoreError, match="another program"):
        await open_store()
    database = sqlite3.connect(tmp_path / "state/events.db")
    assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    database.close()


async def test_a_state_folder_that_cannot_be_is_a_clear_error(open_store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="state folder") as caught:
        await open_store(tmp_path / "file" / "state")
    assert "--state-dir" in caught.value.hint
    with pytest.raises(StoreError):
        await open_store(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_a_folder_without_write_permission_is_a_clear_error(open_store, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o500)
    with pytest.raises(StoreError, match="cannot open"):
        await open_store()
