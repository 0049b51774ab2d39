"""The checkpoint: the same state as folding the log from its beginning, only sooner."""

import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from fakes import events as fake
from fakes.clock import FakeClock
from toka_runtime.protocol.events import Envelope
from toka_runtime.protocol.fold import fold
from toka_runtime.protocol.snapshot import FleetState
from toka_runtime.protocol.usage import HostUsage, Usage
from toka_runtime.store import checkpoint
from toka_runtime.store.events import EventStore

ALPHA = fake.AGENTS[0]


async def write(store: EventStore, history: list[Envelope]) -> None:
    for envelope in history:
        store.post(envelope.event, agent=envelope.agent, run=envelope.run)
    await store.append(fake.tool_started("end"), agent=ALPHA)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(first=fake.histories(), second=fake.histories())
async def test_any_history_with_a_checkpoint_in_the_middle(
    tmp_path_factory: pytest.TempPathFactory, first: list[Envelope], second: list[Envelope]
) -> None:
    folder = tmp_path_factory.mktemp("state")
    store = await EventStore.open(folder, host=fake.HOST, clock=FakeClock())
    log: list[Envelope] = []
    store.on_commit = log.extend
    durable = [entry for entry in first if entry.durable]
    await write(store, durable)
    await store.apply_retention()
    assert await store.query(checkpoint.checkpoint_seq) == store.head
    await write(store, [entry for entry in second if entry.durable])
    expected = fold(FleetState(), log)
    assert await store.latest_state() == expected
    await store.aclose()
    store = await EventStore.open(folder, host=fake.HOST, clock=FakeClock())
    assert await store.latest_state() == expected
    await store.aclose()


async def test_the_owners_state_is_used_while_writing_and_at_the_end(
    store: EventStore, open_store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "EVERY_EVENTS", 50)
    state = FleetState(host=fake.HOST)

    def keep(envelopes: list[Envelope]) -> None:
        nonlocal state
        state = fold(state, envelopes)

    store.on_commit = keep
    store.state_source = lambda: state
    history = fake.number(
        [(fake.ev.SpecLoaded(spec=fake.spec_of(name), rights=fake.Rights()), name) for name in fake.AGENTS]
    )
    await write(store, history)
    sampled = Usage(cpu_s=2.5, memory_bytes=7)
    store.sample(fake.ev.AgentSampled(usage=sampled), agent=ALPHA)
    store.sample(fake.ev.HostSampled(usage=HostUsage(cores=9)))
    assert state.agents[ALPHA].usage == sampled
    for n in range(200):
        await store.append(fake.tool_started(str(n)), agent=ALPHA)
    await store.apply_retention()
    assert await store.query(checkpoint.checkpoint_seq) >= 150
    await store.append(fake.tool_started("last"), agent=ALPHA)
    await store.aclose()
    again = await open_store()
    assert await again.query(checkpoint.checkpoint_seq) == again.head == state.seq
    found = await again.latest_state()
    assert found.agents[ALPHA].usage == Usage(cpu_s=2.5), "what was consumed stays, the moment's figures don't"
    assert found.host_usage == HostUsage()
    alpha = state.agents[ALPHA].model_copy(update={"usage": Usage(cpu_s=2.5)})
    assert found == state.model_copy(update={"agents": {**state.agents, ALPHA: alpha}, "host_usage": HostUsage()})


async def test_only_agents_that_changed_are_written_again(store: EventStore) -> None:
    state = FleetState(host=fake.HOST)

    def keep(envelopes: list[Envelope]) -> None:
        nonlocal state
        state = fold(state, envelopes)

    store.on_commit = keep
    store.state_source = lambda: state
    history = fake.number(
        [(fake.ev.SpecLoaded(spec=fake.spec_of(name), rights=fake.Rights()), name) for name in fake.AGENTS]
    )
    await write(store, history)
    await store.apply_retention()
    before = await store.query(lambda connection: dict(connection.execute("SELECT agent, rowid FROM checkpoint")))
    await store.append(fake.tool_started("x"), agent=ALPHA)
    await store.apply_retention()
    after = await store.query(lambda connection: dict(connection.execute("SELECT agent, rowid FROM checkpoint")))
    assert {name for name in after if after[name] != before.get(name)} == {"", ALPHA}


async def test_agents_that_are_gone_are_gone_from_the_checkpoint(store: EventStore, open_store) -> None:
    store.state_source = lambda: state
    await write(
        store, fake.number([(fake.ev.SpecLoaded(spec=fake.spec_of(n), rights=fake.Rights()), n) for n in fake.AGENTS])
    )
    whole = await store.latest_state()
    state = whole
    await store.apply_retention()
    await store.append(fake.tool_started("x"))
    state = whole.model_copy(update={"seq": store.head, "agents": {ALPHA: whole.agents[ALPHA]}})
    await store.apply_retention()
    assert list((await store.latest_state()).agents) == [ALPHA]
    await store.aclose()
    again = await open_store()
    await again.append(fake.tool_started("y"))
    state = whole.model_copy(update={"seq": again.head, "agents": {}})
    again.state_source = lambda: state
    await again.apply_retention()
    assert (await again.latest_state()).agents == {}


async def test_a_checkpoint_that_cannot_be_read_is_made_again_from_the_log(
    store: EventStore, open_store, tmp_path: Path
) -> None:
    await write(store, fake.number([(fake.ev.SpecLoaded(spec=fake.spec_of(ALPHA), rights=fake.Rights()), ALPHA)]))
    await store.apply_retention()
    expected = await store.latest_state()
    await store.aclose()
    database = sqlite3.connect(tmp_path / "state/events.db")
    database.execute('UPDATE checkpoint SET body = \'{"of": "another time"}\' WHERE agent = ?', (ALPHA,))
    database.commit()
    database.close()
    assert await (await open_store()).latest_state() == expected


async def test_an_empty_log_has_an_empty_state_of_this_host(store: EventStore) -> None:
    state = await store.latest_state()
    assert (state.host, state.seq, state.agents) == (fake.HOST, 0, {})
