"""The framed channel between a front end and a runtime that is not in its process: one JSON object a line, UTF-8.

The same frames over a unix socket and over SSH. A frame longer than `PART_CHARS` goes as several `part` lines, so that
no line passes `LINE_BYTES`. Unknown fields and unknown frames are ignored: a newer peer may send them.

    B: bridge {role, from}   (only from a bridge, before all else)
    C: hello  → S: hello (or hello with `error`)
    S: snap {n, why, missed, state} · evs {n, e: [envelope…]} · res (a CommandResult) · hb {}
       pong {c, now} · bye {why}
    C: ack {n} · cmd (a CommandRequest) · ping {c}

`n` numbers the frames of the stream; the runtime keeps at most `credit` bytes of them unacknowledged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal, cast

from pydantic import Field, ValidationError

from toka_runtime.errors import ProtocolError
from toka_runtime.protocol.ids import HostId
from toka_runtime.protocol.model import Model
from toka_runtime.protocol.roles import Role

VERSIONS = (1, 1)
"""Oldest and newest version of the protocol that this side speaks."""
LINE_BYTES = 1024 * 1024
PART_CHARS = 128 * 1024
"""Escaped once more inside a part, a character takes at most six bytes."""
FRAME_CHARS = 64 * 1024 * 1024
HELLO_BYTES = 64 * 1024
CREDIT_BYTES = 64 * 1024
HEARTBEAT_S = 3.0
STALE_S = 6.0
LOST_S = 10.0
"""A link on which nothing was heard for so long is left, and made anew."""

Frame = dict[str, Any]


class ResumeFrom(Model):
    """Where a front end's knowledge ends: the runtime's epoch and the last durable event it has."""

    epoch: str
    seq: int


class ClientHello(Model):
    t: Literal["hello"] = "hello"
    proto: tuple[int, int] = VERSIONS
    client: str
    """Name and version, e.g. `toka-console 0.1.0`."""
    resume: ResumeFrom | None = None
    credit: int = CREDIT_BYTES


class BridgeHello(Model):
    t: Literal["bridge"]
    role: Role
    origin: str = Field(default="", alias="from")
    """`SSH_CONNECTION`: client address and port, server address and port."""


class ServerHello(Model):
    toka: Literal["hello"] = "hello"
    proto: int = 0
    """The version that both will speak; 0 with `error`."""
    versions: tuple[int, int] = VERSIONS
    server: str = ""
    host: HostId = HostId("")
    epoch: str = ""
    head: int = 0
    resumed: bool = False
    uid: int = -1
    """The front end's user as the kernel tells it."""
    role: Role = Role.ADMIN
    heartbeat_s: float = HEARTBEAT_S
    now: datetime | None = None
    error: str = ""
    """A code, when the front end is turned away."""
    message: str = ""
    hint: str = ""


def common_version(theirs: tuple[int, int]) -> int:
    """The newest version that both speak; 0 when there is none."""
    newest = min(VERSIONS[1], theirs[1])
    return newest if newest >= max(VERSIONS[0], theirs[0]) else 0


def lines_of(text: str, number: int = 0) -> Iterator[bytes]:
    """The lines of one frame, each with its newline. `text` is the frame's JSON; `number` tells the parts of a long
    frame from those of another that is sent at the same time."""
    if len(text) <= PART_CHARS:
        yield text.encode() + b"\n"
        return
    count = -(-len(text) // PART_CHARS)
    for index in range(count):
        piece = text[index * PART_CHARS : (index + 1) * PART_CHARS]
        yield json.dumps({"t": "part", "of": number, "i": index, "count": count, "data": piece}).encode() + b"\n"


class FrameJoiner:
    """Lines to frames. Raises ProtocolError for what is no frame; holds at most `FRAME_CHARS` of unfinished ones."""

    def __init__(self) -> None:
        self._parts: dict[int, list[str]] = {}
        self._held = 0

    def add(self, line: bytes) -> Frame | None:
        """A whole frame, or None while parts are missing and for empty lines."""
        if not line.strip():
            return None
        frame = _object(line)
        if frame.get("t") != "part":
            return frame
        try:
            number, index, count, data = int(frame["of"]), int(frame["i"]), int(frame["count"]), str(frame["data"])
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"a part of a frame is not whole: {error!r}") from error
        parts = self._parts.setdefault(number, [])
        self._held += len(data)
        if index != len(parts) or self._held > FRAME_CHARS:
            raise ProtocolError(f"part {index + 1} of {count} does not follow the {len(parts)} that came before")
        parts.append(data)
        if len(parts) < count:
            return None
        del self._parts[number]
        text = "".join(parts)
        self._held -= len(text)
        return _object(text)


def _object(text: bytes | str) -> Frame:
    try:
        value: Any = json.loads(text)
    except ValueError as error:
        raise ProtocolError(f"a line that is no JSON: {text[:80]!r}") from error
    if not isinstance(value, dict):
        raise ProtocolError(f"a line that is no object: {text[:80]!r}")
    return cast(Frame, value)


def client_hello(line: bytes) -> ClientHello:
    try:
        return ClientHello.model_validate_json(line)
    except ValidationError as error:
        raise ProtocolError("the first line is no hello of a front end") from error


def bridge_hello(line: bytes) -> BridgeHello | None:
    """None for a line that is no bridge's."""
    if b'"bridge"' not in line:
        return None
    try:
        return BridgeHello.model_validate_json(line)
    except ValidationError:
        return None


def server_hello(line: bytes) -> ServerHello:
    try:
        return ServerHello.model_validate_json(line)
    except ValidationError as error:
        raise ProtocolError("the runtime's first line is no hello") from error
