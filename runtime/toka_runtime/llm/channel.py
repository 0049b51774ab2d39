"""Frames (`worker.frames`) over a connected socket on an event loop: the same on both sides of the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from toka_runtime.worker.frames import Frame, FrameDecoder, FrameError, encode


class FrameChannel(asyncio.Protocol):
    """`on_frame` is called for each frame, in order; `on_lost` once, when the other side is gone or sent what cannot be
    read."""

    def __init__(self, on_frame: Callable[[Frame], None], on_lost: Callable[[], None]) -> None:
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._decoder = FrameDecoder()
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = False

    @property
    def congested(self) -> bool:
        """The other side reads more slowly than we write."""
        return not self._writable.is_set()

    def send(self, frame: Frame) -> None:
        """Into the buffer; nothing happens when the other side is gone. Raises FrameError for a frame too long."""
        self.send_bytes(encode(frame))

    def send_bytes(self, data: bytes) -> None:
        """A frame that is encoded already."""
        if self._transport is not None and not self._lost:
            self._transport.write(data)

    async def drained(self) -> None:
        """Returns when the buffer has room, or the other side is gone."""
        await self._writable.wait()

    def close(self) -> None:
        """At once; what the other side has not read yet may be lost."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._decoder.feed(data)
        try:
            while not self._lost and (frame := self._decoder.pop()) is not None:
                self._on_frame(frame)
        except FrameError:
            self.close()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._writable.set()
        self._on_lost()
