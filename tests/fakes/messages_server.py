"""A Messages API server on loopback that does exactly what a test tells it, wire faults included, and keeps what it was
sent. It speaks just enough HTTP/1.1 and runs on the test's own loop: nothing has to be waited for by the clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self


@dataclass(frozen=True)
class Answer:
    """One response. With `events`, a stream; `end` says how it ends: whole, cut (a clean end of body after the events
    given), reset (the connection drops), or stall (silence for ever)."""

    status: int = 200
    events: Sequence[dict[str, Any] | str] | None = None
    """A str goes out as the data of an event as it is, whatever it holds."""
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    end: Literal["whole", "cut", "reset", "stall"] = "whole"


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: Any


def error_body(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


class FakeMessagesServer:
    """`answers` are given in order; the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.received: list[Received] = []
        self.connections = 0
        self.closed_by_client = asyncio.Event()
        """The client has dropped a connection in the middle of an answer."""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while (received := await _read_request(reader)) is not None:
                self.received.append(received)
                answer = self._answers[0] if len(self._answers) == 1 else self._answers.pop(0)
                if not await self._answer(answer, reader, writer):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            self.closed_by_client.set()
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _answer(self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        headers = {"request-id": f"req_{len(self.received)}", **answer.headers}
        if answer.events is None:
            body = json.dumps(answer.body).encode()
            headers |= {"content-type": "application/json", "content-length": str(len(body))}
            writer.write(_head(answer.status, headers) + body)
            await writer.drain()
            return True
        headers = {"content-type": "text/event-stream", "transfer-encoding": "chunked", **headers}
        writer.write(_head(answer.status, headers))
        for event in answer.events:
            writer.write(_chunk(_sse(event)))
            await writer.drain()
            await asyncio.sleep(0)
        if answer.end == "stall":
            await reader.read(1)
            self.closed_by_client.set()
            return False
        if answer.end == "reset":
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


async def _read_request(reader: asyncio.StreamReader) -> Received | None:
    line = await reader.readline()
    if not line:
        return None
    headers: dict[str, str] = {}
    while (header := (await reader.readline()).strip()) != b"":
        name, _, value = header.decode().partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Received(line.split()[1].decode(), headers, json.loads(body) if body else None)


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode()


def _sse(event: dict[str, Any] | str) -> bytes:
    if isinstance(event, str):
        return f"event: content_block_delta\ndata: {event}\n\n".encode()
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"
