"""A runtime that front ends attach to: its unix socket, and the connections on it."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

from toka_runtime.aio import OnFailure, TaskOwner
from toka_runtime.client.base import RuntimeClient
from toka_runtime.client.endpoint import listening
from toka_runtime.clock import Clock, SystemClock
from toka_runtime.errors import StoreLocked, UsageError
from toka_runtime.protocol import wire
from toka_runtime.server.connection import Connection
from toka_runtime.server.peer import peer_of

CONNECTIONS = 64
CLOSE_S = 2.0
"""What front ends get for taking in the last events."""


class Daemon:
    """Serves one runtime at one socket. Opening raises UsageError when the socket cannot be made."""

    def __init__(self, client: RuntimeClient, path: Path, on_failure: OnFailure, clock: Clock | None = None) -> None:
        self.path = path
        self._client = client
        self._clock: Clock = clock or SystemClock()
        self._on_failure = on_failure
        self._connections: set[Connection] = set()
        self._tasks = TaskOwner(on_failure)
        self._commands = TaskOwner(on_failure)
        self._server: asyncio.Server | None = None
        self._identity = (0, 0)

    async def open(self) -> None:
        try:
            made = listening(self.path)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise StoreLocked(
                    f"{self.path} is in use", hint="another runtime serves there: attach to it, or choose --socket PATH"
                ) from error
            raise UsageError(
                f"cannot listen at {self.path}: {error.strerror}", hint="choose another place with --socket PATH"
            ) from error
        found = self.path.stat()
        self._identity = (found.st_dev, found.st_ino)
        self._server = await asyncio.start_unix_server(self._accept, sock=made, limit=wire.LINE_BYTES)

    @property
    def front_ends(self) -> tuple[str, ...]:
        """Who is attached."""
        return tuple(sorted(f"{each.name} {each.peer.actor('')}".strip() for each in self._connections))

    async def aclose(self) -> None:
        """Accept nobody any more; let those that are attached take in what is left, then end. Safe to call twice.
        Close the client first: its stream's end is what they wait for."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        self._remove()
        await self._tasks.wait(CLOSE_S)
        await self._tasks.aclose()
        await self._commands.aclose()

    def _remove(self) -> None:
        """The socket's file, unless another has taken its place."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return
        if (found.st_dev, found.st_ino) == self._identity:
            self.path.unlink(missing_ok=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = peer_of(writer.get_extra_info("socket"))
        if peer.uid not in (0, os.geteuid()) or len(self._connections) >= CONNECTIONS or self._server is None:
            # The file's mode keeps others out already; a descriptor can be handed on.
            writer.close()
            return
        connection = Connection(
            self._client,
            reader,
            writer,
            peer=peer,
            clock=self._clock,
            commands=self._commands,
            on_failure=self._on_failure,
        )
        self._tasks.spawn(self._serve(connection), name=f"front end {peer.actor('')}")

    async def _serve(self, connection: Connection) -> None:
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)
