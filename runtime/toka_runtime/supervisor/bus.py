"""Hands committed events to subscribers, each at its own pace, and keeps the runtime's own folded state."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from toka_runtime.clock import Clock, SystemClock
from toka_runtime.errors import StoreError
from toka_runtime.protocol.events import Delivery, Envelope, OutputAppended
from toka_runtime.protocol.fold import fold
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.snapshot import FleetState
from toka_runtime.protocol.stream import Batch, Resync
from toka_runtime.supervisor.thinning import count_must, thin

RING_EVENTS = 16_384
RING_TEXT = 16 * 1024 * 1024
"""Characters of output in the ring."""
MAX_PENDING = 10_000
BATCH_INTERVAL_S = 0.025
CATCH_UP_EVENTS = 500
"""Of one read from the log: a few milliseconds of decoding."""
BATCH_EVENTS = 4096
FOLD_EVENTS = 128
"""Folded at a time: below a millisecond, so that the loop can do other work in between."""
KEPT_NOTICES = 64


class Log(Protocol):
    """What the bus needs of the store (`EventStore` has it)."""

    state_source: Callable[[], FleetState] | None

    async def read(self, *, after_seq: int = 0, before_seq: int | None = None, limit: int = 1000) -> list[Envelope]: ...


@dataclass(slots=True)
class Counters:
    """Since the start, over all subscribers."""

    published: int = 0
    coalesced: int = 0
    """Samples left out because a newer one of the same agent followed, and segments merged into a later one."""
    dropped: int = 0
    """Bytes of output left out, counted in `dropped_bytes` of what was delivered."""
    resyncs: int = 0


class Bus:
    """One publisher, many subscribers. Publishing appends to a shared ring and sets a flag per subscriber: a slow or
    stopped reader costs neither time nor memory. Only the loop that made it may use it."""

    def __init__(
        self,
        log: Log,
        state: FleetState,
        *,
        clock: Clock | None = None,
        ring_events: int = RING_EVENTS,
        ring_text: int = RING_TEXT,
    ) -> None:
        """`state` is the fold of everything in the log. Connect it with `log.on_commit = bus.publish`."""
        self.counters = Counters()
        self.clock: Clock = clock or SystemClock()
        self.log = log
        self.seq = state.seq
        """The last durable event published."""
        self._state = state
        self._unfolded: list[Envelope] = []
        self._folding = False
        self._ring: list[Envelope] = []
        self._base = 0
        """Position of the ring's first entry: positions count everything ever published."""
        self._text = 0
        self._ring_events, self._ring_text = ring_events, ring_text
        self._latest: dict[tuple[str, AgentName | None], tuple[int, Envelope]] = {}
        self._notices: deque[tuple[int, Envelope]] = deque(maxlen=KEPT_NOTICES)
        self._subscriptions: set[Subscription] = set()
        self._closed = False
        log.state_source = self.snapshot

    def publish(self, envelopes: list[Envelope]) -> None:
        """Committed events and samples, in order. Never waits."""
        if not envelopes:
            return
        self.counters.published += len(envelopes)
        position = self._base + len(self._ring)
        for envelope in envelopes:
            event = envelope.event
            if envelope.durable:
                self.seq = envelope.seq
                if isinstance(event, OutputAppended):
                    self._text += len(event.text)
            elif event.delivery is Delivery.LATEST:
                self._latest[event.kind, envelope.agent] = (position, envelope)
            else:
                self._notices.append((position, envelope))
            position += 1
        self._ring += envelopes
        self._unfolded += envelopes
        if len(self._unfolded) >= FOLD_EVENTS and not self._folding:
            self._folding = True
            asyncio.get_running_loop().call_soon(self._fold_some)
        if len(self._ring) > self._ring_events * 5 // 4 or self._text > self._ring_text:
            self._trim()
        for subscription in self._subscriptions:
            subscription.wake()

    def snapshot(self) -> FleetState:
        """The fold of everything published so far."""
        self._fold()
        return self._state

    def subscribe(self, after_seq: int, *, max_pending: int = MAX_PENDING) -> Subscription:
        """Everything after `after_seq`: from the log first where the ring no longer has it. A subscriber that falls
        more than `max_pending` events (that must not be dropped) behind gets a `Resync` instead."""
        subscription = Subscription(self, after_seq, max_pending)
        if self._closed:
            subscription.close()
        else:
            self._subscriptions.add(subscription)
        return subscription

    def close(self) -> None:
        """Subscribers get what was published so far, and then the end. Safe to call twice."""
        self._closed = True
        for subscription in list(self._subscriptions):
            subscription.finish()

    # -- for subscriptions -------------------------------------------------------------------------------------------

    @property
    def first_position(self) -> int:
        return self._base

    @property
    def end_position(self) -> int:
        return self._base + len(self._ring)

    def position_after(self, seq: int) -> int:
        """Where to go on after the durable event `seq`: with the samples that follow it."""
        index = bisect_left(self._ring, seq, key=lambda envelope: envelope.seq)
        if index < len(self._ring) and self._ring[index].seq == seq and self._ring[index].durable:
            index += 1
        return self._base + index

    def holds_from(self, seq: int) -> bool:
        """Whether the ring has every durable event after `seq`."""
        return seq >= self.seq or (bool(self._ring) and self._first_durable() <= seq + 1)

    def _first_durable(self) -> int:
        return next((entry.seq for entry in self._ring if entry.durable), self.seq + 1)

    def entries(self, begin: int, end: int) -> list[Envelope]:
        return self._ring[begin - self._base : end - self._base]

    def samples(self, first_seq: int, last_seq: int, after_position: int) -> list[tuple[int, Envelope]]:
        """The newest samples that belong behind durable events first_seq … last_seq, in order, past a position."""
        found = [*self._latest.values(), *self._notices]
        return sorted(
            (entry for entry in found if entry[0] > after_position and first_seq <= entry[1].seq <= last_seq),
            key=lambda entry: entry[0],
        )

    def forget(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)

    def _fold_some(self) -> None:
        self._state = fold(self._state, self._unfolded[:FOLD_EVENTS])
        del self._unfolded[:FOLD_EVENTS]
        self._folding = len(self._unfolded) >= FOLD_EVENTS
        if self._folding:
            asyncio.get_running_loop().call_soon(self._fold_some)

    def _fold(self) -> None:
        if self._unfolded:
            self._state, self._unfolded = fold(self._state, self._unfolded), []

    def _trim(self) -> None:
        cut = max(0, len(self._ring) - self._ring_events)
        text = self._text - sum(_text_of(entry) for entry in self._ring[:cut])
        while text > self._ring_text * 3 // 4 and cut < len(self._ring):
            text -= _text_of(self._ring[cut])
            cut += 1
        del self._ring[:cut]
        self._base += cut
        self._text = text


