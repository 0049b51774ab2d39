"""Ways out by sockets: there is no network, and nothing on this machine answers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.cell import Cell, cell
from toka_runtime.protocol.spec import ScopedGrant
from toka_runtime.sandbox.launcher import ForkServer

FAMILIES = {
    "unix stream": "socket.AF_UNIX, socket.SOCK_STREAM",
    "unix datagram": "socket.AF_UNIX, socket.SOCK_DGRAM",
    "unix packet": "socket.AF_UNIX, socket.SOCK_SEQPACKET",
    "vsock": "socket.AF_VSOCK, socket.SOCK_STREAM",
    "netlink route": "socket.AF_NETLINK, socket.SOCK_RAW, 0",
    "netlink audit": "socket.AF_NETLINK, socket.SOCK_RAW, 9",
    "packet": "socket.AF_PACKET, socket.SOCK_RAW, 0x300",
    "raw IP": "socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW",
    "raw ICMP": "socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP",
    "raw IPv6": "socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6",
    "kernel crypto": "socket.AF_ALG, socket.SOCK_SEQPACKET",
    "bluetooth": "31, socket.SOCK_RAW",
    "CAN": "29, socket.SOCK_RAW",
    "TIPC": "30, socket.SOCK_SEQPACKET",
    "RDS": "21, socket.SOCK_SEQPACKET",
    "XDP": "44, socket.SOCK_RAW",
    "kernel connections": "41, socket.SOCK_DGRAM",
    "QIPCRTR": "42, socket.SOCK_DGRAM",
    "SMC": "43, socket.SOCK_STREAM",
}
REFUSED = {"EPERM", "EACCES", "EAFNOSUPPORT"}
UNREACHABLE = {"ENETUNREACH", "EHOSTUNREACH", "ECONNREFUSED", "EACCES", "EPERM", "EADDRNOTAVAIL"}


@pytest.mark.parametrize("name", FAMILIES)
async def test_no_such_socket(agent: Cell, name: str) -> None:
    assert await agent.python(f"tell(attempt(lambda: socket.socket({FAMILIES[name]}) and None))") in REFUSED
    assert await agent.answers()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """On the host's loopback: what must not hear anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.fixture
def datagrams() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        yield server


CONNECTS = {
    "TCP": "socket.create_connection(('127.0.0.1', PORT), 5)",
    "TCP by another loopback address": "socket.create_connection(('127.0.0.2', PORT), 5)",
    "TCP by the unspecified address": "socket.create_connection(('0.0.0.0', PORT), 5)",
    "TCP over IPv6": "socket.create_connection(('::1', PORT), 5)",
    "TCP over a mapped address": "socket.create_connection(('::ffff:127.0.0.1', PORT), 5)",
    "multipath TCP": "socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).connect(('127.0.0.1', PORT))",
    "SCTP": "socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132).connect(('127.0.0.1', PORT))",
    "TCP fast open": "socket.socket().sendto(b'secret', 0x20000000, ('127.0.0.1', PORT))",
}


@pytest.mark.parametrize("name", CONNECTS)
@pytest.mark.parametrize("network", ["none", "proxy"])
async def test_the_hosts_loopback_is_another_one(
    server: ForkServer, base: Path, listener: socket.socket, name: str, network: str
) -> None:
    """Also not for an agent that may reach the network: its way is its proxy."""
    grants = (ScopedGrant(capability="network-access", scopes=("example.com:443",)),) if network == "proxy" else ()
    act = CONNECTS[name].replace("PORT", str(listener.getsockname()[1]))
    async with cell(server, base, grants=grants) as agent:
        told = await agent.python(f"tell(attempt(lambda: {act} and None))")
        assert told in UNREACHABLE | {"EPROTONOSUPPORT"}, told
        assert await agent.answers()
    with pytest.raises(BlockingIOError):
        listener.accept()


async def test_datagrams_stay_inside(agent: Cell, datagrams: socket.socket) -> None:
    """They may be sent, to its own loopback; none arrives here."""
    port = datagrams.getsockname()[1]
    await agent.python(f"""
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(3):
    attempt(lambda: sock.sendto(b"secret", ("127.0.0.1", {port})) and None)
tell("sent")
""")
    with pytest.raises(BlockingIOError):
        datagrams.recv(100)
    assert await agent.answers()


@pytest.mark.parametrize("address", ["192.0.2.1", "8.8.8.8", "169.254.169.254", "10.0.0.1", "255.255.255.255"])
async def test_there_is_no_route_out(agent: Cell, address: str) -> None:
    told = await agent.python(f"""
def send(port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.sendto(b"x", ("{address}", port))
tell([attempt(lambda: send(53)), attempt(lambda: send(123)),
      attempt(lambda: socket.create_connection(("{address}", 443), 5) and None)])
""")
    assert set(told) <= UNREACHABLE, told


async def test_names_are_not_resolved(agent: Cell) -> None:
    told = await agent.python("""
def look(name):
    try:
        socket.getaddrinfo(name, 80)
        return "resolved"
    except socket.gaierror:
        return "unknown"
tell([look("secret.example.com"), look("example.com"), look("localhost")])
""")
    assert told == ["unknown", "unknown", "resolved"]


