"""The egress proxy with real sockets: what it lets through, what it refuses, and what it tells."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.egress import Egress, certificate, egress, network, server
from toka_runtime.aio import spawn
from toka_runtime.broker import proxy as proxies
from toka_runtime.broker.proxy_relay import HostBytes
from toka_runtime.protocol.events import Event, OperationAllowed, OperationDenied


def get(url: str, host: str, more: str = "") -> bytes:
    return f"GET {url} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode()


async def test_plain_http_goes_through_and_is_counted() -> None:
    async with server() as site, egress(f"127.0.0.1:{site.port}") as out:
        place = f"127.0.0.1:{site.port}"
        answer = await out.ask(get(f"http://{place}/a?b", place))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"hello")
        assert site.seen.startswith(b"GET /a?b HTTP/1.1\r\n")
        assert out.allowed() == [place]
        assert out.proxy.bytes_by_host == {place: HostBytes(len(site.seen), len(site.answer))}


async def test_one_request_a_connection_and_nothing_behind_it() -> None:
    async with server(until=b"body") as site, egress(f"127.0.0.1:{site.port}") as out:
        place = f"127.0.0.1:{site.port}"
        first = f"POST http://{place}/ HTTP/1.1\r\nHost: {place}\r\nContent-Length: 4\r\n\r\nbody".encode()
        answer = await out.ask(first + get(f"http://{place}/second", "evil.test"))
        assert answer.count(b"HTTP/1.1") == 1
        assert b"Connection: close" in answer
        assert site.seen.endswith(b"\r\n\r\nbody")


async def test_bodies_in_chunks_and_expect() -> None:
    async with server(until=b"0\r\n\r\n") as site, egress(f"127.0.0.1:{site.port}") as out:
        place = f"127.0.0.1:{site.port}"
        reader, writer = await out.connect()
        more = "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n"
        writer.write(f"PUT http://{place}/ HTTP/1.1\r\nHost: {place}\r\n{more}\r\n".encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\n")
        assert (await reader.read()).endswith(b"hello")
        writer.close()
        assert site.seen.endswith(b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n")


async def test_a_server_that_keeps_the_connection_does_not_hold_the_client() -> None:
    async with server(answer=b"HTTP/1.1 204 No\r\n\r\n") as site, egress(f"127.0.0.1:{site.port}") as out:
        place = f"127.0.0.1:{site.port}"
        assert (await out.ask(get(f"http://{place}/", place))).startswith(b"HTTP/1.1 204")


async def test_a_server_that_is_no_http_server() -> None:
    async with server(answer=b"SSH-2.0-x\r\n\r\n") as site, egress(f"127.0.0.1:{site.port}") as out:
        place = f"127.0.0.1:{site.port}"
        assert (await out.ask(get(f"http://{place}/", place))).startswith(b"HTTP/1.1 502 ")


async def test_what_is_not_granted_is_told_with_the_capability() -> None:
    async with egress("example.com:443") as out:
        answer = await out.ask(b"CONNECT evil.test:443 HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert b"X-Toka-Refused: deny:not-granted" in answer
        assert b"missing capability: network-access; rule: deny:not-granted" in answer
        assert out.denial() == ("proxy", "deny:not-granted", "evil.test:443")
        assert out.asked == []  # not even its name was looked up


async def test_repeated_denials_are_folded() -> None:
    async with egress() as out:
        for _ in range(5):
            await out.ask(b"CONNECT evil.test:443 HTTP/1.1\r\n\r\n")
        assert [event.count for event in out.denials()] == [1]
    assert [event.count for event in out.denials()] == [1, 4]


async def test_rights_count_as_they_are_now() -> None:
    async with server() as site, egress() as out:
        place = f"127.0.0.1:{site.port}"
        assert b" 403 " in await out.ask(get(f"http://{place}/", place))
        out.rights = network(place)
        assert b" 200 " in await out.ask(get(f"http://{place}/", place))
        out.rights = network()
        assert b" 403 " in await out.ask(get(f"http://{place}/", place))


async def test_what_is_taken_back_ends_what_is_open() -> None:
    async with server(until=b"never") as site, egress(f"127.0.0.1:{site.port}") as out:
        reader, writer = await out.tunnel(f"127.0.0.1:{site.port}")
        await out.proxy.recheck()
        out.rights = network()
        await out.proxy.recheck()
        assert await reader.read() == b""
        writer.close()
        assert out.denial() == ("proxy", "proxy:right-taken-back", f"127.0.0.1:{site.port}")


async def test_the_record_comes_before_the_connection() -> None:
    async with server() as site, egress(f"127.0.0.1:{site.port}") as out:
        connections: list[int] = []

        async def look(event: Event) -> None:
            assert isinstance(event, OperationAllowed)
            await asyncio.sleep(0)
            connections.append(site.connections)

        out.on_emit = look
        await out.ask(get(f"http://127.0.0.1:{site.port}/", f"127.0.0.1:{site.port}"))
        assert (connections, site.connections) == ([0], 1)


async def test_a_full_store_opens_nothing() -> None:
    async with server() as site, egress(f"127.0.0.1:{site.port}", "a.example:443") as out:
        out.full = True
        place = f"127.0.0.1:{site.port}"
        for request in (
            get(f"http://{place}/", place),
            f"CONNECT {place} HTTP/1.1\r\n\r\n".encode(),
            b"CONNECT a.example:443 HTTP/1.1\r\n\r\n",
            b"CONNECT evil.test:443 HTTP/1.1\r\n\r\n",
            b"garbage\r\n\r\n",
        ):
            assert (await out.ask(request)).startswith(b"HTTP/1.1 503 ")
        assert (site.connections, out.events, out.asked) == (0, [], [])
        out.full = False
    # What could not be told then is told in the end.
    assert {event.denial.operation.target for event in out.denials()} == {"evil.test:443", "garbage"}


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400"),
        (b"CONNECT localhost HTTP/1.1\r\n\r\n", b"400"),
        (b"CONNECT user@localhost:80 HTTP/1.1\r\n\r\n", b"400"),
        (b"CONNECT 0x7f000001:80 HTTP/1.1\r\n\r\n", b"400"),
        (b"CONNECT 127.1:80 HTTP/1.1\r\n\r\n", b"400"),
        (b"CONNECT loc\0alhost:80 HTTP/1.1\r\n\r\n", b"400"),
        (b"CONNECT \xd0\xb5xample.com:80 HTTP/1.1\r\n\r\n", b"400"),
        (b"CONNECT a:1 HTTP/1.1\r\nX: \x1b]0;owned\x07\r\n\r\n", b"400"),
        (b"TRACE http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", b"405"),
        (b"BREW http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", b"405"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
        (b"\x05\x01\x00\r\n\r\n", b"400"),
        (b"CONNECT a:1 HTTP/1.1\r\nX: " + b"x" * 17000 + b"\r\n\r\n", b"431"),
        (b"x" * 40000, b"431"),
    ],
)
async def test_odd_requests_are_answered_and_told(request_: bytes, status: bytes) -> None:
    async with server() as site, egress(f"localhost:{site.port}", "localhost:80") as out:
        assert (await out.ask(request_)).startswith(b"HTTP/1.1 " + status)
        (event,) = out.denials()
        assert (event.denial.rule, event.denial.layer) == ("proxy:malformed-request", "proxy")
        assert event.denial.operation.target.isprintable()
        assert (site.connections, out.allowed()) == (0, [])


@pytest.mark.parametrize(
    "request_",
    [
        get("http://a.example/", "b.example"),
        get("http://a.example/", "a.example:8080"),
        get("http://a.example:8080/", "a.example"),
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n",
    ],
)
async def test_the_host_header_is_the_target(request_: bytes) -> None:
    async with egress("a.example:80", "a.example:8080", "a.example:443", "b.example:443") as out:
        assert b" 403 " in await out.ask(request_)
        assert out.denial()[1] == "proxy:name-mismatch"
        assert (out.allowed(), out.asked) == ([], [])


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["169.254.169.254"], ["::1"], ["10.1.2.3"], ["::ffff:127.0.0.1"], ["1.1.1.1", "10.0.0.1"]],
)
async def test_a_name_must_not_lead_inside(addresses: list[str]) -> None:
    async with server() as site, egress(f"innocent.example:{site.port}", f"*.example.com:{site.port}") as out:
        out.names |= {"innocent.example": addresses, "any.example.com": addresses}
        for name in ("innocent.example", "any.example.com"):
            answer = await out.ask(f"CONNECT {name}:{site.port} HTTP/1.1\r\n\r\n".encode())
            assert b"X-Toka-Refused: proxy:address-refused" in answer
        assert {event.denial.rule for event in out.denials()} == {"proxy:address-refused"}
        assert site.connections == 0


async def test_localhost_only_where_it_is_listed() -> None:
    async with server() as site, egress(f"localhost:{site.port}") as out:
        place = f"localhost:{site.port}"
        assert b" 200 " in await out.ask(get(f"http://LOCALHOST:{site.port}/", place))
        assert b" 403 " in await out.ask(get(f"http://127.0.0.1:{site.port}/", f"127.0.0.1:{site.port}"))
        out.names["localhost"] = ["10.0.0.1"]
        assert b"no loopback address" in await out.ask(get(f"http://{place}/", place))


async def test_names_are_asked_once_and_pinned() -> None:
    async with server() as site, egress(f"localhost:{site.port}") as out:
        place = f"localhost:{site.port}"
        await out.ask(get(f"http://{place}/", place))
        assert out.asked == ["localhost"]


async def test_what_cannot_be_reached_is_said() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        async with egress(f"127.0.0.1:{port}", "nowhere.example:443") as out:
            assert (await out.ask(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())).startswith(b"HTTP/1.1 502 ")
            answer = await out.ask(b"CONNECT nowhere.example:443 HTTP/1.1\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 502 ")
            assert b"X-Toka-Refused: failed" in answer
            assert out.denials() == []


# -- tunnels ----------------------------------------------------------------------------------------------------------


async def test_tls_through_a_tunnel(tmp_path: Path) -> None:
    context, trusted = certificate(tmp_path, "localhost")
    async with server(tls=context) as site, egress(f"localhost:{site.port}") as out:
        reader, writer = await out.tunnel(f"localhost:{site.port}")
        await writer.start_tls(ssl.create_default_context(cafile=trusted), server_hostname="localhost")
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert (await reader.read()).endswith(b"hello")
        writer.close()
        counted = out.proxy.bytes_by_host[f"localhost:{site.port}"]
        assert counted.sent > 200
        assert counted.received > 500


@pytest.mark.parametrize("name", ["evil.test", None])
async def test_tls_for_another_name_ends(tmp_path: Path, name: str | None) -> None:
    context, trusted = certificate(tmp_path, "localhost", "evil.test")
    async with server(tls=context) as site, egress(f"localhost:{site.port}") as out:
        client = ssl.create_default_context(cafile=trusted)
        client.check_hostname = False
        _, writer = await out.tunnel(f"localhost:{site.port}")
        with pytest.raises(ssl.SSLError, match="unrecognized name"):
            await writer.start_tls(client, server_hostname=name or "127.0.0.1")
        writer.close()
        assert out.denial() == ("proxy", "proxy:name-mismatch", f"localhost:{site.port}")
        assert out.proxy.bytes_by_host[f"localhost:{site.port}"].sent == 0


async def test_an_address_needs_no_name(tmp_path: Path) -> None:
    context, trusted = certificate(tmp_path, "localhost")
    async with server(tls=context) as site, egress(f"127.0.0.1:{site.port}") as out:
        reader, writer = await out.tunnel(f"127.0.0.1:{site.port}")
        await writer.start_tls(ssl.create_default_context(cafile=trusted), server_hostname="127.0.0.1")
        writer.write(b"\r\n\r\n")
        assert (await reader.read()).endswith(b"hello")
        writer.close()


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n", b"\r\nPOST / HTTP/1.1\r\n", b"PRI * H"])
async def test_plain_http_has_no_tunnel(data: bytes) -> None:
    async with server() as site, egress(f"localhost:{site.port}") as out:
        reader, writer = await out.tunnel(f"localhost:{site.port}")
        for at in range(len(data)):
            writer.write(data[at : at + 1])
        with contextlib.suppress(ConnectionResetError):  # where not all had been read
            assert await reader.read() == b""
        writer.close()
        assert out.denial()[1] == "proxy:plain-http-in-tunnel"
        assert site.seen == b""


async def test_other_protocols_may_be_spoken_and_sides_end_one_by_one() -> None:
    async with server(answer=b"and good bye", until=b"bye") as site, egress(f"localhost:{site.port}") as out:
        reader, writer = await out.tunnel(f"localhost:{site.port}")
        writer.write(b"SSH-2.0-x, bye")
        assert await reader.read() == b"and good bye"
        writer.write(b", still here")
        writer.write_eof()
        await writer.drain()
        writer.close()
        await _until(lambda: site.seen == b"SSH-2.0-x, bye, still here")


async def test_a_server_may_speak_first() -> None:
    async with server(answer=b"220 ready", until=b"") as site, egress(f"localhost:{site.port}") as out:
        reader, writer = await out.tunnel(f"localhost:{site.port}")
        assert await reader.readexactly(9) == b"220 ready"
        writer.close()


# -- limits -----------------------------------------------------------------------------------------------------------


async def test_bandwidth_is_shared_by_both_directions() -> None:
    size = 100_000
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode()
    async with (
        server(answer=head + b"x" * size) as site,
        egress(f"127.0.0.1:{site.port}", rate=10_000) as out,
    ):
        place = f"127.0.0.1:{site.port}"
        asking = spawn(out.ask(get(f"http://{place}/", place)))
        while not asking.done():
            # Real bytes travel between two steps of the fake clock.
            await asyncio.sleep(0.0002)
            if _throttled(out) and not asking.done():
                await _advance(out, 0.05)
        assert len(asking.result()) > size
        took = out.clock.monotonic()
        moved = sum(count.sent + count.received for count in out.proxy.bytes_by_host.values())
        assert moved / 10_000 - 1 <= took <= moved / 10_000 + 2


async def test_a_silent_client_is_left() -> None:
    async with egress() as out:
        reader, writer = await out.connect()
        writer.write(b"CONNECT a.example:443 HT")
        await _sleeping(out, 1)
        await _advance(out, proxies.HEAD_S + 1)
        assert await reader.read() == b""
        writer.close()


async def test_a_silent_tunnel_is_ended() -> None:
    async with server(until=b"never") as site, egress(f"localhost:{site.port}") as out:
        reader, writer = await out.tunnel(f"localhost:{site.port}")
        await _advance(out, proxies.IDLE_S - 50)
        writer.write(b"SSH-2.0-still-here")
        await _until(lambda: site.seen != b"")
        await _advance(out, proxies.IDLE_S - 50)
        assert not reader.at_eof()
        await _advance(out, proxies.IDLE_S + 50)
        assert await reader.read() == b""
        writer.close()


async def test_more_connections_wait_for_their_turn() -> None:
    async with egress() as out:
        held = [await out.connect() for _ in range(proxies.MAX_CONNECTIONS)]
        await _sleeping(out, proxies.MAX_CONNECTIONS)
        asking = spawn(out.ask(b"CONNECT evil.test:443 HTTP/1.1\r\n\r\n"))
        for _ in range(50):
            await asyncio.sleep(0)
        assert out.events == []
        held[0][1].close()
        assert b" 403 " in await asking
        for _, writer in held:
            writer.close()


async def test_a_flood_of_requests_is_paced() -> None:
    async with egress() as out:
        out.proxy._requests._level = 3
        for number in range(3):
            assert b" 403 " in await out.ask(f"CONNECT x{number}.test:443 HTTP/1.1\r\n\r\n".encode())
        asking = spawn(out.ask(b"CONNECT x4.test:443 HTTP/1.1\r\n\r\n"))
        await _until(lambda: out.clock.sleepers() == 2)
        assert len(out.events) == 3
        await _advance(out, 0.02)
        assert b" 403 " in await asking


async def test_closing_ends_everything() -> None:
    async with server(until=b"never") as site:
        before = asyncio.all_tasks()
        async with egress(f"localhost:{site.port}") as out:
            tunnels = [await out.tunnel(f"localhost:{site.port}") for _ in range(3)]
            silent = await out.connect()
            slow = asyncio.Event()

            async def wait(event: Event) -> None:
                slow.set()
                await asyncio.sleep(0.01)

            out.on_emit = wait
            refused = await out.connect()
            refused[1].write(b"CONNECT evil.test:443 HTTP/1.1\r\n\r\n")
            await slow.wait()
            await out.proxy.aclose()
            for reader, writer in [*tunnels, silent, refused]:
                assert await reader.read() == b""
                writer.close()
            assert [type(event) for event in out.events][3:] == [OperationDenied]
            with pytest.raises(ConnectionRefusedError):
                await out.connect()
        await _until(lambda: not {task for task in asyncio.all_tasks() - before if "Server.serve" not in repr(task)})


async def _until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.001)


def _throttled(out: Egress) -> bool:
    return out.clock.sleepers() > 1


async def _sleeping(out: Egress, count: int) -> None:
    await out.clock.until_sleeping(count)


async def _advance(out: Egress, seconds: float) -> None:
    await out.clock.advance(seconds)
