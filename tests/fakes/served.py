"""A real runtime that serves at a socket, and a reader that follows it as a console does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from fakes.gateway import finish
from fakes.scene import Scene, scene, spec
from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.client.attached import AttachedClient
from toka_runtime.client.base import Resync
from toka_runtime.client.endpoint import SOCKET_NAME
from toka_runtime.client.local import LocalClient
from toka_runtime.protocol.commands import CommandRequest
from toka_runtime.protocol.events import Envelope, Level
from toka_runtime.protocol.fold import fold
from toka_runtime.protocol.ids import CommandId, new_command_id
from toka_runtime.protocol.snapshot import FleetState
from toka_runtime.server.daemon import Daemon


class Served:
    def __init__(self, stage: Scene, path: Path) -> None:
        self.stage = stage
        self.path = path
        self.failures: list[BaseException] = []
        self.client = LocalClient(stage.supervisor)
        self.daemon = Daemon(self.client, path, lambda _name, error: self.failures.append(error))

    async def notice(self, *texts: str) -> None:
        for text in texts:
            await self.stage.supervisor.notice(Level.INFO, "test", text)

    @property
    def head(self) -> int:
        return self.stage.supervisor.store.head


@asynccontextmanager
async def served(tmp_path: Path, *specs: str) -> AsyncGenerator[Served]:
    async with scene(tmp_path, lambda _request: finish(), *(specs or (spec("alpha"),))) as stage:
        made = Served(stage, tmp_path / "state" / SOCKET_NAME)
        await made.daemon.open()
        try:
            yield made
        finally:
            await made.client.aclose("the test is over")
            await made.daemon.aclose()
            assert made.failures == []


class Reader:
    """Follows a client's stream as a console does: snapshot, then the fold of what comes."""

    def __init__(self, client: AttachedClient, state: FleetState) -> None:
        self.state = state
        self.log: list[Envelope] = []
        self.resyncs: list[Resync] = []
        self._client = client
        self._grew = asyncio.Event()
        self._task = spawn(self._read(), name="reader")

    async def _read(self) -> None:
        async with aclosing(self._client.events(self.state.seq)) as batches:
            async for batch in batches:
                if isinstance(batch, Resync):
                    self.resyncs.append(batch)
                    self.state = batch.state
                else:
                    self.log += batch
                    self.state = fold(self.state, batch)
                self._grew.set()

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                self._grew.clear()
                await self._grew.wait()

    async def ended(self) -> None:
        async with asyncio.timeout(30):
            await asyncio.wait([self._task])

    async def aclose(self) -> None:
        await cancel_and_wait(self._task)

    @property
    def durable(self) -> list[int]:
        return [envelope.seq for envelope in self.log if envelope.durable]


@asynccontextmanager
async def reading(client: AttachedClient, state: FleetState | None = None) -> AsyncGenerator[Reader]:
    reader = Reader(client, state or await client.snapshot())
    try:
        yield reader
    finally:
        await reader.aclose()
        await client.aclose()


def ask(command: Any, identity: str = "") -> CommandRequest:
    return CommandRequest(
        id=CommandId(identity) if identity else new_command_id("test"), actor="me (test)", command=command
    )