async def test_unset_proxy_variables_open_nothing(server: ForkServer, base: Path, listener: socket.socket) -> None:
    grants = (ScopedGrant(capability="network-access", scopes=("example.com:443",)),)
    port = listener.getsockname()[1]
    async with cell(server, base, grants=grants) as agent:
        told = await agent.python(f"""
import urllib.request
for name in [name for name in os.environ if name.lower().endswith("proxy")]:
    del os.environ[name]
opener = urllib.request.build_opener(urllib.request.ProxyHandler({{}}))
def get():
    try:
        opener.open("http://127.0.0.1:{port}/", timeout=5)
    except urllib.error.URLError as error:
        raise error.reason
tell(attempt(lambda: get()))
""")
        assert told in UNREACHABLE, told
    with pytest.raises(BlockingIOError):
        listener.accept()


async def test_another_agents_proxy_is_not_reached(server: ForkServer, base: Path) -> None:
    """The same address, but in its own network namespace: the other one's listener never sees anything."""
    grants = (ScopedGrant(capability="network-access", scopes=("example.com:443",)),)
    async with cell(server, base, "a", grants=grants) as agent, cell(server, base, "b", grants=grants) as other:
        assert other.agent.listener is not None
        port = other.agent.listener.getsockname()[1]
        assert agent.agent.listener is not None
        if agent.agent.listener.getsockname()[1] != port:
            told = await agent.python(
                f"tell(attempt(lambda: socket.create_connection(('127.0.0.1', {port}), 5) and None))"
            )
            assert told in UNREACHABLE, told
        with pytest.raises(BlockingIOError):
            other.agent.listener.accept()
        assert await other.answers()


async def test_an_agent_without_network_does_not_even_reach_its_own_proxy(agent: Cell) -> None:
    assert agent.agent.listener is not None
    port = agent.agent.listener.getsockname()[1]
    told = await agent.python(f"tell(attempt(lambda: socket.create_connection(('127.0.0.1', {port}), 5) and None))")
    assert told == "EACCES"
    with pytest.raises(BlockingIOError):
        agent.agent.listener.accept()


async def test_its_proxys_port_cannot_be_taken(agent: Cell) -> None:
    """No relay of its own in the proxy's place, for calls that come later; and no port is bound at all."""
    assert agent.agent.listener is not None
    port = agent.agent.listener.getsockname()[1]
    told = await agent.python(f"""
def bind(port):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    attempt(lambda: sock.setsockopt(socket.SOL_SOCKET, 15, 1))
    sock.bind(("127.0.0.1", port))
tell([attempt(lambda: bind({port})), attempt(lambda: bind(0)), attempt(lambda: bind(8080))])
""")
    assert set(told) <= {"EACCES", "EADDRINUSE"}, told


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
async def test_a_unix_socket_that_lies_in_its_folder_hears_nothing(agent: Cell, kind: int) -> None:
    """As docker.sock, an ssh-agent or D-Bus would, were they bound there. Neither by a socket nor by half of a pair."""
    path = agent.folder / "service.sock"
    with socket.socket(socket.AF_UNIX, kind) as service:
        service.bind(str(path))
        path.chmod(0o777)
        if kind != socket.SOCK_DGRAM:
            service.listen()
        service.setblocking(False)
        told = await agent.python(f"""
path = "service.sock"
def whole():
    socket.socket(socket.AF_UNIX, {int(kind)}).connect(path)
def half(kind, send):
    sock, other = socket.socketpair(socket.AF_UNIX, kind)
    sock.sendto(b"secret", path) if send else sock.connect(path)
tell([attempt(whole)] + [attempt(lambda: half(kind, send)) for kind in (1, 2, 5) for send in (True, False)])
""")
        assert told[0] in REFUSED, told
        # A packet pair takes an address and sends to its other half: what counts is what arrives.
        assert set(told[1:]) <= {"EISCONN", "EPERM", "EPROTOTYPE", "EOPNOTSUPP", "EINVAL", "done"}, told
        with pytest.raises(BlockingIOError):
            service.recv(100) if kind == socket.SOCK_DGRAM else service.accept()
    assert await agent.answers()


async def test_a_datagram_pair_is_refused(agent: Cell) -> None:
    told = await agent.python("tell([attempt(lambda: socket.socketpair(1, kind) and None) for kind in (1, 2, 3, 5)])")
    assert told == ["done", "EPERM", "EPERM", "done"]


@pytest.mark.parametrize(
    "path",
    [
        "/var/run/docker.sock",
        "/run/docker.sock",
        "/run/containerd/containerd.sock",
        "/run/dbus/system_bus_socket",
        "/run/user",
        "/run/systemd/private",
        "/run/snapd.socket",
        "/tmp/.X11-unix",
        "/tmp/ssh-agent",
    ],
)
async def test_sockets_of_services_do_not_exist(agent: Cell, path: str) -> None:
    assert await agent.python(f"tell(attempt(lambda: os.stat({path!r}) and None))") in {"ENOENT", "EACCES"}


async def test_abstract_sockets_of_the_host_are_not_there(agent: Cell) -> None:
    name = f"\0toka-security-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(name)
        service.setblocking(False)
        await agent.python(f"""
def send():
    for kind in (1, 2, 5):
        sock, other = socket.socketpair(1, kind)
        sock.sendto(b"secret", {name!r})
tell(attempt(send))
""")
        assert name[1:] not in (await agent.sh("cat /proc/net/unix")).content
        with pytest.raises(BlockingIOError):
            service.recv(100)
    assert await agent.answers()
