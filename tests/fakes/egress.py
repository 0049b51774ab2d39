"""An egress proxy on loopback with real servers behind it, and everything that it tells."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fakes.clock import FakeClock
from toka_runtime.broker.proxy import EgressProxy
from toka_runtime.errors import StoreFull
from toka_runtime.protocol.capability import NetworkRule, Rights
from toka_runtime.protocol.events import Event, OperationAllowed, OperationDenied
from toka_runtime.protocol.usage import ResourceLimits


def network(*places: str) -> Rights:
    """Rights to `host:port`s, as they are written in rules."""
    rules: list[NetworkRule] = []
    for place in places:
        host, _, port = place.rpartition(":")
        rules.append(NetworkRule(id=f"network-access:{place}", capability="network-access", host=host, port=int(port)))
    return Rights(network=tuple(rules))


class Egress:
    """`names` is what the resolver knows: name → addresses, or an exception to raise."""

    def __init__(self, *granted: str, rate: int | None = None) -> None:
        self.rights = network(*granted)
        self.clock = FakeClock()
        self.events: list[Event] = []
        self.names: dict[str, list[str]] = {"localhost": ["127.0.0.1"]}
        self.asked: list[str] = []
        self.full = False
        self.on_emit: Callable[[Event], Awaitable[None]] | None = None
        self.failures: list[BaseException] = []
        self.proxy = EgressProxy(
            rights=lambda: self.rights,
            emit=self._emit,
            clock=self.clock,
            limits=ResourceLimits(network_bytes_per_s=rate),
            lookup=self._lookup,
            on_failure=lambda name, error: self.failures.append(error),
        )
        self.port = 0

    async def _emit(self, event: Event) -> None:
        if self.on_emit is not None:
            await self.on_emit(event)
        if self.full:
            raise StoreFull("the disk is full")
        self.events.append(event)

    async def _lookup(self, name: str, port: int) -> Sequence[str]:
        self.asked.append(name)
        if name not in self.names:
            raise OSError("name or service not known")
        return self.names[name]

    async def open(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = listener.getsockname()[1]
        await self.proxy.serve(listener)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, data: bytes) -> bytes:
        """Everything that comes back on a connection of its own."""
        reader, writer = await self.connect()
        writer.write(data)
        answer = await reader.read()
        writer.close()
        return answer

    async def tunnel(self, place: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self.connect()
        writer.write(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        return reader, writer

    def denials(self) -> list[OperationDenied]:
        return [event for event in self.events if isinstance(event, OperationDenied)]

    def allowed(self) -> list[str]:
        return [event.target for event in self.events if isinstance(event, OperationAllowed)]

    def denial(self) -> tuple[str, str, str]:
        """(layer, rule, target) of the only one."""
        (found,) = self.denials()
        return str(found.denial.layer), found.denial.rule, found.denial.operation.target


@asynccontextmanager
async def egress(*granted: str, rate: int | None = None) -> AsyncIterator[Egress]:
    made = Egress(*granted, rate=rate)
    await made.open()
    try:
        yield made
    finally:
        await made.proxy.aclose()
    assert not made.failures, made.failures


class Server:
    """Speaks raw bytes; `seen` is all that it was sent, on all connections."""

    def __init__(self, answer: bytes, until: bytes) -> None:
        self.answer = answer
        self.until = until
        self.seen = b""
        self.connections = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        got = b""
        try:
            while self.until not in got and (data := await reader.read(65536)):
                got += data
                self.seen += data
            writer.write(self.answer)
            await writer.drain()
            writer.write_eof()
            while data := await reader.read(65536):
                self.seen += data
        except OSError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def server(
    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    until: bytes = b"\r\n\r\n",
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Server]:
    made = Server(answer, until)
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls)
    made.port = listening.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        listening.close()


def certificate(folder: Path, *names: str) -> tuple[ssl.SSLContext, Path]:
    """(context of a server, the certificate to trust)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    alternatives: list[Any] = [x509.DNSName(name) for name in names]
    alternatives.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "cert.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    both = folder / "both.pem"
    both.write_bytes(
        path.read_bytes()
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context, path