def _text_of(envelope: Envelope) -> int:
    event = envelope.event
    return len(event.text) if isinstance(event, OutputAppended) and envelope.durable else 0


class Subscription:
    """An async iterator of `Batch`, for one reader. The first event comes at once, then at most one batch every
    25 ms. Ends after `close()`, or after what was published before the bus closed. `async with` closes it."""

    def __init__(self, bus: Bus, after_seq: int, max_pending: int) -> None:
        self._bus = bus
        self._seq = after_seq
        """The last durable event handed out (or jumped over by a resync)."""
        self._seen = -1
        """The last position of which a sample was handed out."""
        self._position: int | None = None
        """Where to go on in the ring; None: the log comes first."""
        self._max_pending = max_pending
        self._allowed = max(max_pending, bus.seq - after_seq)
        """How far behind it may be. What was there when it subscribed does not make a reader slow."""
        self._news = asyncio.Event()
        self._more = False
        """The last batch did not take everything that was there."""
        self._finishing = False
        self._closed = False
        self._last_batch = float("-inf")

    def wake(self) -> None:
        self._news.set()

    def finish(self) -> None:
        """No more will be published: end when everything has been handed out."""
        self._finishing = True
        self._news.set()

    def close(self) -> None:
        """End now. Safe to call twice."""
        self._closed = True
        self._bus.forget(self)
        self._news.set()

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Batch:
        bus = self._bus
        while not self._closed:
            if self._position is not None:
                # Live: nothing to do until there is news, and a rest between batches.
                if self._position >= bus.end_position:
                    if self._finishing:
                        break
                    self._news.clear()
                    await self._news.wait()
                rest = self._last_batch + BATCH_INTERVAL_S - bus.clock.monotonic()
                if rest > 0 and not (self._closed or self._finishing or self._more):
                    await bus.clock.sleep(rest)
                if self._closed:
                    break
            if batch := await self._next():
                self._last_batch = bus.clock.monotonic()
                return batch
        self.close()
        raise StopAsyncIteration

    async def _next(self) -> Batch:
        """The next batch; [] when there is nothing new."""
        bus = self._bus
        if self._seq > bus.seq:
            # From another log, or from one that has lost its end.
            return self._resync()
        earlier: list[Envelope] = []
        if self._position is None or self._position < bus.first_position:
            self._position = None
            if not bus.holds_from(self._seq):
                return await self._catch_up()
            self._position = max(bus.position_after(self._seq), self._seen + 1)
            # The ring may have lost samples that belong before its first durable event.
            lost = bus.samples(self._seq, self._seq, self._seen)
            earlier = [envelope for position, envelope in lost if position < bus.first_position]
        entries = bus.entries(self._position, bus.end_position)
        if len(entries) > self._allowed and count_must(entries) > self._allowed:
            return self._resync()
        self._more = len(entries) > BATCH_EVENTS
        self._allowed = max(self._max_pending, min(self._allowed, len(entries)))
        entries = entries[:BATCH_EVENTS]
        self._position += len(entries)
        self._seen = self._position - 1
        if not (entries := earlier + entries):
            return []
        self._seq = max(self._seq, entries[-1].seq)
        thinned = thin(entries)
        bus.counters.coalesced += thinned.coalesced
        bus.counters.dropped += thinned.dropped_bytes
        return thinned.envelopes

    async def _catch_up(self) -> Batch:
        """One piece from the log, with the samples that belong into it."""
        bus = self._bus
        backlog = bus.seq - self._seq
        if backlog > self._allowed:
            return self._resync()
        self._allowed = max(self._max_pending, backlog)
        goal = bus.seq
        try:
            events = await bus.log.read(after_seq=self._seq, before_seq=goal + 1, limit=CATCH_UP_EVENTS)
        except StoreError:
            return self._resync()
        if self._closed:
            return []
        if not events or [entry.seq for entry in events] != list(range(self._seq + 1, self._seq + 1 + len(events))):
            # Retention has been there.
            return self._resync()
        samples = bus.samples(self._seq, events[-1].seq, self._seen)
        self._seq = events[-1].seq
        if samples:
            self._seen = samples[-1][0]
        return _interleaved(events, [envelope for _, envelope in samples])

    def _resync(self) -> Resync:
        bus = self._bus
        state = bus.snapshot()
        missed = max(0, state.seq - self._seq)
        bus.counters.resyncs += 1
        self._seq, self._position, self._seen = state.seq, bus.end_position, bus.end_position - 1
        self._allowed = self._max_pending
        return Resync(state=state, missed=missed)


def _interleaved(events: Sequence[Envelope], samples: Sequence[Envelope]) -> list[Envelope]:
    """Each sample behind the durable event whose number it carries."""
    if not samples:
        return list(events)
    # The sort is stable, so samples of one number keep their order; a durable event goes before its samples.
    return sorted([*events, *samples], key=lambda envelope: (envelope.seq, not envelope.durable))
