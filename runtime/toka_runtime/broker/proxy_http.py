"""What a request to the egress proxy may look like: read strictly, written anew, or refused. Pure.

Nothing that was sent goes on as it was: host and port are brought to the one form that policy knows, headers are
filtered, and a body ends where its framing says, so that no second request can ride behind the first.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import cached_property

MAX_HEAD_BYTES = 16 << 10
REFUSED_HEADER = "X-Toka-Refused"
"""Marks an answer as the proxy's own; its value is the rule, or `failed` where none refused. Taken out of
what servers answer."""
HTTP_PORT = 80
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([!-~]+) HTTP/1\.([01])")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*)")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_MAX_NAME = 253
_HOP_BY_HOP = frozenset(
    {b"connection", b"proxy-connection", b"proxy-authorization", b"proxy-authenticate", b"keep-alive", b"te"}
    | {b"trailer", b"upgrade", b"host", b"expect", b"http2-settings"}
)


class Malformed(Exception):
    """Refused because of its form. `status` is the HTTP status of the answer, `asked` what was asked for, printable."""

    def __init__(self, text: str, *, status: str = "400 Bad Request", asked: bytes = b"") -> None:
        super().__init__(text)
        self.text = text
        self.status = status
        self.asked = printable(asked)


@dataclass(frozen=True)
class Target:
    """A host in the one form that policy knows: lower case, no dot at the end, `[…]` around an IPv6 address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @cached_property
    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """Where the host is an address and no name."""
        try:
            return ipaddress.ip_address(self.host.strip("[]"))
        except ValueError:
            return None


class FixedBody:
    """So many bytes and no more."""

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def done(self) -> bool:
        return self._left == 0

    def feed(self, data: bytes) -> int:
        """How many of these bytes belong to the body."""
        taken = min(self._left, len(data))
        self._left -= taken
        return taken


class ChunkedBody:
    """Chunks without extensions and trailers."""

    def __init__(self) -> None:
        self.done = False
        self._line = bytearray()
        self._left = 0
        self._closing = False
        """The line to come closes a chunk."""
        self._last = False

    def feed(self, data: bytes) -> int:
        """How many of these bytes belong to the body. Raises Malformed."""
        taken = 0
        while taken < len(data) and not self.done:
            if self._left:
                step = min(self._left, len(data) - taken)
                self._left -= step
                taken += step
                continue
            self._line.append(data[taken])
            taken += 1
            if len(self._line) > 17:
                raise Malformed("the chunked body is not in order")
            if self._line.endswith(b"\r\n"):
                self._end_line(bytes(self._line[:-2]))
                self._line.clear()
        return taken

    def _end_line(self, line: bytes) -> None:
        if self._closing:
            if line:
                raise Malformed("a chunk is longer than it said, or trailers follow")
            self.done = self._last
            self._closing = False
        elif re.fullmatch(rb"[0-9A-Fa-f]{1,15}", line):
            self._left = int(line, 16)
            self._last = self._left == 0
            self._closing = True
        else:
            raise Malformed("the chunked body is not in order")


@dataclass(frozen=True)
class ProxyRequest:
    tunnel: bool
    """CONNECT; otherwise one plain HTTP request."""
    target: Target
    host_header: Target | None
    head: bytes = b""
    """What the server is sent, its end included; empty for a tunnel."""
    body: FixedBody | ChunkedBody | None = None
    expects_continue: bool = False
    method: str = ""


def printable(data: bytes, most: int = 200) -> str:
    """For events and answers: one line of ASCII, cut."""
    text = "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in data[:most])
    return text + ("…" if len(data) > most else "")


def parse_target(authority: str, default_port: int | None = None) -> Target:
    """`host:port` in its one form. Raises Malformed for whatever could be understood in more than one way: user names,
    escapes, numbers that some resolvers take for addresses, zones, names that are not ASCII, ports beyond 1…65535."""
    asked = authority.encode("utf-8", "backslashreplace")
    if authority.startswith("["):
        host, bracket, port = authority.partition("]")
        return Target(_v6(host[1:], asked) if bracket else _bad(asked), _port(port, default_port, asked))
    host, colon, number = authority.partition(":")
    return Target(_name(host, asked), _port(colon + number, default_port, asked))


def _bad(asked: bytes, text: str = "the target is not host:port") -> str:
    raise Malformed(text, asked=asked)


def _port(text: str, default: int | None, asked: bytes) -> int:
    if not text and default is not None:
        return default
    if not text.startswith(":") or not _PORT.fullmatch(text[1:]) or int(text[1:]) > 65535:
        raise Malformed("a port from 1 to 65535 is needed", asked=asked)
    return int(text[1:])


def _v6(text: str, asked: bytes) -> str:
    if not re.fullmatch(r"[0-9a-fA-F:.]{2,45}", text):
        raise Malformed("the IPv6 address is not in order", asked=asked)
    try:
        # Not str(): whether that writes the last part with dots depends on Python's version.
        return f"[{ipaddress.IPv6Address(int(ipaddress.IPv6Address(text))).compressed.lower()}]"
    except ValueError:
        raise Malformed("the IPv6 address is not in order", asked=asked) from None


def _name(text: str, asked: bytes) -> str:
    name = text.lower() if text.isascii() else ""
    name = name[:-1] if name.endswith(".") else name
    if len(name) > _MAX_NAME or not _NAME.fullmatch(name):
        raise Malformed("the host is no plain name or address (ASCII; IDN as xn--…)", asked=asked)
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        # 127.1, 0x7f000001, 0177.0.0.1 and 2130706433 are one machine to some resolvers.
        try:
            return str(ipaddress.IPv4Address(name)) if not text.endswith(".") else _bad(asked)
        except ValueError:
            raise Malformed("an IPv4 address is written as four decimal numbers", asked=asked) from None
    return name


