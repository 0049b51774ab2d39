"""Moving bytes between two sockets: bounded, paced, counted, and given up when nothing moves."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.clock import Clock

T = TypeVar("T")
CHUNK = 128 << 10
"""Nothing more than this is held of a direction, and nothing while it is idle."""


@dataclass
class HostBytes:
    """What went to and came from one host and port, heads and handshakes included."""

    sent: int = 0
    received: int = 0


class TokenBucket:
    """Lets `rate` units a second through, after a first burst. None: no limit."""

    def __init__(self, clock: Clock, rate: float | None, burst: float = 0.0) -> None:
        self.rate = rate
        self._clock = clock
        self._burst = burst
        self._level = burst
        self._filled_at = clock.monotonic()

    async def take(self, count: float) -> None:
        """Return when so many may go. Those who come later wait for those before them."""
        if self.rate is None:
            return
        now = self._clock.monotonic()
        self._level = min(self._burst, self._level + (now - self._filled_at) * self.rate)
        self._filled_at = now
        self._level -= count
        if self._level < 0:
            await self._clock.sleep(-self._level / self.rate)


class Watch:
    """Ends what it watches when nothing has moved for as long as it was told last. A time that is made shorter counts
    from the end of the longer one that is running."""

    def __init__(self, clock: Clock, expired: Callable[[], object], seconds: float) -> None:
        self._clock = clock
        self._expired = expired
        self._span_s = seconds
        self._deadline = clock.monotonic() + seconds

    def arm(self, seconds: float) -> None:
        self._span_s = seconds
        self.touch()

    def touch(self) -> None:
        """Something moved: the time begins anew."""
        self._deadline = self._clock.monotonic() + self._span_s

    async def run(self) -> None:
        while (left := self._deadline - self._clock.monotonic()) > 0:
            await self._clock.sleep(left)
        self._expired()


class Wire:
    """One connected, non-blocking socket. Reading and writing may go on at the same time, each by one task."""

    def __init__(self, sock: socket.socket) -> None:
        self.answered = False
        """An answer to the client's request has begun."""
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def read(self, most: int = CHUNK) -> bytes:
        """b"" at the end. Raises OSError."""
        return await self._loop.sock_recv(self._sock, most)

    async def write(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._sock, data)

    def end(self) -> None:
        """Nothing more will be written."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._sock.close()


class Flow:
    """One connection between client and server, after both are there."""

    def __init__(self, client: Wire, server: Wire, count: HostBytes, pace: TokenBucket, watch: Watch) -> None:
        self.client = client
        self.server = server
        self._count = count
        self._pace = pace
        self._watch = watch
        # Small pieces where the rate is small, so that no direction waits long for the other's.
        self._most = CHUNK if pace.rate is None else max(512, min(CHUNK, int(pace.rate / 10)))

    async def up(self, data: bytes) -> None:
        """Send bytes to the server."""
        for at in range(0, len(data), self._most):
            piece = data[at : at + self._most]
            await self._pace.take(len(piece))
            self._count.sent += len(piece)
            await self.server.write(piece)
            self._watch.touch()

    async def down(self, data: bytes) -> None:
        """Send bytes to the client, counted by `read_server`."""
        self.client.answered = True
        await self.client.write(data)
        self._watch.touch()

    async def read_server(self) -> bytes:
        data = await self.server.read(self._most)
        self._count.received += len(data)
        self._watch.touch()
        await self._pace.take(len(data))
        return data

    async def read_client(self) -> bytes:
        data = await self.client.read(self._most)
        self._watch.touch()
        return data

    async def pump_up(self) -> None:
        """Until the client has ended its side; the server is told."""
        while data := await self.read_client():
            await self.up(data)
            await asyncio.sleep(0)  # Sockets that are always ready would keep the loop for themselves.
        self.server.end()

    async def pump_down(self) -> None:
        """Until the server has ended its side; the client is told."""
        while data := await self.read_server():
            await self.down(data)
            await asyncio.sleep(0)
        self.client.end()


async def within(clock: Clock, seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """The result of the work. Raises TimeoutError when it takes longer; the work has ended then."""
    task = spawn(work, name="proxy work")
    timer = spawn(clock.sleep(seconds), name="proxy timer")
    try:
        await asyncio.wait([task, timer], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        await cancel_and_wait(timer)
        await cancel_and_wait(task)
