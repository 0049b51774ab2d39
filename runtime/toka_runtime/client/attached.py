"""The client of a runtime in another process: attaches, stays attached, and never pretends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime
from json import dumps
from pathlib import Path
from typing import Any

import toka_runtime
from toka_runtime.aio import TaskOwner, cancel_and_wait, spawn
from toka_runtime.client.base import Batch, Link, LinkState, Resync
from toka_runtime.client.channel import Channel, Sink, StreamSink
from toka_runtime.client.endpoint import connected, the_runtime
from toka_runtime.client.pulse import Pulse
from toka_runtime.clock import Clock, SystemClock
from toka_runtime.errors import LinkDown, LinkRefused, ProtocolError
from toka_runtime.protocol import codec, wire
from toka_runtime.protocol.commands import CommandRequest, CommandResult
from toka_runtime.protocol.ids import CommandId, HostId
from toka_runtime.protocol.roles import Role
from toka_runtime.protocol.snapshot import FleetState

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, Sink]]]
"""Opens a channel, in a time of its own; the reader's limit is at least `wire.LINE_BYTES`. Raises OSError (TimeoutError
among them), LinkRefused for what stays so."""
RETRY_S, RETRY_MOST_S = 0.25, 15.0
ANSWER_S = 10.0
"""After so long without an answer the outcome of a command is unknown."""
HELLO_S = 10.0


class AttachedClient:
    """`RuntimeClient` over a framed channel. It reconnects for ever, goes on where the stream broke off, and answers
    commands with `link.down` (nothing was sent) or `link.unknown` (it may have been carried out)."""

    def __init__(self, connect: Connect, name: str, *, clock: Clock | None = None, hello_s: float = HELLO_S) -> None:
        """`name` stands for the host until it has told its own."""
        self.host = HostId(name)
        self.on_link: Callable[[], None] | None = None
        """Called when the link has come up or gone down, and when the host's clock has been measured first."""
        self._connect = connect
        self._hello_s = hello_s
        self._clock: Clock = clock or SystemClock()
        self._state, self._since, self._detail = LinkState.CONNECTING, self._clock.now(), ""
        self._tasks = TaskOwner(self._failed)
        self._channel: Channel | None = None
        self._epoch = ""
        self._seq = 0
        """The last durable event handed to the reader's queue."""
        self._read_only = self._version = ""
        self._protocol = 0
        self._pulse = Pulse(self._clock)
        self._known = False
        """There is a state that the stream can go on from."""
        self._first: asyncio.Future[FleetState] | None = None
        # Bounded by the credit: what is not acknowledged is not followed by much more.
        self._batches: asyncio.Queue[tuple[Batch, int, Channel] | None] = asyncio.Queue()
        self._open: dict[CommandId, tuple[CommandRequest, str, asyncio.Future[CommandResult]]] = {}
        self._final: LinkRefused | None = None

    @property
    def link(self) -> Link:
        state, since, detail = self._state, self._since, self._detail
        channel = self._channel
        if state is LinkState.UP and channel is not None:
            silent = self._clock.monotonic() - channel.heard_at
            if silent > wire.STALE_S:
                state, detail = LinkState.STALE, f"nothing heard for {silent:.0f} s"
        return Link(
            host=self.host,
            state=state,
            since=since,
            detail=detail,
            read_only=self._read_only,
            version=self._version,
            protocol=self._protocol,
            round_trip_s=self._pulse.round_trip_s,
            skew_s=self._pulse.skew_s,
            skew_error_s=(self._pulse.least_round_trip_s or 0.0) / 2,
        )

    async def attach(self) -> None:
        """Connect for the first time. Raises LinkDown when nobody is there, LinkRefused when it turns us away."""
        self._first = asyncio.get_running_loop().create_future()
        try:
            channel = await self._channel_up()
        except (OSError, ProtocolError, TimeoutError) as error:
            self._set(LinkState.DOWN, str(error) or "no answer")
            why = getattr(error, "strerror", None) or str(error) or "no answer"
            raise LinkDown(f"cannot attach to {self.host}: {why}", hint="is a runtime serving there?") from error
        self._tasks.spawn(self._stay(channel), name="link")

    async def snapshot(self) -> FleetState:
        """The fleet as of a new beginning of the stream. Raises LinkDown after `ANSWER_S` without one."""
        if self._final is not None:
            raise self._final
        first = self._first or self._begin_anew()
        try:
            async with asyncio.timeout(ANSWER_S):
                state = await asyncio.shield(first)
        except TimeoutError:
            raise LinkDown(f"{self.host} sends no state: {self._detail or self._state}") from None
        self._first = None
        return state

    async def events(self, after_seq: int) -> AsyncGenerator[Batch]:
        """For one reader at a time, after `snapshot`: `after_seq` is that of the snapshot or of a later batch."""
        while (item := await self._batches.get()) is not None:
            batch, number, channel = item
            yield batch
            # What was taken in is acknowledged: a slow reader slows the stream, not the runtime.
            channel.acknowledge(number)

    async def send(self, request: CommandRequest) -> CommandResult:
        channel = self._channel
        if channel is None or self._state is not LinkState.UP:
            return _refused(request, "link.down", f"not sent: {self.host} is {self._state}: {self._detail}")
        answer: asyncio.Future[CommandResult] = asyncio.get_running_loop().create_future()
        self._open[request.id] = (request, self._epoch, answer)
        channel.put({"t": "cmd", "request": request.model_dump(mode="json")})
        try:
            async with asyncio.timeout(ANSWER_S):
                return await answer
        except TimeoutError:
            return _unknown(request, f"no answer for {ANSWER_S:g} s")
        finally:
            self._open.pop(request.id, None)

    async def aclose(self) -> None:
        """Detach; the runtime and its agents go on."""
        self._set(LinkState.CLOSED, "detached")
        await self._tasks.aclose()
        await self._drop("detached")
        self._end_of_stream()

    # -- the link -----------------------------------------------------------------------------------------------------

    async def _stay(self, channel: Channel) -> None:
        """Serve the channel; when it breaks, connect again, ever more slowly, until closed or turned away."""
        delay = RETRY_S
        while True:
            why = await self._serve(channel)
            await self._drop(why)
            while True:
                pause = random.uniform(0, delay)  # noqa: S311  # jitter, not secrecy
                self._set(LinkState.DOWN, f"{why}; next try in {pause:.1f} s")
                await self._clock.sleep(pause)
                try:
                    channel = await self._channel_up()
                    break
                except LinkRefused as error:
                    self._final = error
                    self._set(LinkState.DOWN, f"{error}; not tried again")
                    self._end_of_stream()
                    return
                except (OSError, ProtocolError, TimeoutError) as error:
                    why = getattr(error, "strerror", None) or str(error) or "no answer"
                    delay = min(RETRY_MOST_S, delay * 2)
            delay = RETRY_S

    async def _channel_up(self) -> Channel:
        """A channel past its hello. Raises OSError, TimeoutError, ProtocolError, LinkRefused."""
        reader, sink = await self._connect()
        channel = Channel(reader, sink, self._clock)
        async with asyncio.timeout(self._hello_s):
            try:
                resume = wire.ResumeFrom(epoch=self._epoch, seq=self._seq) if self._known else None
                hello = wire.ClientHello(client=f"toka {toka_runtime.__version__}", resume=resume)
                channel.put(hello.model_dump(mode="json"))
                answer = await channel.hello()
            except BaseException:
                await channel.aclose()
                raise
        if answer.error:
            await channel.aclose()
            raise LinkRefused(f"{self.host} refuses: {answer.message}", hint=answer.hint)
        self.host = answer.host
        self._version, self._protocol = answer.server, answer.proto
        self._read_only = "your key is a viewer's on that host" if answer.role is Role.VIEWER else ""
        self._lose_commands(answer.epoch)
        self._epoch, self._known = answer.epoch, answer.resumed
        self._channel = channel
        self._set(LinkState.UP, f"attached, runtime {answer.server}")
        for request, _, _ in list(self._open.values()):
            # The same id is answered, never carried out twice.
            channel.put({"t": "cmd", "request": request.model_dump(mode="json")})
        return channel

    async def _serve(self, channel: Channel) -> str:
        """Take in frames until the channel ends; why it did."""
        watching = spawn(self._watch(channel), name=f"heartbeat of {self.host}")
        reading = spawn(self._take_in(channel), name=f"frames of {self.host}")
        try:
            await asyncio.wait({watching, reading}, return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else watching.result()
        finally:
            await cancel_and_wait(watching)
            await cancel_and_wait(reading)

    async def _watch(self, channel: Channel) -> str:
        while (silent := self._clock.monotonic() - channel.heard_at) < wire.LOST_S:
            channel.put(self._pulse.ping())
            await self._clock.sleep(min(wire.HEARTBEAT_S, wire.LOST_S - silent))
        return f"nothing heard for {silent:.0f} s"

    async def _take_in(self, channel: Channel) -> str:
        while True:
            try:
                frame = await channel.frame()
                match frame:
                    case None:
                        return "the runtime closed the connection"
                    case {"t": "evs", "n": int(number)}:
                        await self._events(frame.get("e"), number, channel)
                    case {"t": "snap", "n": int(number)}:
                        await self._snapshot(frame, number, channel)
                    case {"t": "res"}:
                        self._result(frame)
                    case {"t": "pong"}:
                        self._pong(frame)
                    case {"t": "bye"}:
                        return str(frame.get("why", ""))
                    case _:
                        pass
            except ProtocolError as error:
                # What cannot be understood is not built upon: begin anew.
                self._known = False
                return f"protocol error: {error}"
            except OSError as error:
                return error.strerror or str(error)

    async def _events(self, raw: Any, number: int, channel: Channel) -> None:
        batch = [codec.envelope_from(item) for item in raw]
        fresh = [each for each in batch if not each.durable or each.seq > self._seq]
        for each in fresh:
            if each.durable:
                self._seq = each.seq
        await self._batches.put((fresh, number, channel))

    async def _snapshot(self, frame: wire.Frame, number: int, channel: Channel) -> None:
        state = codec.decode_state(frame.get("state"))
        before, self._seq, self._known = self._seq, state.seq, True
        if self._first is not None and not self._first.done():
            self._first.set_result(state)
            channel.acknowledge(number)
            return
        missed = int(frame.get("missed", 0)) or max(0, state.seq - before)
        await self._batches.put((Resync(state=state, missed=missed), number, channel))

    def _pong(self, frame: wire.Frame) -> None:
        measured = self._pulse.skew_s is not None
        self._pulse.pong(frame)
        if not measured and self.on_link is not None:
            self.on_link()

    def _result(self, frame: wire.Frame) -> None:
        result = codec.decode_result(dumps(frame.get("result")))
        found = self._open.get(result.id)
        if found is not None and not found[2].done():
            found[2].set_result(result)

    # -- ends and beginnings ------------------------------------------------------------------------------------------

    def _begin_anew(self) -> asyncio.Future[FleetState]:
        """Ask for a new snapshot; what is queued belongs to the old stream."""
        first = self._first = asyncio.get_running_loop().create_future()
        self._known = False
        while not self._batches.empty():
            self._batches.get_nowait()
        if self._channel is not None:
            self._channel.abort()
        return first

    def _end_of_stream(self) -> None:
        self._batches.put_nowait(None)

    def _lose_commands(self, epoch: str) -> None:
        """A runtime that has started anew knows nothing of commands sent before."""
        for request, sent_to, answer in self._open.values():
            if sent_to != epoch and not answer.done():
                answer.set_result(_unknown(request, "the runtime was restarted meanwhile"))

    async def _drop(self, why: str) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.aclose()
        if self._state is LinkState.CLOSED:
            for request, _, answer in self._open.values():
                if not answer.done():
                    answer.set_result(_unknown(request, why))

    def _set(self, state: LinkState, detail: str) -> None:
        if state is not self._state:
            self._since: datetime = self._clock.now()
        self._state, self._detail = state, detail
        if self.on_link is not None:
            self.on_link()

    def _failed(self, name: str, error: BaseException) -> None:
        """A defect of ours: the link is down and stays so, visibly."""
        self._final = LinkRefused(f"the {name} of {self.host} failed: {error!r}", hint="attach again")
        self._set(LinkState.DOWN, str(self._final))
        self._end_of_stream()


async def attached_by(connect: Connect, name: str, *, hello_s: float = HELLO_S) -> AttachedClient:
    """Attached, or closed again. Raises LinkDown, LinkRefused."""
    client = AttachedClient(connect, name, hello_s=hello_s)
    try:
        await client.attach()
    except BaseException:
        await client.aclose()
        raise
    return client


async def attach_unix(socket_path: Path | None = None) -> AttachedClient:
    """Attached to the runtime that serves at a socket (None: the only one there is). Raises LinkDown, LinkRefused, and
    UsageError when it is not clear which one is meant."""
    path = socket_path or the_runtime()

    async def connect() -> tuple[asyncio.StreamReader, Sink]:
        reader, writer = await asyncio.open_unix_connection(sock=connected(path), limit=wire.LINE_BYTES)
        return reader, StreamSink(writer)

    return await attached_by(connect, str(path))


def _refused(request: CommandRequest, code: str, message: str) -> CommandResult:
    return CommandResult(id=request.id, ok=False, code=code, message=message)


def _unknown(request: CommandRequest, why: str) -> CommandResult:
    return _refused(request, "link.unknown", f"outcome unknown: {why}; the events tell")
