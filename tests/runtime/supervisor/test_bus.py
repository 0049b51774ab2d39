"""The bus: whatever a reader's pace, it ends with the state of one that missed nothing; nobody waits for a slow one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import events as fake
from fakes.clock import FakeClock
from fakes.log import FakeLog
from toka_runtime.clock import SystemClock
from toka_runtime.protocol.events import Envelope, OutputAppended
from toka_runtime.protocol.fold import fold
from toka_runtime.protocol.snapshot import FleetState
from toka_runtime.protocol.stream import Batch, Resync
from toka_runtime.protocol.usage import HostUsage, Usage
from toka_runtime.store.events import EventStore
from toka_runtime.supervisor import bus as bus_module
from toka_runtime.supervisor import thinning
from toka_runtime.supervisor.bus import BATCH_INTERVAL_S, Bus, Subscription
from toka_runtime.supervisor.thinning import thin

ALPHA, BETA, _ = fake.AGENTS


class Hasty(FakeClock):
    """Nobody waits: a sleep is over at once, and its time has passed."""

    async def sleep(self, seconds: float) -> None:
        self._elapsed += seconds
        await asyncio.sleep(0)


def started(*, ring_events: int = 1000, clock: FakeClock | None = None) -> tuple[FakeLog, Bus]:
    log = FakeLog()
    bus = Bus(log, FleetState(), clock=clock or Hasty(), ring_events=ring_events)
    log.on_commit = bus.publish
    return log, bus


class Pump:
    """Numbers events and commits them."""

    def __init__(self, log: FakeLog) -> None:
        self.log = log
        self.sent: list[Envelope] = []

    def __call__(self, *happened: tuple[fake.ev.Event, str | None]) -> list[Envelope]:
        envelopes = fake.number(list(happened), self.log.head)  # type: ignore[arg-type]  names are plain strings here
        self.sent += envelopes
        self.log.commit(envelopes)
        return envelopes

    def tools(self, count: int, agent: str = ALPHA) -> list[Envelope]:
        return self(*((fake.tool_started(str(n)), agent) for n in range(count)))


class Whispered(fake.ev.Noticed):
    """A notice while the store is full: shown, not kept, and not to be dropped either."""

    durable = False


def whisper(text: str) -> tuple[fake.ev.Event, str | None]:
    return Whispered(level=fake.ev.Level.ERROR, code="store.full", message=text), None


def envelopes(batch: Batch) -> list[Envelope]:
    assert isinstance(batch, list)
    return batch


def sample(seconds: float, agent: str | None = ALPHA) -> tuple[fake.ev.Event, str | None]:
    return fake.ev.AgentSampled(usage=Usage(cpu_s=seconds)), agent


# -- the property ---------------------------------------------------------------------------------------------------


class Reader:
    """Folds what it gets, one batch at a time, when it is told to read; checks each batch on the way."""

    def __init__(self, subscription: Subscription, state: FleetState) -> None:
        self.subscription, self.state = subscription, state
        self.resyncs = 0
        self._reading: asyncio.Task[Batch] | None = None

    async def read(self) -> None:
        """One batch, if there is one; else go on waiting for it."""
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(anext(self.subscription))  # type: ignore[arg-type]
        for _ in range(20):
            await asyncio.sleep(0)
        if self._reading.done():
            task, self._reading = self._reading, None
            self.take(task.result())

    async def read_to_the_end(self) -> None:
        try:
            while True:
                self.take(await (self._reading or anext(self.subscription)))
                self._reading = None
        except StopAsyncIteration:
            return

    def take(self, batch: Batch) -> None:
        if isinstance(batch, Resync):
            self.resyncs += 1
            assert batch.missed == batch.state.seq - self.state.seq
            self.state = batch.state
            return
        durable = [envelope for envelope in batch if envelope.durable]
        merged = sum(e.event.merged for e in durable if isinstance(e.event, OutputAppended))
        if durable:
            assert [entry.seq for entry in durable] == sorted({entry.seq for entry in durable})
            assert len(durable) + merged == durable[-1].seq - self.state.seq, "a hole that is not accounted for"
        place = self.state.seq
        for envelope in batch:
            assert envelope.durable or envelope.seq == place or merged
            place = max(place, envelope.seq)
        self.state = fold(self.state, batch)


samples = st.builds(sample, st.integers(0, 99), st.sampled_from(fake.AGENTS))
happened = st.lists(
    st.one_of(fake.happenings(), samples, st.integers(0, 99).map(str).map(whisper)), min_size=1, max_size=12
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), happened),
        st.tuples(st.just("publish"), happened),
        st.tuples(st.just("read"), st.integers(0, 9)),
        st.tuples(st.just("join"), st.integers(1, 40)),
        st.tuples(st.just("forget"), st.floats(0, 1)),
    ),
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(
    steps=steps,
    ring=st.integers(1, 40),
    bounds=st.lists(st.integers(1, 40), min_size=3, max_size=3),
    sizes=st.tuples(st.integers(1, 30), st.integers(1, 20), st.integers(1, 30), st.integers(0, 60)),
)
async def test_any_pace_gives_the_same_state(
    steps: list[tuple[str, object]], ring: int, bounds: list[int], sizes: tuple[int, int, int, int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bus_module, "BATCH_EVENTS", sizes[0])
        patch.setattr(bus_module, "CATCH_UP_EVENTS", sizes[1])
        patch.setattr(thinning, "MERGE_ABOVE_EVENTS", sizes[2])
        patch.setattr(thinning, "BATCH_TEXT_BYTES", sizes[3])
        patch.setattr(bus_module, "FOLD_EVENTS", 7)
        log, bus = started(ring_events=ring)
        pump = Pump(log)
        pump(*((fake.ev.SpecLoaded(spec=fake.spec_of(name), rights=fake.Rights()), name) for name in fake.AGENTS))
        joined: list[Reader] = []
        readers = [Reader(bus.subscribe(0, max_pending=bound), FleetState()) for bound in bounds]
        for step, argument in steps:
            if step == "publish":
                pump(*argument)  # type: ignore[misc]
            elif step == "join":
                joined.append(Reader(bus.subscribe(bus.snapshot().seq, max_pending=argument), bus.snapshot()))  # type: ignore[arg-type]
            elif step == "forget":
                log.forget(round(argument * log.head))  # type: ignore[operator]
            else:
                await [*readers, *joined][argument % len(readers + joined)].read()  # type: ignore[operator]
        bus.close()
        for reader in readers + joined:
            await reader.read_to_the_end()
        undisturbed = fold(FleetState(), pump.sent)
        assert bus.snapshot() == undisturbed
        for reader in readers:
            assert reader.state == undisturbed
        for reader in joined:
            # What was only whispered just before it joined may reach it in the snapshot and once more.
            notices = [notice for notice in reader.state.notices if not isinstance(notice, Whispered)]
            assert (
                notices
                == [notice for notice in undisturbed.notices if not isinstance(notice, Whispered)][-len(notices) :]
            )
            assert reader.state.model_copy(update={"notices": undisturbed.notices}) == undisturbed


# -- the pieces -----------------------------------------------------------------------------------------------------


async def test_the_first_event_comes_at_once_and_then_batches() -> None:
    clock = FakeClock()
    log, bus = started(clock=clock)
    pump = Pump(log)
    subscription = bus.subscribe(0)
    reading = asyncio.get_running_loop().create_task(anext(subscription))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    first = pump.tools(1)
    assert await reading == first
    assert clock.sleepers() == 0
    reading = asyncio.get_running_loop().create_task(anext(subscription))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    more = pump.tools(1)
    await clock.until_sleeping()
    more += pump.tools(2)
    await clock.advance(BATCH_INTERVAL_S * 0.9)
    assert not reading.done()
    await clock.advance(BATCH_INTERVAL_S * 0.2)
    assert await reading == more
    await clock.advance(1)
    reading = asyncio.get_running_loop().create_task(anext(subscription))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    late = pump.tools(1)
    assert await reading == late, "after a rest the first comes at once again"


async def test_what_the_ring_no_longer_has_comes_from_the_log() -> None:
    log, bus = started(ring_events=10)
    pump = Pump(log)
    sent = pump.tools(300)
    subscription = bus.subscribe(0, max_pending=20)
    got: list[Envelope] = []
    while len(got) < 300:
        got += envelopes(await anext(subscription))
    assert got == sent
    assert log.reads > 0
    assert bus.counters.resyncs == 0, "what was there when it came does not make a reader slow"


async def test_a_reader_that_keeps_up_never_touches_the_log() -> None:
    log, bus = started(ring_events=10)
    pump = Pump(log)
    subscription = bus.subscribe(0)
    for _ in range(50):
        sent = pump.tools(3)
        assert await anext(subscription) == sent
    assert log.reads == 0


async def test_falling_too_far_behind_is_a_resync_that_says_what_was_missed() -> None:
    log, bus = started(ring_events=50)
    pump = Pump(log)
    subscription = bus.subscribe(0, max_pending=20)
    first = pump.tools(5)
    assert await anext(subscription) == first
    pump.tools(200)
    batch = await anext(subscription)
    assert isinstance(batch, Resync)
    assert (batch.missed, batch.state.seq) == (200, 205)
    assert batch.state == bus.snapshot()
    after = pump.tools(2)
    assert await anext(subscription) == after
    assert bus.counters.resyncs == 1


async def test_the_bound_counts_what_waits_in_the_ring_too() -> None:
    log, bus = started()
    pump = Pump(log)
    subscription = bus.subscribe(0, max_pending=20)
    sent = pump.tools(20)
    assert await anext(subscription) == sent
    pump.tools(21)
    assert isinstance(await anext(subscription), Resync)


async def test_the_last_sample_of_a_quiet_agent_outlives_the_ring() -> None:
    log, bus = started(ring_events=10)
    pump = Pump(log)
    subscription = bus.subscribe(0)
    sent = pump.tools(1)
    assert await anext(subscription) == sent
    pump(sample(1, BETA), sample(7, BETA), whisper("disk full"))
    pump(*(sample(n) for n in range(100)))
    pump(whisper("still full"))
    got = envelopes(await anext(subscription))
    assert [(e.agent, getattr(e.event, "usage", e.event)) for e in got] == [
        (BETA, Usage(cpu_s=7)),
        (None, whisper("disk full")[0]),
        (ALPHA, Usage(cpu_s=99)),
        (None, whisper("still full")[0]),
    ]


async def test_samples_keep_their_place_in_what_comes_from_the_log() -> None:
    log, bus = started(ring_events=10)
    pump = Pump(log)
    pump.tools(700)
    whispered, newest = pump(whisper("disk full"), sample(3, BETA))
    pump.tools(700)
    subscription = bus.subscribe(0)
    got: list[Envelope] = []
    while len(got) < 1402:
        got += envelopes(await anext(subscription))
    assert [got.index(whispered), got.index(newest)] == [700, 701]
    assert [envelope.seq for envelope in got if envelope.durable] == list(range(1, 1401))


async def test_nothing_comes_twice_after_a_resync() -> None:
    log, bus = started()
    pump = Pump(log)
    subscription = bus.subscribe(0, max_pending=1)
    pump.tools(5)
    pump(whisper("disk full"))
    assert isinstance(await anext(subscription), Resync)
    sent = pump(whisper("still full"))
    assert await anext(subscription) == sent


async def test_samples_alone_never_make_a_reader_fall_behind() -> None:
    log, bus = started(ring_events=100)
    pump = Pump(log)
    subscription = bus.subscribe(0, max_pending=5)
    pump(*(sample(n, agent) for n in range(5000) for agent in fake.AGENTS))
    got = envelopes(await anext(subscription))
    assert [(e.agent, e.event.usage.cpu_s) for e in got] == [(agent, 4999) for agent in fake.AGENTS]  # type: ignore[union-attr]
    assert bus.counters.resyncs == 0
    assert bus.counters.published == 15_000


async def test_what_retention_took_is_a_resync() -> None:
    log, bus = started(ring_events=10)
    pump = Pump(log)
    pump.tools(100)
    log.forget(40)
    batch = await anext(bus.subscribe(20))
    assert isinstance(batch, Resync)
    assert batch.missed == 80
    ok = bus.subscribe(39)
    assert envelopes(await anext(ok))[0].seq == 40


async def test_a_number_from_another_log_is_a_resync() -> None:
    log, bus = started()
    Pump(log).tools(3)
    batch = await anext(bus.subscribe(1000))
    assert isinstance(batch, Resync)
    assert (batch.missed, batch.state.seq) == (0, 3)


async def test_a_log_that_cannot_be_read_is_a_resync_from_memory() -> None:
    log, bus = started(ring_events=10)
    Pump(log).tools(100)
    log.broken = True
    batch = await anext(bus.subscribe(0))
    assert isinstance(batch, Resync)
    assert batch.state.seq == 100


async def test_a_stopped_reader_costs_the_others_nothing_and_memory_stays_bounded() -> None:
    log, bus = started(ring_events=100)
    pump = Pump(log)
    stopped, reading = bus.subscribe(0, max_pending=50), bus.subscribe(0, max_pending=50)
    for _ in range(100):
        sent = pump.tools(40)
        assert await anext(reading) == sent
    assert bus.end_position - bus.first_position < 200
    assert isinstance(await anext(stopped), Resync)
    assert bus.counters.resyncs == 1


async def test_text_in_the_ring_is_bounded() -> None:
    log = FakeLog()
    bus = Bus(log, FleetState(), clock=Hasty(), ring_text=100_000)
    log.on_commit = bus.publish
    pump = Pump(log)
    for _ in range(100):
        pump((fake.output("x" * 10_000), ALPHA))
    held = bus.entries(bus.first_position, bus.end_position)
    assert 5 <= len(held) <= 10


async def test_closing_the_bus_hands_out_the_rest_and_ends() -> None:
    log, bus = started()
    pump = Pump(log)
    subscription, waiting = bus.subscribe(0), bus.subscribe(0)
    pending = asyncio.get_running_loop().create_task(anext(waiting, None))  # type: ignore[call-overload]
    await asyncio.sleep(0)
    sent = pump.tools(3)
    bus.close()
    bus.close()
    assert await pending == sent
    assert [batch async for batch in subscription] == [sent]
    assert await anext(waiting, None) is None
    assert [batch async for batch in bus.subscribe(0)] == []


async def test_closing_a_subscription_ends_a_reader_that_waits() -> None:
    _, bus = started()
    async with bus.subscribe(0) as subscription:
        reading = asyncio.get_running_loop().create_task(anext(subscription, None))  # type: ignore[call-overload]
        await asyncio.sleep(0)
    assert await reading is None
    subscription.close()


async def test_a_cancelled_read_loses_nothing() -> None:
    clock = FakeClock()
    log, bus = started(clock=clock)
    pump = Pump(log)
    subscription = bus.subscribe(0)
    sent = pump.tools(1)
    assert await anext(subscription) == sent
    reading = asyncio.get_running_loop().create_task(anext(subscription))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    sent = pump.tools(1)
    await clock.until_sleeping()
    reading.cancel()
    await asyncio.wait([reading])
    await clock.advance(1)
    assert await anext(subscription) == sent


async def test_the_bus_knows_the_fleet_and_lends_its_state_to_the_log() -> None:
    log, bus = started()
    pump = Pump(log)
    pump((fake.ev.SpecLoaded(spec=fake.spec_of(ALPHA), rights=fake.Rights()), ALPHA), sample(3))
    assert bus.snapshot().agents[ALPHA].usage.cpu_s == 3
    assert bus.snapshot() is bus.snapshot()
    assert log.state_source is not None
    assert log.state_source() == fold(FleetState(), pump.sent)


async def test_folding_is_done_in_slices_by_itself() -> None:
    log, bus = started()
    pump = Pump(log)
    pump((fake.ev.SpecLoaded(spec=fake.spec_of(ALPHA), rights=fake.Rights()), ALPHA))
    pump.tools(1000)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(bus._unfolded) < bus_module.FOLD_EVENTS
    assert bus.snapshot() == fold(FleetState(), pump.sent)


# -- thinning -------------------------------------------------------------------------------------------------------


def test_a_comfortable_batch_is_left_as_it_is() -> None:
    entries = fake.number([(fake.output(str(n)), ALPHA) for n in range(100)])
    assert thin(entries).envelopes == entries


@given(fake.histories(max_size=80), st.integers(0, 200), st.integers(0, 80))
def test_thinning_keeps_the_fold_and_accounts_for_every_byte(history: list[Envelope], room: int, above: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thinning, "MERGE_ABOVE_EVENTS", above)
        patch.setattr(thinning, "BATCH_TEXT_BYTES", room)
        thinned = thin(history)
    assert fold(FleetState(), thinned.envelopes) == fold(FleetState(), history)
    must = [entry for entry in history if entry.durable and not isinstance(entry.event, OutputAppended)]
    assert [
        entry for entry in thinned.envelopes if entry.durable and not isinstance(entry.event, OutputAppended)
    ] == must

    def said(entries: list[Envelope]) -> int:
        events = [entry.event for entry in entries]
        return sum(len(e.text.encode()) + e.dropped_bytes for e in events if isinstance(e, OutputAppended))

    assert said(thinned.envelopes) == said(history)
    assert len(thinned.envelopes) + thinned.coalesced == len(history)


def test_merged_text_is_in_order_and_the_newest_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thinning, "MERGE_ABOVE_EVENTS", 3)
    monkeypatch.setattr(thinning, "BATCH_TEXT_BYTES", 7)
    entries = fake.number(
        [
            (fake.output("one "), ALPHA),
            (fake.output("beta "), BETA),
            (fake.output("zwei ü "), ALPHA),
            (fake.tool_started("t"), ALPHA),
            (fake.output("drei"), ALPHA),
        ]
    )
    thinned = thin(entries)
    assert [(e.seq, e.agent) for e in thinned.envelopes] == [(2, BETA), (4, ALPHA), (5, ALPHA)]
    alpha, beta = thinned.envelopes[2].event, thinned.envelopes[0].event
    assert isinstance(alpha, OutputAppended)
    assert isinstance(beta, OutputAppended)
    assert (alpha.text, alpha.merged, alpha.dropped_bytes) == ("ü drei", 2, 9)
    assert (beta.text, beta.dropped_bytes) == ("", 5)
    assert thinned.dropped_bytes == 14


# -- with the real store --------------------------------------------------------------------------------------------


async def test_with_the_real_store_a_late_reader_and_a_live_one_see_the_same(tmp_path: Path) -> None:
    store = await EventStore.open(tmp_path / "state", host=fake.HOST, clock=SystemClock())
    bus = Bus(store, await store.latest_state(), ring_events=64)
    store.on_commit = bus.publish
    live: list[Envelope] = []

    async def follow(after_seq: int, into: list[Envelope], until: int) -> None:
        async with bus.subscribe(after_seq) as subscription:
            async for batch in subscription:
                into += envelopes(batch)
                if into and into[-1].seq >= until:
                    return

    async with asyncio.TaskGroup() as group:
        group.create_task(follow(0, live, 1500))
        for n in range(1500):
            if n % 3:
                store.post(fake.output(str(n)), agent=ALPHA)
            else:
                await store.append(fake.tool_started(str(n)), agent=ALPHA)
                store.sample(fake.ev.HostSampled(usage=HostUsage(cores=n)))
    late: list[Envelope] = []
    await follow(0, late, 1500)
    numbers = list(range(1, 1501))
    assert [envelope.seq for envelope in live if envelope.durable] == numbers
    assert [envelope for envelope in late if envelope.durable] == [envelope for envelope in live if envelope.durable]
    await store.aclose()
    bus.close()
    again = await EventStore.open(tmp_path / "state", host=fake.HOST, clock=SystemClock())
    state = await again.latest_state()
    assert state.model_copy(update={"host_usage": bus.snapshot().host_usage}) == bus.snapshot()
    await again.aclose()
