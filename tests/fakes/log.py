"""An event log in memory, as far as the bus needs one."""

from __future__ import annotations

from collections.abc import Callable

from toka_runtime.errors import StoreError
from toka_runtime.protocol.events import Envelope
from toka_runtime.protocol.snapshot import FleetState


class FakeLog:
    """Holds what `commit` is given; `forget(seq)` drops everything before `seq`, as retention does."""

    def __init__(self) -> None:
        self.events: list[Envelope] = []
        self.oldest = 1
        self.reads = 0
        self.broken = False
        self.state_source: Callable[[], FleetState] | None = None
        self.on_commit: Callable[[list[Envelope]], None] | None = None

    @property
    def head(self) -> int:
        return self.events[-1].seq if self.events else 0

    def commit(self, envelopes: list[Envelope]) -> None:
        self.events += [envelope for envelope in envelopes if envelope.durable]
        if self.on_commit is not None:
            self.on_commit(envelopes)

    def forget(self, seq: int) -> None:
        self.oldest = max(self.oldest, seq)
        self.events = [envelope for envelope in self.events if envelope.seq >= seq]

    async def read(self, *, after_seq: int = 0, before_seq: int | None = None, limit: int = 1000) -> list[Envelope]:
        self.reads += 1
        if self.broken:
            raise StoreError("the log cannot be read")
        end = before_seq if before_seq is not None else self.head + 1
        return [envelope for envelope in self.events if after_seq < envelope.seq < end][:limit]
