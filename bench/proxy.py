"""The egress proxy beside a direct connection, in one run on loopback.

    python bench/proxy.py [MEGABYTES]

Server, proxy and client are three processes, as they are in use. Quote the ratios: machines are noisy, and both sides
of each are measured here, turn by turn.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from toka_runtime.broker.proxy import EgressProxy
from toka_runtime.clock import SystemClock
from toka_runtime.protocol.capability import NetworkRule, Rights
from toka_runtime.protocol.events import Event

ROUNDS = 7
CONNECTS = 60
"""A round; below the proxy's own pace, so that it is not what is measured."""
REFUSED = 20
CHUNK = 1 << 18


def serve(listener: socket.socket) -> None:
    """Sends as many bytes as the first line asks for."""
    block = memoryview(bytes(CHUNK))
    while True:
        sock, _ = listener.accept()
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line = sock.makefile("rb").readline()
            left = int(line) if line else 0
            while left > 0:
                left -= sock.send(block[:left])


def run_proxy(listener: socket.socket, place: str, ready: Connection) -> None:
    async def main() -> None:
        async def emit(event: Event) -> None:
            """A store that costs nothing: what the proxy itself costs is asked."""

        host, _, port = place.rpartition(":")
        rights = Rights(network=(NetworkRule(id="r", capability="c", host=host, port=int(port)),))
        proxy = EgressProxy(rights=lambda: rights, emit=emit, clock=SystemClock())
        await proxy.serve(listener)
        ready.send(True)
        await asyncio.Event().wait()

    asyncio.run(main())


def through(port: int, place: str) -> tuple[socket.socket, bool]:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(4096)
    return sock, head.startswith(b"HTTP/1.1 200")


def one_byte(connect: Callable[[], socket.socket]) -> float:
    """Seconds from nothing to the first byte of an answer."""
    began = time.perf_counter()
    with connect() as sock:
        sock.sendall(b"1\n")
        if sock.recv(1) != b"\0":
            raise RuntimeError("no answer")
        return time.perf_counter() - began


def bulk(connect: Callable[[], socket.socket], size: int) -> float:
    """Bytes a second."""
    with connect() as sock:
        buffer = bytearray(CHUNK)
        began = time.perf_counter()
        sock.sendall(b"%d\n" % size)
        got = 0
        while count := sock.recv_into(buffer):
            got += count
        if got != size:
            raise RuntimeError(f"{got} of {size} bytes came")
        return size / (time.perf_counter() - began)


def main() -> None:
    size = (int(sys.argv[1]) if len(sys.argv) > 1 else 256) << 20
    context = multiprocessing.get_context("fork")
    site, front = (socket.create_server(("127.0.0.1", 0), backlog=256) for _ in range(2))
    place = f"127.0.0.1:{site.getsockname()[1]}"
    ours, theirs = context.Pipe()
    processes = [
        context.Process(target=serve, args=(site,), daemon=True),
        context.Process(target=run_proxy, args=(front, place, theirs), daemon=True),
    ]
    for process in processes:
        process.start()
    ours.recv()
    port = front.getsockname()[1]

    def direct() -> socket.socket:
        return socket.create_connection(("127.0.0.1", site.getsockname()[1]))

    def proxied() -> socket.socket:
        sock, ok = through(port, place)
        if not ok:
            raise RuntimeError("the proxy refused")
        return sock

    def refused() -> float:
        began = time.perf_counter()
        sock, ok = through(port, "evil.test:443")
        sock.close()
        if ok:
            raise RuntimeError("the proxy did not refuse")
        return time.perf_counter() - began

    ways = {"direct": direct, "proxy": proxied}
    first: dict[str, list[float]] = {name: [] for name in ways}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    refusals: list[float] = []
    for _ in range(ROUNDS):
        for name, connect in ways.items():
            first[name] += [one_byte(connect) for _ in range(CONNECTS)]
            rates[name].append(bulk(connect, size))
        refusals += [refused() for _ in range(REFUSED)]
    for process in processes:
        process.terminate()
        process.join()

    ms = {name: statistics.median(found) * 1000 for name, found in first.items()}
    speed = {name: statistics.median(found) / 1e6 for name, found in rates.items()}
    print(f"medians of {ROUNDS * CONNECTS} connections and of {ROUNDS} transfers of {size >> 20} MB, on loopback")
    print("server, proxy and client are a process each; the proxy's event store costs nothing here\n")
    print(f"  {'':<44}{'direct':>12}{'proxy':>12}{'':>14}")
    added = f"+{ms['proxy'] - ms['direct']:.2f} ms"
    print(f"  {'connect, first byte of an answer (ms)':<44}{ms['direct']:>12.3f}{ms['proxy']:>12.3f}{added:>14}")
    ratio = f"{speed['proxy'] / speed['direct']:.0%}"
    print(f"  {'throughput of one connection (MB/s)':<44}{speed['direct']:>12.0f}{speed['proxy']:>12.0f}{ratio:>14}")
    print(f"  {'a refusal, decided and told (ms)':<44}{'':>12}{statistics.median(refusals) * 1000:>12.3f}")


if __name__ == "__main__":
    main()
