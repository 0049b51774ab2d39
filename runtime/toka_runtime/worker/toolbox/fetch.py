"""fetch_url: GET over HTTP(S) from the host and port that policy allowed, and from no other.

Where the environment names a proxy there is no other way out: the proxy resolves and judges, and its refusal is told.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from toka_runtime.worker.toolbox.context import ToolContext, ToolResult
from toka_runtime.worker.toolbox.failure import ToolFailure
from toka_runtime.worker.toolbox.text import count

MAX_BYTES = 5 << 20
MAX_REDIRECTS = 5
CONNECT_S = 10.0
IDLE_S = 30.0
"""No byte for so long is an error; the whole is bounded by the tool's own time limit."""
PROXY_REFUSED_HEADER = "X-Toka-Refused"
"""The proxy's mark on answers of its own, with the rule; it takes the header out of what servers send."""
_MAX_PROXY_HEAD = 16 << 10
_MAX_PROXY_TEXT = 4096
_TEXT_TYPES = ("text/", "application/json", "application/xml", "application/javascript", "application/x-yaml")
_TEXT_SUFFIXES = ("+json", "+xml", "+yaml")


@dataclass(frozen=True)
class _Place:
    scheme: str
    host: str
    port: int

    @property
    def written(self) -> str:
        """`host:port`, as policy writes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def fetch_url(context: ToolContext) -> ToolResult:
    """Status, final address and text. A redirect to another host or port is told, not followed: it is another
    operation, and policy has to decide it."""
    url: str = context.arguments["url"]
    place, target = _split(url)
    proxy = _proxy_of(context.environment, place.scheme)
    # To a proxy, plain HTTP names the host in each request.
    prefix = f"http://{place.written}" if proxy and place.scheme == "http" else ""
    for _ in range(MAX_REDIRECTS + 1):
        connection = _connect_through(proxy, place) if proxy else _connect(place)
        try:
            response = _ask(connection, prefix + target)
            if prefix:
                _check_refused(response, place)
            location = response.headers.get("Location")
            if response.status in (301, 302, 303, 307, 308) and location:
                url = urljoin(url, location)
                elsewhere, target = _split(url)
                if elsewhere != place:
                    return ToolResult(
                        f"HTTP {response.status}: redirects to {url}\n(another host or port is not followed; fetch it "
                        "itself if it is needed)"
                    )
                continue
            return _read(response, url)
        except (OSError, http.client.HTTPException) as error:
            raise _broken(place, error) from None
        finally:
            connection.close()
    raise ToolFailure("tool.network", f"{url}: more than {MAX_REDIRECTS} redirects")


def _split(url: str) -> tuple[_Place, str]:
    try:
        parts: SplitResult = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError as error:
        raise ToolFailure("tool.invalid", f"{url}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ToolFailure("tool.invalid", f"{url}: only http:// and https:// addresses can be fetched")
    target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
    quoted = "".join(
        char if " " < char <= "~" else "".join(f"%{byte:02X}" for byte in char.encode()) for char in target
    )
    return _Place(parts.scheme, parts.hostname, port), quoted


def _connect(place: _Place) -> http.client.HTTPConnection:
    """Resolve once and connect to what was checked, so that a name cannot change its mind in between."""
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ToolFailure("tool.network", f"{place.host}: the name cannot be resolved: {error}") from None
    last: OSError | None = None
    for family, kind, protocol, _, address in found:
        _check_address(place.host, str(address[0]))
        raw = socket.socket(family, kind, protocol)
        try:
            raw.settimeout(CONNECT_S)
            raw.connect(address)
            stream = (
                ssl.create_default_context().wrap_socket(raw, server_hostname=place.host)
                if (place.scheme == "https")
                else raw
            )
        except OSError as error:
            raw.close()
            last = error
            continue
        stream.settimeout(IDLE_S)
        connection = http.client.HTTPConnection(place.host, place.port)
        if place.scheme == "https":
            connection.default_port = 443  # so that the Host header stays plain
        connection.sock = stream
        return connection
    raise _broken(place, last or OSError("no address"))


def _proxy_of(environment: Mapping[str, str], scheme: str) -> _Place | None:
    names = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")
    names = names if scheme == "https" else (*names[2:], *names[:2])
    found = next((environment[name] for name in names if environment.get(name)), "")
    if not found:
        return None
    try:
        parts = urlsplit(found if "://" in found else f"http://{found}")
        if parts.port is not None and parts.scheme == "http" and parts.hostname:
            return _Place("http", parts.hostname, parts.port)
    except ValueError:
        pass
    # Not around it: a proxy that cannot be read is no leave to go without.
    raise ToolFailure("tool.network", f"the proxy {found!r} is not http://host:port")


def _connect_through(proxy: _Place, place: _Place) -> http.client.HTTPConnection:
    """A connection on which the place can be asked; the name is resolved and judged by the proxy alone."""
    try:
        raw = socket.create_connection((proxy.host, proxy.port), CONNECT_S)
    except OSError as error:
        raise _broken(proxy, error) from None
    stream = raw
    try:
        # The proxy has its own limits for resolving and connecting, and says which one was met.
        raw.settimeout(IDLE_S)
        if place.scheme == "https":
            _open_tunnel(raw, place)
            stream = ssl.create_default_context().wrap_socket(raw, server_hostname=place.host)
    except (OSError, UnicodeError) as error:
        raw.close()
        raise _broken(place, error) from None
    except ToolFailure:
        raw.close()
        raise
    connection = http.client.HTTPConnection(place.host, place.port)
    if place.scheme == "https":
        connection.default_port = 443
    connection.sock = stream
    return connection


def _open_tunnel(raw: socket.socket, place: _Place) -> None:
    raw.sendall(f"CONNECT {place.written} HTTP/1.1\r\nHost: {place.written}\r\n\r\n".encode("ascii"))
    head = bytearray()
    # Byte by byte: what follows the head belongs to the tunnel.
    while not head.endswith(b"\r\n\r\n"):
        byte = raw.recv(1)
        if not byte or len(head) > _MAX_PROXY_HEAD:
            raise ToolFailure("tool.network", f"{place.written}: the proxy ended the connection")
        head += byte
    status = bytes(head).split(b" ", 2)[1:2]
    if status == [b"200"]:
        return
    text = bytearray()
    while len(text) < _MAX_PROXY_TEXT and (piece := raw.recv(_MAX_PROXY_TEXT)):
        text += piece
    raise _refused(place, bytes(text), refused=status == [b"403"])


def _check_refused(response: http.client.HTTPResponse, place: _Place) -> None:
    if response.headers.get(PROXY_REFUSED_HEADER) is not None:
        raise _refused(place, response.read(_MAX_PROXY_TEXT), refused=response.status == 403)


def _refused(place: _Place, text: bytes, *, refused: bool) -> ToolFailure:
    said = text.decode("utf-8", "replace").strip() or f"{place.written}: the proxy did not connect"
    if refused:
        return ToolFailure("tool.refused_by_proxy", said, refused_target=place.written)
    return ToolFailure("tool.network", said)


def _check_address(host: str, address: str) -> None:
    """A public name must not lead inside: to this machine, the local network or a metadata service."""
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        literal = None
    if literal is not None or host.lower() == "localhost":
        return  # written out, so policy has allowed exactly this
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    if not (mapped or found).is_global:
        target = f"{host} ({address})"
        raise ToolFailure("tool.refused", f"{target}: the name leads to a private address", refused_target=target)


def _ask(connection: http.client.HTTPConnection, target: str) -> http.client.HTTPResponse:
    connection.request(
        "GET", target, headers={"User-Agent": "toka-runtime", "Accept": "*/*", "Accept-Encoding": "identity"}
    )
    return connection.getresponse()


def _read(response: http.client.HTTPResponse, url: str) -> ToolResult:
    data = bytearray()
    more = False
    while piece := response.read1(65536):
        data += piece
        if len(data) > MAX_BYTES:
            more = True
            break
    kind = response.headers.get_content_type()
    encoded = response.headers.get("Content-Encoding", "identity").lower() != "identity"
    head = f"HTTP {response.status} {response.reason}\n{url}\n{kind}\n\n"
    ok = response.status < 400
    code = "" if ok else "tool.http_status"
    if encoded or not (kind.startswith(_TEXT_TYPES) or kind.endswith(_TEXT_SUFFIXES)) or b"\0" in data[:8192]:
        size = f"over {count(MAX_BYTES, 'byte')}" if more else count(len(data), "byte")
        return ToolResult(f"{head}(binary content, {size}: no text to show)", ok=ok, code=code)
    charset = response.headers.get_content_charset() or "utf-8"
    try:
        text = bytes(data[:MAX_BYTES]).decode(charset, "replace")
    except LookupError:
        text = bytes(data[:MAX_BYTES]).decode("utf-8", "replace")
    if more:
        text += f"\n(cut after {count(MAX_BYTES, 'byte')})"
    return ToolResult(head + text, ok=ok, code=code)


def _broken(place: _Place, error: Exception) -> ToolFailure:
    where = f"{place.host}:{place.port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return ToolFailure("tool.network", f"{where}: the certificate is not valid: {error.verify_message}")
    if isinstance(error, TimeoutError):
        return ToolFailure("tool.timeout", f"{where}: no answer in time")
    return ToolFailure("tool.network", f"{where}: {error or type(error).__name__}")
