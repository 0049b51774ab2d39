"""Frames between the runtime, a worker and a tool: 4 bytes of length, big-endian, then one JSON object in UTF-8.

Standard library only. The peer may be hostile: a length beyond the cap is refused before a byte of it is stored, and
whatever is not one JSON object of valid text is an error, never a hang.
"""

from __future__ import annotations

import json
import re
import socket
from typing import Any, NoReturn

Frame = dict[str, Any]

MAX_FRAME_BYTES = 16 * 1024 * 1024
"""Cap of one frame's body. Nothing honest comes near it: conversations travel as deltas."""

_HEADER_BYTES = 4
_READ_BYTES = 256 * 1024
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class FrameError(ValueError):
    """A frame that is too long, cut short, or not one JSON object."""


def encode(frame: Frame) -> bytes:
    """The bytes of one frame. Lone surrogates (broken file names) become `?`. Raises FrameError when it is too long or
    holds something that JSON has no form for."""
    try:
        text = json.dumps(frame, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise FrameError(f"a frame cannot be written as JSON: {error}") from None
    try:
        body = text.encode()
    except UnicodeEncodeError:
        body = text.encode(errors="replace")
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {len(body)} bytes is longer than {MAX_FRAME_BYTES}")
    return len(body).to_bytes(_HEADER_BYTES, "big") + body


def decode(body: bytes) -> Frame:
    """One frame's body. Raises FrameError."""
    try:
        text = body.decode()
        frame: Any = json.loads(text, parse_constant=_refuse_constant)
        if _SURROGATE.search(body):
            # A lone surrogate would break whoever writes the text later: a database, a terminal.
            json.dumps(frame, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise FrameError(f"a frame of {len(body)} bytes is not JSON text: {error}") from None
    if not isinstance(frame, dict):
        raise FrameError(f"a frame holds a JSON {type(frame).__name__}, not an object")
    return frame  # pyright: ignore[reportUnknownVariableType]  # keys of a JSON object are strings


class FrameDecoder:
    """Bytes in, frames out. Bytes stay unparsed until `pop`, so that whoever feeds can stop at a bound of its own."""

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._buffer = bytearray()
        self._max_bytes = max_bytes

    def __len__(self) -> int:
        """Bytes held. 0 at the end of the stream means that it ended between two frames."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    @property
    def missing_bytes(self) -> int:
        """How many more bytes the first frame needs; 0 when `pop` will not return None. A length that is refused
        counts as complete, so that `pop` is asked and raises."""
        length = self._length()
        if length is None:
            return _HEADER_BYTES - len(self._buffer)
        if length > self._max_bytes:
            return 0
        return max(0, _HEADER_BYTES + length - len(self._buffer))

    def pop(self) -> Frame | None:
        """The next whole frame; None when more bytes are needed. Raises FrameError; the stream is unusable then."""
        length = self._length()
        if length is None:
            return None
        if length > self._max_bytes:
            raise FrameError(f"a frame announces {length} bytes, more than {self._max_bytes}")
        end = _HEADER_BYTES + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[_HEADER_BYTES:end])
        del self._buffer[:end]
        return decode(body)

    def _length(self) -> int | None:
        if len(self._buffer) < _HEADER_BYTES:
            return None
        return int.from_bytes(self._buffer[:_HEADER_BYTES], "big")


class FrameSocket:
    """Blocking frames over a connected stream socket: the side of a worker or a tool."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._decoder = FrameDecoder()

    def write(self, frame: Frame) -> None:
        """Raises FrameError, or OSError when the peer is gone."""
        self._socket.sendall(encode(frame))

    def read(self) -> Frame | None:
        """The next frame; None at a clean end of file. Raises FrameError, OSError."""
        while (frame := self._decoder.pop()) is None:
            try:
                data = self._socket.recv(_READ_BYTES)
            except ConnectionResetError:
                data = b""
            if not data:
                if len(self._decoder):
                    raise FrameError("the stream ended inside a frame")
                return None
            self._decoder.feed(data)
        return frame

    def waiting(self) -> bool:
        """Something can be read without waiting for the peer to begin: a frame, its beginning, or the end of file."""
        if len(self._decoder):
            return True
        try:
            self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