def parse_request(head: bytes) -> ProxyRequest:
    """`head` is everything up to the empty line, that line included. Raises Malformed."""
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise Malformed("this is an HTTP proxy: CONNECT host:port or GET http://host/… is needed", asked=lines[0])
    method, url, minor = match[1].decode(), match[2], match[3]
    headers = [_header(line, lines[0]) for line in lines[1:]]
    if method == "CONNECT":
        return _tunnel(url, headers)
    if method not in METHODS:
        raise Malformed(f"the method {method} is not forwarded", status="405 Method Not Allowed", asked=lines[0])
    return _plain(method, url, headers, minor)


def _header(line: bytes, asked: bytes) -> tuple[bytes, bytes, bytes]:
    """(lower-case name, value, the line)."""
    match = _HEADER.fullmatch(line)
    if match is None:
        raise Malformed("a header is not in order", asked=asked)
    return match[1].lower(), match[2].rstrip(b" \t"), line


def _tunnel(url: bytes, headers: list[tuple[bytes, bytes, bytes]]) -> ProxyRequest:
    target = parse_target(url.decode("ascii"))
    if any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value, _ in headers):
        raise Malformed("CONNECT has no body", asked=url)
    return ProxyRequest(tunnel=True, target=target, host_header=_host(headers, target.port, url), method="CONNECT")


def _plain(method: str, url: bytes, headers: list[tuple[bytes, bytes, bytes]], minor: bytes) -> ProxyRequest:
    if url[:7].lower() != b"http://" or b"#" in url:
        raise Malformed("only http://host/… is forwarded; https goes through CONNECT", asked=url)
    rest = url[7:].decode("ascii")
    cut = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    target = parse_target(rest[:cut], HTTP_PORT)
    host = _host(headers, HTTP_PORT, url)
    if host is None and minor == b"1":
        raise Malformed("a Host header is needed", asked=url)
    path = rest[cut:] if rest[cut:].startswith("/") else f"/{rest[cut:]}"
    named = {
        part.strip().lower() for name, value, _ in headers if name == b"connection" for part in value.split(b",")
    } - {b"content-length", b"transfer-encoding", b"content-type"}
    shown = target.host if target.port == HTTP_PORT else str(target)
    kept = [line for name, _, line in headers if name not in _HOP_BY_HOP and name not in named]
    lines = [f"{method} {path} HTTP/1.1".encode(), f"Host: {shown}".encode(), *kept, b"Connection: close", b"", b""]
    return ProxyRequest(
        tunnel=False,
        target=target,
        host_header=host,
        head=b"\r\n".join(lines),
        body=_body(headers, url),
        expects_continue=any(name == b"expect" and value.lower() == b"100-continue" for name, value, _ in headers),
        method=method,
    )


def _host(headers: list[tuple[bytes, bytes, bytes]], default_port: int, asked: bytes) -> Target | None:
    values = [value for name, value, _ in headers if name == b"host"]
    if len(values) > 1:
        raise Malformed("there is more than one Host header", asked=asked)
    return parse_target(values[0].decode("latin-1"), default_port) if values else None


def _body(headers: list[tuple[bytes, bytes, bytes]], asked: bytes) -> FixedBody | ChunkedBody | None:
    lengths = [value for name, value, _ in headers if name == b"content-length"]
    codings = [value.lower() for name, value, _ in headers if name == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise Malformed("the length of the body is said more than once", asked=asked)
    if codings:
        if codings != [b"chunked"]:
            raise Malformed("the only transfer coding is chunked", asked=asked)
        return ChunkedBody()
    if lengths:
        if not re.fullmatch(rb"[0-9]{1,18}", lengths[0]):
            raise Malformed("the length of the body is no number", asked=asked)
        return FixedBody(int(lengths[0]))
    return None


@dataclass(frozen=True)
class Answer:
    head: bytes
    """As the client gets it, its end included."""
    interim: bool = False
    """Another answer follows (1xx)."""
    body: FixedBody | None = None
    """None: until the server ends the connection."""


def parse_answer(head: bytes, method: str) -> Answer:
    """The head of a server's answer as the client gets it: the last on its connection, and never as if the proxy had
    spoken. Raises Malformed when it is no answer to this request."""
    lines = [line.rstrip(b"\r") for line in head.rstrip(b"\r\n").split(b"\n")]
    status = re.match(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: |$)", lines[0])
    if status is None or status[1] == b"101":
        raise Malformed("the server's answer is not one to this request", status="502 Bad Gateway")
    named = [(line.partition(b":")[0].strip().lower(), line) for line in lines[1:]]
    lengths = {line.partition(b":")[2].strip() for name, line in named if name == b"content-length"}
    chunked = any(name == b"transfer-encoding" for name, _ in named)
    if len(lengths) > 1 or any(not re.fullmatch(rb"[0-9]{1,18}", length) for length in lengths):
        raise Malformed("the server's answer says its length in two ways", status="502 Bad Gateway")
    body = None
    if method == "HEAD" or status[1] in (b"204", b"304"):
        body = FixedBody(0)
    elif lengths and not chunked:
        body = FixedBody(int(lengths.pop()))
    dropped = (b"connection", b"keep-alive", b"proxy-connection", REFUSED_HEADER.lower().encode())
    kept = [line for name, line in named if name not in dropped]
    return Answer(
        head=b"\r\n".join([lines[0], *kept, b"Connection: close", b"", b""]),
        interim=status[1].startswith(b"1"),
        body=body,
    )
