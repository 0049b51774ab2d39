"""The name that a TLS client asks for, read from its first message (RFC 8446 §4.1.2, RFC 6066 §3). Pure."""

from __future__ import annotations

MAX_HELLO_BYTES = 16 << 10
HANDSHAKE = 0x16
_CLIENT_HELLO = 1
_SERVER_NAME = 0
UNRECOGNIZED_NAME = bytes((0x15, 3, 1, 0, 2, 2, 112))
"""A fatal alert, so that the client can say why."""


class NotTls(Exception):
    """What came is no ClientHello in order."""


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise NotTls("a length in the ClientHello is beyond its end")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def block(self, size: int) -> _Reader:
        """What follows a length of `size` bytes."""
        return _Reader(self.take(self.number(size)))


def server_name(data: bytes) -> str | None:
    """From the first bytes of a client: the name in lower case, "" when it sends none, None when more bytes are needed.
    The message may be spread over several records. With an encrypted inner hello it is the outer name. Raises NotTls,
    also when no end is in sight after 16 KiB."""
    hello = _message(data)
    if hello is None:
        if len(data) >= MAX_HELLO_BYTES:
            raise NotTls("the ClientHello is too long")
        return None
    reader = _Reader(hello)
    reader.take(2 + 32)  # version, random
    reader.block(1)  # session
    reader.block(2)  # ciphers
    reader.block(1)  # compression
    if not reader.left:
        return ""
    extensions = reader.block(2)
    if reader.left:
        raise NotTls("something follows the ClientHello's extensions")
    names: list[str] = []
    while extensions.left:
        kind = extensions.number(2)
        body = extensions.block(2)
        if kind == _SERVER_NAME:
            names.append(_name(body))
    if len(names) > 1:
        raise NotTls("the ClientHello names more than one server")
    return names[0] if names else ""


def _message(data: bytes) -> bytes | None:
    """The body of the ClientHello, or None while it is incomplete."""
    message = bytearray()
    at = 0
    while True:
        head = data[at : at + 5]
        if (head and head[0] != HANDSHAKE) or (len(head) > 1 and head[1] != 3):
            raise NotTls("a TLS handshake is needed")
        if len(head) < 5:
            return None
        length = int.from_bytes(head[3:5], "big")
        if not 0 < length <= MAX_HELLO_BYTES:
            raise NotTls("a TLS record has no sensible length")
        message += data[at + 5 : at + 5 + length]
        if message and message[0] != _CLIENT_HELLO:
            raise NotTls("the first message is no ClientHello")
        if len(message) >= 4:
            wanted = int.from_bytes(message[1:4], "big")
            if wanted > MAX_HELLO_BYTES:
                raise NotTls("the ClientHello is too long")
            if len(message) >= 4 + wanted:
                return bytes(message[4 : 4 + wanted])
        at += 5 + length
        if at > len(data):
            return None


def _name(body: _Reader) -> str:
    listed = body.block(2)
    if body.left or listed.number(1) != 0:
        raise NotTls("the server name is not in order")
    name = listed.block(2)
    if listed.left:
        raise NotTls("the ClientHello names more than one server")
    raw = name.take(name.left)
    if not raw or not raw.isascii() or not all(0x20 < byte < 0x7F for byte in raw):
        raise NotTls("the server name is not in order")
    return raw.decode().lower()
