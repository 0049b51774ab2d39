"""Frames to and from a worker or a tool, on the runtime's loop."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from toka_runtime.errors import ProcessError, ProtocolError
from toka_runtime.worker.frames import FrameDecoder, FrameError, encode


class FrameChannel(asyncio.Protocol):
    """A WorkerChannel. Holds at most one frame and one read more: a peer that floods is not read from."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._decoder = FrameDecoder()
        self._transport: asyncio.Transport | None = None
        self._ended = False
        self._broken: FrameError | None = None
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    @classmethod
    async def open(cls, sock: socket.socket, peer: str) -> FrameChannel:
        """`peer` names the other side in errors. Owns the socket, a connected unix stream."""
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_unix_connection(lambda: cls(peer), sock=sock)
        return channel

    async def send(self, frame: dict[str, Any]) -> None:
        """Raises ProcessError when the peer is gone, ProtocolError when the frame is too long."""
        try:
            data = encode(frame)
        except FrameError as error:
            raise ProtocolError(f"{error} (to {self._peer})") from None
        await self._writable.wait()
        if self._transport is None or self._transport.is_closing() or self._ended:
            raise ProcessError(f"{self._peer} is gone")
        self._transport.write(data)
        await self._writable.wait()

    async def receive(self) -> dict[str, Any] | None:
        """The next frame; None at the end. Raises ProtocolError on a broken frame, now and ever after. A cancelled
        call loses nothing."""
        while True:
            if self._broken is not None:
                raise ProtocolError(f"{self._peer} sent an unreadable frame: {self._broken}")
            try:
                if (frame := self._decoder.pop()) is not None:
                    return frame
                if self._ended and len(self._decoder):
                    raise FrameError("the stream ended inside a frame")
            except FrameError as error:
                self._broken = error
                self.close()
                continue
            if self._ended:
                return None
            self._changed.clear()
            self._resume_reading()
            await self._changed.wait()

    def close(self) -> None:
        """At once; what was not written is lost. Safe to call twice."""
        self._ended = True
        if self._transport is not None:
            self._transport.abort()
        self._changed.set()
        self._writable.set()

    # -- asyncio.Protocol -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # a stream socket gives nothing else
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._decoder.feed(data)
        if self._decoder.missing_bytes == 0:
            if self._transport is not None:
                self._transport.pause_reading()
            self._changed.set()

    def eof_received(self) -> bool:
        self._ended = True
        self._changed.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._changed.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
