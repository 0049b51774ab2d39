"""Retention: output goes first, records last, the state stays what it was, and the file gets smaller."""

from pathlib import Path

import pytest

from fakes import events as fake
from fakes.clock import FakeClock
from toka_runtime.protocol.events import OperationDenied
from toka_runtime.protocol.snapshot import FleetState
from toka_runtime.store import checkpoint, writer
from toka_runtime.store.events import EventStore
from toka_runtime.store.retention import DAY_S, Retention, used_bytes
from toka_runtime.store.rows import kind_of
from toka_runtime.store.transcripts import Transcripts

ALPHA = fake.AGENTS[0]
FOREVER = Retention(max_bytes=None, output_max_age_s=None, detail_max_age_s=None, record_max_age_s=None, keep_events=5)


async def write(store: EventStore, rounds: int, size: int = 10) -> None:
    """A round: one output, one tool call, one denial."""
    for n in range(rounds):
        store.post(fake.output(f"{n:>{size}}"), agent=ALPHA)
        store.post(fake.tool_started(str(n)), agent=ALPHA)
        store.post(OperationDenied(denial=fake.denial(str(n))), agent=ALPHA)
    await store.append(fake.tool_started("end"), agent=ALPHA)


async def kinds(store: EventStore) -> dict[str, int]:
    found: dict[str, int] = {}
    for envelope in await store.read(limit=10_000):
        found[kind_of(envelope.event)] = found.get(kind_of(envelope.event), 0) + 1
    return found


async def test_nothing_goes_without_a_reason(open_store) -> None:
    store = await open_store(retention=FOREVER)
    await write(store, 100)
    await store.apply_retention()
    assert await kinds(store) == {"output.appended": 100, "tool.call_started": 101, "operation.denied": 100}
    assert store.oldest == 1


async def test_each_class_has_its_age(open_store, clock: FakeClock) -> None:
    settings = Retention(
        max_bytes=None, output_max_age_s=DAY_S, detail_max_age_s=3 * DAY_S, record_max_age_s=10 * DAY_S, keep_events=5
    )
    store = await open_store(retention=settings)
    await write(store, 50)
    await clock.advance(2 * DAY_S)
    await write(store, 50)
    await store.apply_retention()
    assert await kinds(store) == {"output.appended": 50, "tool.call_started": 102, "operation.denied": 100}
    assert store.oldest == 149
    await clock.advance(2 * DAY_S)
    await store.apply_retention()
    assert await kinds(store) == {"output.appended": 1, "tool.call_started": 51, "operation.denied": 100}
    await clock.advance(20 * DAY_S)
    await store.apply_retention()
    left = await store.read()
    assert [envelope.seq for envelope in left] == list(range(store.head - 4, store.head + 1)), (
        "the last ones always stay"
    )
    assert store.oldest == store.head - 4


async def test_a_bound_in_bytes_takes_output_first_and_gives_the_space_back(open_store, tmp_path: Path) -> None:
    store = await open_store(retention=Retention(max_bytes=1_000_000, keep_events=5))
    await write(store, 800, size=3000)
    before = await store.query(used_bytes)
    state = await store.latest_state()
    await store.apply_retention()
    after = await store.query(used_bytes)
    found = await kinds(store)
    assert before > 2_800_000
    assert after < 1_000_000
    assert found["operation.denied"] == 800
    assert found["tool.call_started"] == 801
    assert 0 < found["output.appended"] < 600
    assert 1 < store.oldest < store.head
    oldest = [envelope.seq for envelope in await store.read(after_seq=store.oldest - 1, limit=10_000)]
    assert oldest == list(range(store.oldest, store.head + 1)), "from `oldest` on the log is whole"
    assert await store.latest_state() == state
    await store.aclose()
    assert (tmp_path / "state/events.db").stat().st_size < 2_100_000


async def test_records_go_when_nothing_else_is_left(open_store) -> None:
    store = await open_store(retention=Retention(max_bytes=150_000, keep_events=5))
    await write(store, 800)
    state = await store.latest_state()
    await store.apply_retention()
    found = await kinds(store)
    assert "output.appended" not in {kind for kind, count in found.items() if count > 5}
    assert 0 < found["operation.denied"] < 800
    assert await store.latest_state() == state
    assert await store.query(used_bytes) <= 150_000


async def test_the_bound_is_kept_while_writing_without_being_asked(open_store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "EVERY_EVENTS", 1000)
    monkeypatch.setattr(writer, "UPKEEP_ROWS", 500)
    store: EventStore = await open_store(retention=Retention(max_bytes=300_000, keep_events=5))
    store.state_source = lambda: FleetState(host=fake.HOST, seq=store.head)
    for _ in range(5):
        await write(store, 500, size=100)
    # Upkeep goes on between commits; each of these gives it a turn.
    turns = 0
    while await store.query(used_bytes) > 700_000:
        await store.append(fake.tool_started(str(turns)), agent=ALPHA)
        turns += 1
        assert turns < 3000, "it is far above its bound and stays there"
    assert store.head > 7500
    assert store.oldest > 4000


async def test_numbering_survives_whatever_was_deleted(open_store) -> None:
    store = await open_store(retention=Retention(max_bytes=1, keep_events=0))
    await write(store, 20)
    await store.apply_retention()
    head = store.head
    await store.aclose()
    again = await open_store()
    assert again.head == head
    assert (await again.append(fake.tool_started("next"), agent=ALPHA)).seq == head + 1


async def test_superseded_turns_and_old_runs_go_but_never_what_may_be_resumed(open_store, clock: FakeClock) -> None:
    store = await open_store(
        retention=Retention(max_bytes=None, output_max_age_s=None, detail_max_age_s=DAY_S, record_max_age_s=None)
    )
    journal = Transcripts(store)
    await store.append(fake.ev.SpecLoaded(spec=fake.spec_of(ALPHA), rights=fake.Rights()), agent=ALPHA)
    for run in ("old", "now"):
        S = fake.AgentState
        await store.append(fake.ev.AgentStateChanged(before=S.PENDING, after=S.STARTING), agent=ALPHA, run=run)
        await journal.record(run, 0, 1, 0, [{"n": 1}, {"n": 2}])
        await journal.record(run, 0, 1, 1, [{"n": 3}])
        await journal.tool_begun(run, "t1", task=0, attempt=1, tool="read", arguments={})
        await journal.record_result(run, 0, 1, {"status": "done"})
    await clock.advance(2 * DAY_S)
    await store.apply_retention()
    assert await journal.turns("old") == []
    assert await journal.open_calls("old") == []
    assert await journal.results("old") == {}
    assert await journal.conversation("now", 0, 1) == [{"n": 1}, {"n": 3}]
    assert [turn.message for turn in await journal.turns("now")] == [{"n": 1}, {"n": 3}]
    assert len(await journal.open_calls("now")) == 1
    assert list(await journal.results("now")) == [0]
