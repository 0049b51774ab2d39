"""One front end on the wire: hello, the stream within its credit, and commands, whose answers go before events."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from contextlib import aclosing
from dataclasses import dataclass
from json import dumps

import toka_runtime
from toka_runtime.aio import OnFailure, TaskOwner, cancel_and_wait
from toka_runtime.client.base import RuntimeClient
from toka_runtime.clock import Clock
from toka_runtime.errors import ProtocolError
from toka_runtime.protocol import codec, wire
from toka_runtime.protocol.commands import CommandResult
from toka_runtime.protocol.ids import CommandId
from toka_runtime.protocol.snapshot import FleetState
from toka_runtime.protocol.stream import Batch, Resync
from toka_runtime.server.peer import Peer

HELLO_S = 10.0
STALL_S = 30.0
"""A front end that acknowledges nothing for so long is let go."""
CHUNK_CHARS = 24 * 1024
"""Of a frame of events: two of them fit into the credit, so that one is on its way while the other is taken in."""
COMMANDS_AT_ONCE = 64
ANSWERS_MOST = 256
"""Lines."""
BUFFER_BYTES = 64 * 1024
"""Written but not yet taken by the kernel: more would make an answer wait behind events."""


@dataclass(frozen=True, slots=True)
class _Sent:
    number: int
    size: int


class Connection:
    """Serves one front end until it leaves, breaks the protocol, stalls, or the runtime closes."""

    def __init__(
        self,
        client: RuntimeClient,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        peer: Peer,
        clock: Clock,
        commands: TaskOwner,
        on_failure: OnFailure,
    ) -> None:
        """`reader` needs a limit of at least `wire.LINE_BYTES`. `commands` outlives the connection."""
        self.peer = peer
        self.name = ""
        self._client = client
        self._reader = reader
        self._writer = writer
        self._clock = clock
        self._owner = TaskOwner(on_failure)
        self._commands = commands
        self._ending = False
        self._answers: deque[bytes] = deque()
        self._stream: deque[tuple[int, bytes]] = deque()
        self._flying: deque[_Sent] = deque()
        self._flying_bytes = 0
        self._credit = wire.CREDIT_BYTES
        self._number = 0
        self._work = asyncio.Event()
        """Something may be writable."""
        self._room = asyncio.Event()
        """The stream's outbox is empty."""
        self._room.set()
        self._told = asyncio.Event()
        """Not too many answers wait: a front end that asks and doesn't read is not read, either."""
        self._told.set()
        self._free = asyncio.Semaphore(COMMANDS_AT_ONCE)
        self._progress_at = clock.monotonic()

    async def serve(self) -> None:
        """Returns when it is over; the transport is closed then. Never raises for what the other side does."""
        self._writer.transport.set_write_buffer_limits(high=BUFFER_BYTES)
        try:
            hello = await self._greet()
            if hello is None:
                return
            who = self.peer.actor(self.name)
            reading = self._owner.spawn(self._read(), name=f"commands of {who}")
            streaming = self._owner.spawn(self._pump(hello), name=f"stream of {who}")
            writing = self._owner.spawn(self._write(), name=f"wire of {who}")
            await asyncio.wait({reading, streaming, writing}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                # Nobody is there any more, or what it says can't be understood: only the answers still go out.
                await cancel_and_wait(streaming)
                self._stream.clear()
            self._ending = True
            self._work.set()
            await asyncio.wait({writing}, timeout=STALL_S)
        finally:
            await self._owner.aclose()
            self._writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._writer.wait_closed()

    # -- hello --------------------------------------------------------------------------------------------------------

    async def _greet(self) -> wire.ClientHello | None:
        state = await self._client.snapshot()
        try:
            async with asyncio.timeout(HELLO_S):
                line = await self._reader.readuntil(b"\n")
                if (bridge := wire.bridge_hello(line)) is not None:
                    self.peer = self.peer.over_ssh(bridge.role, bridge.origin)
                    line = await self._reader.readuntil(b"\n")
                hello = wire.client_hello(line)
        except ProtocolError as error:
            await self._turn_away(error.code, error.message)
            return None
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            return None
        version = wire.common_version(hello.proto)
        if not version:
            older = hello.proto[1] < wire.VERSIONS[0]
            upgrade = hello.client if older else f"toka-runtime {toka_runtime.__version__}"
            await self._turn_away(
                "protocol.mismatch",
                f"{hello.client} speaks protocol {hello.proto[0]}–{hello.proto[1]}, "
                f"this runtime {wire.VERSIONS[0]}–{wire.VERSIONS[1]}",
                f"upgrade {upgrade}",
            )
            return None
        self.name = hello.client
        self._credit = max(wire.HELLO_BYTES, min(hello.credit, 1024 * 1024))
        resumed = hello.resume is not None and hello.resume.epoch == _epoch(state) and hello.resume.seq <= state.seq
        answer = wire.ServerHello(
            proto=version,
            server=toka_runtime.__version__,
            host=self._client.host,
            epoch=_epoch(state),
            head=state.seq,
            resumed=resumed,
            uid=self.peer.uid,
            role=self.peer.role,
            now=self._clock.now(),
        )
        self._answer(answer.model_dump_json())
        return hello if resumed else hello.model_copy(update={"resume": None})

    async def _turn_away(self, code: str, message: str, hint: str = "") -> None:
        answer = wire.ServerHello(server=toka_runtime.__version__, error=code, message=message, hint=hint)
        for line in wire.lines_of(answer.model_dump_json()):
            self._writer.write(line)
        with contextlib.suppress(OSError):
            await self._writer.drain()

    # -- what comes in ------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        joiner = wire.FrameJoiner()
        while True:
            await self._told.wait()
            try:
                line = await self._reader.readuntil(b"\n")
                frame = joiner.add(line)
            except (OSError, asyncio.IncompleteReadError):
                return
            except (asyncio.LimitOverrunError, ProtocolError) as error:
                self._answer(dumps({"t": "bye", "why": f"protocol error: {error}"}))
                return
            match frame:
                case {"t": "ack", "n": int(number)}:
                    self._acknowledged(number)
                case {"t": "ping", "c": int(number)}:
                    self._answer(dumps({"t": "pong", "c": number, "now": self._clock.now().isoformat()}))
                case {"t": "cmd"}:
                    await self._free.acquire()
                    self._commands.spawn(self._command(frame.get("request")), name="command")
                case _:
                    pass

    def _acknowledged(self, number: int) -> None:
        while self._flying and self._flying[0].number <= number:
            self._flying_bytes -= self._flying.popleft().size
            self._progress_at = self._clock.monotonic()
        self._work.set()

    async def _command(self, asked: object) -> None:
        """Carried out to its end also when the front end leaves meanwhile."""
        try:
            request = codec.decode_request(dumps(asked))
            known = {"actor": self.peer.actor(request.actor), "role": self.peer.role}
            result = await self._client.send(request.model_copy(update=known))
        except ProtocolError as error:
            result = CommandResult(id=_command_id(asked), ok=False, code=error.code, message=error.message)
        finally:
            self._free.release()
        self._answer(f'{{"t":"res","result":{result.model_dump_json()}}}')

    # -- what goes out ------------------------------------------------------------------------------------------------

    def _answer(self, text: str) -> None:
        self._number += 1
        self._answers.extend(wire.lines_of(text, self._number))
        if len(self._answers) >= ANSWERS_MOST:
            self._told.clear()
        self._work.set()

    async def _pump(self, hello: wire.ClientHello) -> None:
        """Batches to frames, a batch at a time: what a slow front end does not take, the bus holds or thins out."""
        seq = hello.resume.seq if hello.resume else 0
        if hello.resume is None:
            state = await self._client.snapshot()
            await self._put_state(state, "new", 0)
            seq = state.seq
        async with aclosing(self._client.events(seq)) as batches:
            async for batch in batches:
                await self._put(batch)
        await self._put_frame('"bye","why":"the runtime has closed"')

    async def _put(self, batch: Batch) -> None:
        if isinstance(batch, Resync):
            await self._put_state(batch.state, "gap", batch.missed)
            return
        pieces: list[str] = []
        size = 0
        for envelope in batch:
            text = envelope.model_dump_json()
            if pieces and size + len(text) > CHUNK_CHARS:
                await self._put_frame(f'"evs","e":[{",".join(pieces)}]')
                pieces, size = [], 0
            pieces.append(text)
            size += len(text)
        if pieces:
            await self._put_frame(f'"evs","e":[{",".join(pieces)}]')

    async def _put_state(self, state: FleetState, why: str, missed: int) -> None:
        await self._put_frame(f'"snap","why":"{why}","missed":{missed},"state":{state.model_dump_json()}')

    async def _put_frame(self, rest: str) -> None:
        await self._room.wait()
        self._number += 1
        number = self._number
        text = f'{{"n":{number},"t":{rest}}}'
        self._stream.extend((number, line) for line in wire.lines_of(text, number))
        self._room.clear()
        self._work.set()

    async def _write(self) -> None:
        """The only writer: answers first, then the stream within its credit, and a sign of life when there is nothing.
        Ends when the other side is gone or stalls, or when the connection ends and everything is written."""
        while not (self._ending and not self._answers and not self._stream):
            try:
                async with asyncio.timeout(wire.HEARTBEAT_S):
                    await self._work.wait()
            except TimeoutError:
                if self._flying and self._clock.monotonic() - self._progress_at > STALL_S:
                    return
                self._answer('{"t":"hb"}')
            self._work.clear()
            try:
                while self._write_one():
                    async with asyncio.timeout(STALL_S):
                        await self._writer.drain()
            except (OSError, TimeoutError):
                return

    def _write_one(self) -> bool:
        if self._answers:
            self._writer.write(self._answers.popleft())
            if not self._answers:
                self._told.set()
            return True
        if not self._stream:
            return False
        number, line = self._stream[0]
        open_frame = bool(self._flying) and self._flying[-1].number == number
        if self._flying and not open_frame and self._flying_bytes + len(line) > self._credit:
            return False
        self._stream.popleft()
        self._flying.append(_Sent(number, len(line)))
        if len(self._flying) == 1:
            self._progress_at = self._clock.monotonic()
        self._flying_bytes += len(line)
        if not self._stream:
            self._room.set()
        self._writer.write(line)
        return True


def _epoch(state: FleetState) -> str:
    return state.runtime.epoch if state.runtime else ""


def _command_id(asked: object) -> CommandId:
    return CommandId(str(asked.get("id", "")) if isinstance(asked, dict) else "")  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
