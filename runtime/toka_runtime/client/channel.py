"""Frames over one connection, as the front end's end of it sees them."""

from __future__ import annotations

import asyncio
import contextlib
from json import dumps
from typing import Protocol

from toka_runtime.clock import Clock
from toka_runtime.errors import ProtocolError
from toka_runtime.protocol import codec, wire


class Sink(Protocol):
    """Where bytes for the other side go."""

    def write(self, data: bytes) -> None: ...

    def is_closing(self) -> bool: ...

    def abort(self) -> None: ...

    async def wait_closed(self) -> None:
        """Raises OSError."""
        ...


class StreamSink:
    """A `Sink` of asyncio's own."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.write = writer.write
        self.is_closing = writer.is_closing
        self.wait_closed = writer.wait_closed

    def abort(self) -> None:
        self._writer.transport.abort()


class Channel:
    """Frames over one connection."""

    def __init__(self, reader: asyncio.StreamReader, sink: Sink, clock: Clock) -> None:
        self._reader = reader
        self._sink = sink
        self._clock = clock
        self._joiner = wire.FrameJoiner()
        self.heard_at = clock.monotonic()
        """Any byte is life."""

    async def hello(self) -> wire.ServerHello:
        """The runtime's hello; a login shell's noise before it is passed over, up to `wire.HELLO_BYTES`."""
        passed = 0
        while passed < wire.HELLO_BYTES:
            line = await self._line()
            if not line:
                break
            if b'"toka"' in line:
                return wire.server_hello(line)
            passed += len(line)
        raise ProtocolError("no toka-runtime answered")

    async def frame(self) -> wire.Frame | None:
        """The next whole frame, the events of the stream as envelopes if they can be read at once; None at the end.
        Raises ProtocolError, OSError."""
        while line := await self._line():
            if (events := codec.decode_events(line)) is not None:
                return {"t": "evs", "n": events.n, "e": events.e}
            if (frame := self._joiner.add(line)) is not None:
                return frame
        return None

    async def _line(self) -> bytes:
        try:
            line = await self._reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return b""
        except asyncio.LimitOverrunError as error:
            raise ProtocolError(f"a line longer than {wire.LINE_BYTES} bytes") from error
        self.heard_at = self._clock.monotonic()
        return line

    def put(self, frame: wire.Frame) -> None:
        """Small frames only: what we send is bounded by what people and screens ask for."""
        for line in wire.lines_of(dumps(frame)):
            self._sink.write(line)

    def acknowledge(self, number: int) -> None:
        if not self._sink.is_closing():
            self.put({"t": "ack", "n": number})

    def abort(self) -> None:
        self._sink.abort()

    async def aclose(self) -> None:
        self.abort()
        with contextlib.suppress(OSError):
            await self._sink.wait_closed()
