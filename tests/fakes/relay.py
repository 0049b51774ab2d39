"""A relay in front of a runtime's socket: a link that is cut in the middle of a frame, stands still, or is slow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from toka_runtime.aio import TaskOwner
from toka_runtime.client.endpoint import connected

CHUNK = 16 * 1024


class Relay:
    """Between `path` and the runtime at `target`. Down: from the runtime to the front end."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self.delay_s = 0.0
        """One way, both ways; order is kept."""
        self.closed_to_new = False
        """Who connects now is turned away."""
        self.connections = 0
        self.failures: list[BaseException] = []
        self._target = target
        self._left: int | None = None
        self._moving = asyncio.Event()
        self._moving.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks = TaskOwner(lambda _name, error: self.failures.append(error))
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._accept, self.path)

    async def aclose(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._tasks.aclose()
        assert self.failures == []

    def cut(self) -> None:
        """All connections, now; what is on its way is lost."""
        self._left = None
        for writer in self._writers:
            writer.transport.abort()

    def cut_after(self, size: int) -> None:
        """All connections, once `size` more bytes have gone down."""
        self._left = size

    def hold(self) -> None:
        """Nothing moves any more, as in a network that swallows packets; connections stay."""
        self._moving.clear()

    def let_go(self) -> None:
        self._moving.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.closed_to_new:
            writer.transport.abort()
            return
        self.connections += 1
        self._tasks.spawn(self._carry(reader, writer), name="connection")

    async def _carry(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        far, to_far = await asyncio.open_unix_connection(sock=connected(self._target))
        self._writers |= {to_near, to_far}
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(near, to_far, down=False))
                both.create_task(self._pump(far, to_near, down=True))
        finally:
            self._writers -= {to_near, to_far}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, down: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._moving.wait()
                if down and self._left is not None:
                    self._left -= len(data)
                    if self._left <= 0:
                        writer.write(data[: len(data) + self._left])
                        with contextlib.suppress(OSError):
                            await writer.drain()
                        self.cut()
                        return
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def relay(path: Path, target: Path) -> AsyncGenerator[Relay]:
    made = Relay(path, target)
    await made.open()
    try:
        yield made
    finally:
        await made.aclose()
