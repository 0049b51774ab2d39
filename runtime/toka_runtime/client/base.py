"""What a front end holds: one interface, near and far (local, remote, replay, fake). Four methods and a link."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from toka_runtime.protocol.commands import CommandRequest, CommandResult
from toka_runtime.protocol.ids import HostId
from toka_runtime.protocol.model import Model
from toka_runtime.protocol.snapshot import FleetState
from toka_runtime.protocol.stream import Batch, Resync

__all__ = ["Batch", "Link", "LinkState", "Resync", "RuntimeClient"]


class LinkState(StrEnum):
    CONNECTING = "connecting"
    UP = "up"
    STALE = "stale"
    DOWN = "down"
    CLOSED = "closed"


class Link(Model):
    """How the client is connected. A local client is always up until closed."""

    host: HostId
    state: LinkState
    since: datetime
    detail: str = ""
    """Why it is not up, and when the next try is."""
    embedded: bool = False
    """The runtime lives in the client: closing the client stops it. Otherwise closing only detaches."""
    read_only: str = ""
    """Why commands would be refused ("" when they are not)."""
    version: str = ""
    """Of the runtime at the other end."""
    protocol: int = 0
    """Version of the protocol that both ends speak; 0: none, the runtime is in this process."""
    round_trip_s: float | None = None
    """Of the last ping; None: not measured, or nothing to measure."""
    skew_s: float | None = None
    """How much the host's clock is ahead of ours; None as above."""
    skew_error_s: float = 0.0
    """To within so much."""


class RuntimeClient(Protocol):
    host: HostId

    @property
    def link(self) -> Link: ...

    async def snapshot(self) -> FleetState:
        """The fleet now. Then call `events(after_seq=state.seq)`: nothing is lost in between."""
        ...

    def events(self, after_seq: int) -> AsyncGenerator[Batch]:
        """Batches of envelopes in order, durable ones from `after_seq + 1` without a gap, samples between them.
        Ends when the client is closed. A reader may be slow: MUST events are never dropped silently (see `Resync`)."""
        ...

    async def send(self, request: CommandRequest) -> CommandResult:
        """Carry out one command. Never raises for a refused command: the result says so. Sending the same id twice
        answers the first result."""
        ...

    async def aclose(self) -> None:
        """Local: stops the runtime in order, leaving no process. Remote: detaches. Safe to call twice."""
        ...
