"""Appending: one order, no gaps, nothing seen before it is committed, a bad event harms nobody else."""

import asyncio
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from fakes import events as fake
from fakes.clock import FakeClock
from toka_runtime.errors import StoreError
from toka_runtime.protocol.codec import encode_event
from toka_runtime.protocol.events import AgentSampled, Envelope, OutputAppended, UnknownEvent
from toka_runtime.protocol.usage import Usage
from toka_runtime.store.events import EventStore
from toka_runtime.store.rows import MAX_EVENT_BYTES

ALPHA, BETA, _ = fake.AGENTS


async def test_every_kind_comes_back_as_it_went_in(store: EventStore, seen: list[Envelope]) -> None:
    durable = [event for event in fake.every_kind() if event.durable]
    for event in durable:
        await store.append(event, agent=ALPHA)
    read = await store.read()
    assert [envelope.event for envelope in read] == durable
    assert read == seen
    assert [envelope.seq for envelope in read] == list(range(1, len(durable) + 1))
    assert store.head == len(durable)


async def test_an_unknown_kind_is_kept_whole(store: EventStore) -> None:
    event = UnknownEvent(
        kind="agent.dreamed", body={"kind": "agent.dreamed", "of": ["sheep", {"electric": True}], "é": "✓"}
    )
    await store.append(event, agent=ALPHA)
    assert (await store.read(kinds=["agent.dreamed"]))[0].event == event


async def test_time_host_agent_and_run_are_kept_to_the_microsecond(store: EventStore, clock: FakeClock) -> None:
    await clock.advance(0.123457)
    appended = await store.append(fake.tool_started("c"), agent=ALPHA, run="r9")
    (read,) = await store.read()
    assert read == appended
    assert (read.host, read.agent, read.run) == (fake.HOST, ALPHA, "r9")
    assert read.at == fake.START + timedelta(microseconds=123457)


async def test_an_append_returns_after_subscribers_and_file_have_it(
    store: EventStore, seen: list[Envelope], tmp_path: Path
) -> None:
    envelope = await store.append(fake.tool_started("c"), agent=ALPHA)
    other = sqlite3.connect(tmp_path / "state/events.db")
    assert other.execute("SELECT seq, kind FROM events").fetchall() == [(1, "tool.call_started")]
    other.close()
    assert seen == [envelope]


async def test_subscribers_never_see_what_is_not_committed(store: EventStore, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "state/events.db", isolation_level=None)
    checked = 0

    def check(envelopes: list[Envelope]) -> None:
        nonlocal checked
        (last,) = other.execute("SELECT max(seq) FROM events").fetchone()
        assert last >= envelopes[-1].seq
        checked += len(envelopes)

    store.on_commit = check
    await asyncio.gather(*(store.append(fake.tool_started(str(n)), agent=ALPHA) for n in range(200)))
    other.close()
    assert checked == 200


async def test_queue_order_is_log_order_for_all_ways_in(store: EventStore, seen: list[Envelope]) -> None:
    store.post(fake.output("one"), agent=ALPHA)
    store.sample(AgentSampled(usage=Usage(cpu_s=1)), agent=ALPHA)
    appending = asyncio.gather(store.append(fake.tool_started("two"), agent=ALPHA))
    await asyncio.sleep(0)
    store.post(fake.output("three"), agent=ALPHA)
    store.post(AgentSampled(usage=Usage(cpu_s=2)), agent=ALPHA)
    await store.append(fake.tool_started("four"), agent=ALPHA)
    await appending
    store.sample(AgentSampled(usage=Usage(cpu_s=3)), agent=ALPHA)
    assert [(envelope.seq, envelope.durable) for envelope in seen] == [
        (1, True),
        (1, False),
        (2, True),
        (3, True),
        (3, False),
        (4, True),
        (4, False),
    ]
    assert [envelope.seq for envelope in await store.read()] == [1, 2, 3, 4]


async def test_many_writers_leave_no_gap_and_each_keeps_its_order(store: EventStore, seen: list[Envelope]) -> None:
    async def write(name: str) -> list[int]:
        return [(await store.append(fake.tool_started(f"{name}{n}"), agent=ALPHA)).seq for n in range(50)]

    numbers = await asyncio.gather(*(write(name) for name in "abcdefgh"))
    assert sorted(seq for mine in numbers for seq in mine) == list(range(1, 401))
    assert all(mine == sorted(mine) for mine in numbers)
    assert [envelope.seq for envelope in seen] == list(range(1, 401))


async def test_a_sample_cannot_be_appended(store: EventStore) -> None:
    with pytest.raises(StoreError, match=r"agent\.sampled is a sample"):
        await store.append(AgentSampled(usage=Usage()), agent=ALPHA)
    assert await store.read() == []


