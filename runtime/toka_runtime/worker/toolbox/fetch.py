"""fetch_url: GET over HTTP(S) from the host and port that policy allowed, and from no other."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
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
_TEXT_TYPES = ("text/", "application/json", "application/xml", "application/javascript", "application/x-yaml")
_TEXT_SUFFIXES = ("+json", "+xml", "+yaml")


@dataclass(frozen=True)
class _Place:
    scheme: str
    host: str
    port: int


def fetch_url(context: ToolContext) -> ToolResult:
    """Status, final address and text. A redirect to another host or port is told, not followed: it is another
    operation, and policy has to decide it."""
    url: str = context.arguments["url"]
    place, target = _split(url)
    for _ in range(MAX_REDIRECTS + 1):
        connection = _connect(place)
        try:
            response = _ask(connection, target)
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
