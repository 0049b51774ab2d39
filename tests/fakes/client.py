"""A RuntimeClient that plays what a test scripts, and records what it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from typing import Any

from toka_runtime.client.base import Batch, Link, LinkState, Resync
from toka_runtime.clock import Clock
from toka_runtime.protocol import commands as cmd
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.fold import fold
from toka_runtime.protocol.ids import AgentName, HostId, RunId
from toka_runtime.protocol.snapshot import FleetState

HOST = HostId("local")
Answer = Callable[[cmd.CommandRequest], "cmd.CommandResult | None"]
"""A scripted answer; None: the default one (ok, at the present head)."""


class FakeRuntimeClient:
    """Implements `RuntimeClient`. `emit` makes one envelope and delivers it; `requests` holds every command.

    `answer` scripts results; `hold` makes `send` wait until `release`; `end_stream` ends the event stream, with an
    error if one is given, and `refuse_streams` makes new ones fail.
    """

    def __init__(self, clock: Clock | None = None, state: FleetState | None = None) -> None:
        self.host = HOST
        self.clock = clock
        self.state = state or FleetState(host=HOST)
        self.requests: list[cmd.CommandRequest] = []
        self.log: list[ev.Envelope] = []
        self.answer: Answer = lambda request: None
        self.closed = False
        self.refuse_streams: Exception | None = None
        self.streams = 0
        self.read_only = ""
        self.embedded = True
        self._queues: list[asyncio.Queue[Batch | Exception | None]] = []
        self._released = asyncio.Event()
        self._released.set()

    # -- the interface --------------------------------------------------------------------------------------------

    @property
    def link(self) -> Link:
        state = LinkState.CLOSED if self.closed else LinkState.UP
        since = datetime(2026, 1, 1, tzinfo=UTC)
        return Link(host=self.host, state=state, since=since, embedded=self.embedded, read_only=self.read_only)

    async def snapshot(self) -> FleetState:
        if self.refuse_streams is not None:
            raise self.refuse_streams
        return self.state

    async def events(self, after_seq: int) -> AsyncGenerator[Batch]:
        if self.refuse_streams is not None:
            raise self.refuse_streams
        queue: asyncio.Queue[Batch | Exception | None] = asyncio.Queue()
        self._queues.append(queue)
        self.streams += 1
        missed = [envelope for envelope in self.log if envelope.durable and envelope.seq > after_seq]
        if missed:
            yield missed
        try:
            while (batch := await queue.get()) is not None:
                if isinstance(batch, Exception):
                    raise batch
                yield batch
        finally:
            self._queues.remove(queue)

    async def send(self, request: cmd.CommandRequest) -> cmd.CommandResult:
        self.requests.append(request)
        await self._released.wait()
        if (scripted := self.answer(request)) is not None:
            return scripted
        if isinstance(request.command, cmd.ReadEvents):
            return self._read(request.id, request.command)
        return cmd.CommandResult(id=request.id, ok=True, seq=self.state.seq + 1)

    async def aclose(self) -> None:
        self.closed = True
        self.end_stream()

    # -- for tests ------------------------------------------------------------------------------------------------

    @property
    def listening(self) -> bool:
        """Whether somebody reads events: samples that are sent before are lost, as with any client."""
        return bool(self._queues)

    @property
    def commands(self) -> list[cmd.Command]:
        """What was asked for, without the queries."""
        return [request.command for request in self.requests if request.command.op not in cmd.QUERIES]

    def envelope(self, event: Any, agent: str | None = None, run: str | None = None) -> ev.Envelope:
        durable = type(event).durable if hasattr(type(event), "durable") else True
        known = self.state.agents.get(AgentName(agent)) if agent else None
        return ev.Envelope(
            seq=self.state.seq + 1 if durable else self.state.seq,
            at=self.clock.now() if self.clock is not None else datetime.now(UTC),
            host=self.host,
            agent=AgentName(agent) if agent else None,
            run=RunId(run) if run else (known.run if known is not None else None),
            durable=durable,
            event=event,
        )

    def emit(self, event: Any, agent: str | None = None, run: str | None = None) -> ev.Envelope:
        """Make an envelope of `event`, keep it, and deliver it to whoever listens."""
        envelope = self.envelope(event, agent, run)
        self.deliver([envelope])
        return envelope

    def deliver(self, batch: list[ev.Envelope]) -> None:
        self.state = fold(self.state, batch)
        self.log.extend(envelope for envelope in batch if envelope.durable)
        for queue in self._queues:
            queue.put_nowait(batch)

    def resync(self, missed: int) -> None:
        for queue in self._queues:
            queue.put_nowait(Resync(state=self.state, missed=missed))

    def confirm(self, request: cmd.CommandRequest, ok: bool = True, message: str = "") -> None:
        """The event that a real runtime records for each command."""
        target = getattr(request.command, "target", None)
        name = target.agent if target is not None else None
        self.emit(
            ev.CommandHandled(
                command=request.id, actor=request.actor, name=request.command.op, target=name or "", ok=ok,
                message=message,
            ),
            agent=name,
        )  # fmt: skip

    def hold(self) -> None:
        self._released.clear()

    def release(self) -> None:
        self._released.set()

    def end_stream(self, error: Exception | None = None) -> None:
        for queue in self._queues:
            queue.put_nowait(error)

    def _read(self, request: str, read: cmd.ReadEvents) -> cmd.CommandResult:
        found = [
            envelope
            for envelope in self.log
            if envelope.seq > read.after_seq
            and (read.before_seq is None or envelope.seq < read.before_seq)
            and (read.agent is None or envelope.agent == read.agent)
            and (not read.kinds or envelope.event.kind in read.kinds)
        ]
        if read.newest_first:
            found.reverse()
        data = {"events": found[: read.limit], "more": len(found) > read.limit}
        return cmd.CommandResult(id=cmd.CommandId(request), ok=True, seq=self.state.seq, data=data)