async def test_text_that_utf8_cannot_hold_is_replaced_not_refused(store: EventStore) -> None:
    torn = fake.tool_started("c\ud800").model_copy(update={"arguments": {"k\udfff": ["a\ud83d\ude00b"]}})
    appended = await store.append(torn, agent=ALPHA)
    raw = await store.append(UnknownEvent(kind="x", body={"text": "\udc80"}), agent=ALPHA)
    assert await store.read() == [appended, raw]
    assert appended.event.call == "c\ufffd"  # type: ignore[union-attr]  the example is a tool call
    assert appended.event.arguments == {"k\ufffd": ["a😀b"]}  # type: ignore[union-attr]  as above
    encode_event(appended.event)
    encode_event(raw.event)


async def test_an_event_that_is_too_big_is_refused_at_the_door(store: EventStore, seen: list[Envelope]) -> None:
    with pytest.raises(StoreError, match="more than the"):
        await store.append(fake.tool_started("c", target="x" * MAX_EVENT_BYTES), agent=ALPHA)
    store.post(fake.output("é" * MAX_EVENT_BYTES), agent=ALPHA)
    await store.append(fake.tool_started("next"), agent=ALPHA)
    cut = seen[0].event
    assert isinstance(cut, OutputAppended)
    assert len(cut.text.encode()) + cut.dropped_bytes == 2 * MAX_EVENT_BYTES
    assert len(encode_event(cut)) < MAX_EVENT_BYTES


async def test_a_name_that_cannot_be_stored_is_refused_at_the_door(store: EventStore) -> None:
    with pytest.raises(StoreError, match="cannot be stored"):
        await store.append(fake.tool_started("c"), agent="bad\ud800")
    assert (await store.append(fake.tool_started("c"), agent="gut-ü")).seq == 1


async def test_work_that_raises_is_undone_alone(store: EventStore) -> None:
    def fails(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO meta VALUES ('half', 'done')")
        raise KeyError("a defect")

    def works(connection: sqlite3.Connection) -> int:
        return connection.execute("INSERT INTO meta VALUES ('whole', 'done')").rowcount

    results = await asyncio.gather(
        store.transact(works), store.transact(fails), store.append(fake.tool_started("c")), return_exceptions=True
    )
    assert [type(result).__name__ for result in results] == ["int", "KeyError", "Envelope"]
    keys = await store.query(lambda connection: connection.execute("SELECT key FROM meta").fetchall())
    assert ("whole",) in keys
    assert ("half",) not in keys


async def test_a_cancelled_append_leaves_the_store_whole(store: EventStore, seen: list[Envelope]) -> None:
    task = asyncio.get_running_loop().create_task(store.append(fake.tool_started("gone"), agent=ALPHA))
    await asyncio.sleep(0)
    task.cancel()
    assert (await store.append(fake.tool_started("next"), agent=ALPHA)).seq == 2
    assert [envelope.seq for envelope in seen] == [1, 2]


async def test_a_subscriber_that_raises_does_not_hold_up_writers(store: EventStore) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["exception"]))
    store.on_commit = lambda envelopes: 1 / 0  # type: ignore[assignment,return-value]  it never returns
    assert (await store.append(fake.tool_started("c"), agent=ALPHA)).seq == 1
    assert isinstance(complaints[0], ZeroDivisionError)


async def test_closing_writes_what_waits_and_then_refuses(
    store: EventStore, seen: list[Envelope], tmp_path: Path
) -> None:
    for n in range(3000):
        store.post(fake.output(str(n)), agent=ALPHA)
    await asyncio.gather(store.aclose(), store.aclose())
    await store.aclose()
    assert [envelope.seq for envelope in seen] == list(range(1, 3001))
    assert not (tmp_path / "state/events.db-wal").exists()
    with pytest.raises(StoreError, match="closed"):
        await store.append(fake.tool_started("late"), agent=ALPHA)
    with pytest.raises(StoreError, match="closed"):
        store.post(fake.output("late"), agent=ALPHA)
    with pytest.raises(StoreError, match="closed"):
        await store.read()


async def test_a_closing_that_is_cancelled_still_closes(store: EventStore, open_store, seen: list[Envelope]) -> None:
    store.post(fake.output("last words"), agent=ALPHA)
    closing = asyncio.get_running_loop().create_task(store.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    await store.aclose()
    again = await open_store()
    assert (again.head, len(seen)) == (1, 1)


async def test_numbering_goes_on_after_a_restart_and_the_epoch_changes(store: EventStore, open_store) -> None:
    await store.append(fake.tool_started("a"), agent=ALPHA)
    await store.aclose()
    again = await open_store()
    assert (again.head, again.oldest) == (1, 1)
    assert again.epoch != store.epoch
    assert (await again.append(fake.tool_started("b"), agent=BETA)).seq == 2
    assert [envelope.agent for envelope in await again.read()] == [ALPHA, BETA]
