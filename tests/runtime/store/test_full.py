"""A store that cannot write: appends are refused, posts kept, subscribers see no hole, and it recovers by itself."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from fakes import events as fake
from toka_runtime.errors import StoreError, StoreFull
from toka_runtime.protocol.events import AgentSampled, Envelope, OutputAppended
from toka_runtime.protocol.usage import Usage
from toka_runtime.store.events import EventStore
from toka_runtime.store.transcripts import Transcripts

ALPHA = fake.AGENTS[0]
BIG = "x" * 60_000


def fill_up(store: EventStore) -> None:
    """No page more than there are: SQLite says SQLITE_FULL, as on a full disk."""
    limit_pages(store, 1)


def make_room(store: EventStore) -> None:
    limit_pages(store, 1_000_000)


def limit_pages(store: EventStore, pages: int) -> None:
    # A limit of the writing connection alone, and a full store takes no orders through its front door.
    store._writer._connection.execute(f"PRAGMA max_page_count={pages}").fetchall()


class Told:
    """What the store has told its owner."""

    def __init__(self, store: EventStore) -> None:
        self.failures: list[StoreError] = []
        self.recovered = asyncio.Event()
        store.on_failure = self.failures.append
        store.on_recovery = self.recovered.set


async def test_full_and_back(store: EventStore, seen: list[Envelope]) -> None:
    told = Told(store)
    await store.append(fake.tool_started("before"), agent=ALPHA)
    fill_up(store)
    with pytest.raises(StoreFull, match="full") as caught:
        await store.append(fake.tool_started("lost", target=BIG), agent=ALPHA)
    assert caught.value.hint
    assert store.failed is not None
    assert [type(error) for error in told.failures] == [StoreFull]
    with pytest.raises(StoreFull):
        await store.append(fake.tool_started("lost too", target=BIG), agent=ALPHA)
    assert len(told.failures) == 1, "a failure that goes on is told once"
    assert not told.recovered.is_set()
    make_room(store)
    await told.recovered.wait()
    assert store.failed is None
    await store.append(fake.tool_started("after", target=BIG), agent=ALPHA)
    assert [envelope.seq for envelope in seen] == [1, 2]
    assert [envelope.event.call for envelope in await store.read()] == ["before", "after"]  # type: ignore[union-attr]


async def test_posts_are_kept_in_order_and_written_when_there_is_room(store: EventStore, seen: list[Envelope]) -> None:
    told = Told(store)
    fill_up(store)
    for n in range(20):
        store.post(fake.tool_started(str(n), target=BIG), agent=ALPHA)
    with pytest.raises(StoreFull):
        await store.append(fake.tool_started("refused"), agent=ALPHA)
    store.post(fake.tool_started("20"), agent=ALPHA)
    assert seen == []
    make_room(store)
    await told.recovered.wait()
    await store.append(fake.tool_started("21"), agent=ALPHA)
    assert [envelope.seq for envelope in seen] == list(range(1, 23))
    assert [envelope.event.call for envelope in seen] == [str(n) for n in range(22)]  # type: ignore[union-attr]


async def test_an_agent_first_heard_of_in_a_failed_commit_is_found_later(store: EventStore) -> None:
    fill_up(store)
    with pytest.raises(StoreFull):
        await store.append(fake.tool_started("refused", target=BIG), agent=ALPHA)
    make_room(store)
    await store.append(fake.tool_started("kept"), agent=ALPHA)
    assert len(await store.read(agent=ALPHA)) == 1


async def test_samples_go_on_so_that_a_screen_stays_live(store: EventStore, seen: list[Envelope]) -> None:
    fill_up(store)
    store.post(fake.tool_started("waits", target=BIG), agent=ALPHA)
    store.sample(AgentSampled(usage=Usage(cpu_s=1)), agent=ALPHA)
    with pytest.raises(StoreFull):
        await store.append(fake.tool_started("refused", target=BIG), agent=ALPHA)
    store.sample(AgentSampled(usage=Usage(cpu_s=2)), agent=ALPHA)
    assert [(envelope.durable, envelope.event.usage.cpu_s) for envelope in seen] == [(False, 1), (False, 2)]  # type: ignore[union-attr]
    make_room(store)


async def test_it_recovers_although_nobody_writes(store: EventStore) -> None:
    told = Told(store)
    fill_up(store)
    with pytest.raises(StoreFull):
        await store.append(fake.tool_started("refused", target=BIG), agent=ALPHA)
    make_room(store)
    await told.recovered.wait()
    assert store.failed is None


async def test_a_journal_is_refused_too_and_left_whole(store: EventStore) -> None:
    journal = Transcripts(store)
    await journal.record("r1", 0, 1, 0, [{"role": "user", "content": "go"}])
    fill_up(store)
    with pytest.raises(StoreFull):
        await journal.record("r1", 0, 1, 0, [{"role": "user", "content": BIG}] * 3)
    assert await journal.conversation("r1", 0, 1) == [{"role": "user", "content": "go"}]
    make_room(store)


async def test_closing_a_full_store_says_what_was_lost(open_store, tmp_path: Path) -> None:
    store = await open_store()
    await store.append(fake.tool_started("kept"), agent=ALPHA)
    fill_up(store)
    for n in range(3):
        store.post(fake.tool_started(str(n), target=BIG), agent=ALPHA)
    with pytest.raises(StoreFull, match="3 events could not be written"):
        await store.aclose()
    await store.aclose()
    again = await open_store()
    assert again.head == 1


async def test_output_above_the_bound_is_dropped_and_counted_and_nothing_else_is(
    store: EventStore, seen: list[Envelope], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store._pending, "_max_rows", 100)
    text = "é" * 50
    fill_up(store)
    store.post(fake.tool_started("wedge", target=BIG), agent=ALPHA)
    with pytest.raises(StoreFull):
        await store.append(fake.tool_started("refused", target=BIG), agent=ALPHA)
    for n in range(1000):
        store.post(fake.output(text, call="a" if n % 2 else "b"), agent=ALPHA)
        if n % 10 == 0:
            store.post(fake.tool_started(str(n)), agent=ALPHA)
    told = Told(store)
    make_room(store)
    await told.recovered.wait()
    await store.append(fake.tool_started("end"), agent=ALPHA)
    calls = [envelope.event.call for envelope in seen if envelope.event.kind == "tool.call_started"]  # type: ignore[union-attr]
    assert calls == ["wedge", *(str(n) for n in range(0, 1000, 10)), "end"]
    outputs = [envelope.event for envelope in seen if isinstance(envelope.event, OutputAppended)]
    assert sum(len(event.text.encode()) + event.dropped_bytes for event in outputs) == 1000 * 100
    assert 50 < len(outputs) < 110
    assert [envelope.seq for envelope in seen] == list(range(1, len(seen) + 1))


SCRIPT = """
import asyncio, json, resource, signal, sys
from pathlib import Path
from fakes import events as fake
from toka_runtime.clock import SystemClock
from toka_runtime.errors import StoreFull
from toka_runtime.store.events import EventStore

async def main():
    store = await EventStore.open(Path(sys.argv[1]), host=fake.HOST, clock=SystemClock())
    seen, recovered = [], asyncio.Event()
    store.on_commit = lambda envelopes: seen.extend(envelope.seq for envelope in envelopes)
    store.on_recovery = recovered.set
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
    refused = None
    written = 0
    while refused is None:
        try:
            await store.append(fake.tool_started(str(written), target="x" * 5000), agent="alpha")
            written += 1
        except StoreFull as error:
            refused = error.message
    store.post(fake.tool_started("posted"), agent="alpha")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await recovered.wait()
    last = await store.append(fake.tool_started("last"), agent="alpha")
    await store.aclose()
    print(json.dumps({"refused": refused, "written": written, "seen": seen, "last": last.seq}))

asyncio.run(main())
"""


async def test_a_real_write_error_of_the_kernel(open_store, tmp_path: Path, repo_root: Path) -> None:
    """EFBIG from write(2), the nearest to a full disk that needs no rights: the path through the operating system."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "state")],
        capture_output=True,
        check=False,
        cwd=repo_root / "tests",
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert "cannot be written" in told["refused"]
    assert told["written"] > 10
    assert told["seen"] == list(range(1, told["written"] + 3))
    store = await open_store()
    calls = [envelope.event.call for envelope in await store.read()]  # type: ignore[union-attr]
    assert calls == [*(str(n) for n in range(told["written"])), "posted", "last"]
