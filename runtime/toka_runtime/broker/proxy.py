"""The egress proxy: the only way from a confined agent to the network.

An agent's network namespace is empty but for loopback; its listener there is served from outside, here. The socket is
the identity, so there is no token to steal. Names are resolved here, once, and what was judged is what is connected to.
On ports other than those of HTTP and HTTPS a tunnel carries any protocol of the host that was granted.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import cast

from toka_runtime.aio import OnFailure, TaskOwner
from toka_runtime.broker.denials import DenialLog, Emit
from toka_runtime.broker.proxy_address import AddressRefused, Lookup, Place, Unreachable, find, system_lookup
from toka_runtime.broker.proxy_exchange import exchange, tunnel
from toka_runtime.broker.proxy_http import (
    MAX_HEAD_BYTES,
    REFUSED_HEADER,
    Malformed,
    ProxyRequest,
    Target,
    parse_request,
    printable,
)
from toka_runtime.broker.proxy_judge import (
    ADDRESS_REFUSED,
    MALFORMED,
    NAME_MISMATCH,
    TAKEN_BACK,
    Judge,
    Turned,
    denial,
)
from toka_runtime.broker.proxy_relay import CHUNK, Flow, HostBytes, TokenBucket, Watch, Wire, within
from toka_runtime.broker.shown import Redact
from toka_runtime.clock import Clock
from toka_runtime.policy.catalogue import Catalogue, load_catalogue
from toka_runtime.protocol.capability import Denial, Rights
from toka_runtime.protocol.usage import ResourceLimits

MAX_CONNECTIONS = 64
"""Of one agent at a time; more wait to be accepted."""
HEAD_S = 10.0
LOOKUP_S = 10.0
CONNECT_S = 10.0
IDLE_S = 300.0
LINGER_S = 2.0
REQUESTS_PER_S = 100.0
REQUESTS_AT_ONCE = 500.0
"""Each request is one durable record: an agent that asks faster waits."""
_LOOKUPS_AT_ONCE = 4
_ACCEPT_AGAIN_S = 0.5
_HOSTS_COUNTED = 1000
OTHER_HOSTS = "(others)"


def proxy_environment(listener: socket.socket) -> dict[str, str]:
    """What tells a confined agent's programs where the network begins. `listener` is on their loopback."""
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    return dict.fromkeys(names, address) | {"NO_PROXY": "", "no_proxy": ""}


class EgressProxy:
    """For one agent. `rights` is asked at each request, so what is granted or taken back acts on the next one; call
    `recheck` to end what is open already. `bytes_by_host` counts per `host:port`."""

    def __init__(
        self,
        *,
        rights: Callable[[], Rights],
        emit: Emit,
        clock: Clock,
        limits: ResourceLimits | None = None,
        catalogue: Catalogue | None = None,
        redact: Redact | None = None,
        lookup: Lookup = system_lookup,
        on_failure: OnFailure | None = None,
    ) -> None:
        """`emit` returns when an event is durable and raises StoreError when it cannot be: nothing is opened then."""
        self.bytes_by_host: dict[str, HostBytes] = {}
        self._clock = clock
        self._denials = DenialLog(emit, clock)
        self._judge = Judge(
            rights=rights,
            emit=emit,
            denials=self._denials,
            remedies=(catalogue or load_catalogue()).remedies,
            redact=redact or (lambda text: text),
        )
        rate = limits.network_bytes_per_s if limits else None
        # A rate of nothing would be a wait without end.
        rate = None if rate is None else max(rate, 1)
        self._bandwidth = TokenBucket(clock, rate, min(rate / 4, CHUNK) if rate else 0.0)
        self._requests = TokenBucket(clock, REQUESTS_PER_S, REQUESTS_AT_ONCE)
        self._lookup = lookup
        self._owner = TaskOwner(on_failure or _report)
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._lookups = asyncio.Semaphore(_LOOKUPS_AT_ONCE)
        self._open: dict[asyncio.Task[None], Target] = {}
        self._closed = False

    async def serve(self, listener: socket.socket) -> None:
        """Take over a listening socket and serve it until `aclose`. May be called for several."""
        if self._closed:
            listener.close()
            return
        listener.setblocking(False)
        accepting = self._owner.spawn(self._accept(listener), name="proxy accept")
        accepting.add_done_callback(lambda _: listener.close())

    async def aclose(self) -> None:
        """End everything and wait for it; then tell the denials that are still counted. Safe to call twice. Raises
        StoreError when these cannot be written."""
        self._closed = True
        await self._owner.aclose()
        await self._denials.flush()

    async def recheck(self) -> None:
        """End the connections that the rights, as they are now, do not cover any more."""
        for task, target in list(self._open.items()):
            if isinstance(self._judge.decide(str(target)), Denial):
                task.cancel()
                try:
                    await self._judge.tell(denial(str(target), TAKEN_BACK, "the right was taken back; it was closed"))
                except Turned:
                    continue  # Counted still; what matters is that every one of them is ended.

    # -- connections ----------------------------------------------------------------------------------------------

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError:
                # Out of descriptors, or a client that left before it was accepted.
                await self._clock.sleep(_ACCEPT_AGAIN_S)
                continue
            try:
                await self._slots.acquire()
            except asyncio.CancelledError:
                sock.close()
                raise
            task = self._owner.spawn(self._serve(sock), name="proxy connection")
            # Not in the task itself, which never runs when it is cancelled before its first step.
            task.add_done_callback(partial(self._ended, sock))

    def _ended(self, sock: socket.socket, task: asyncio.Task[None]) -> None:
        sock.close()
        self._open.pop(task, None)
        self._slots.release()

    async def _serve(self, sock: socket.socket) -> None:
        task = cast(asyncio.Task[None], asyncio.current_task())
        watch = Watch(self._clock, task.cancel, HEAD_S)
        watching = self._owner.spawn(watch.run(), name="proxy watch")
        try:
            await self._talk(Wire(sock), watch, task)
        except OSError:
            return  # one of the two has gone
        finally:
            watching.cancel()

    async def _talk(self, client: Wire, watch: Watch, task: asyncio.Task[None]) -> None:
        try:
            head, early = await self._read_head(client)
            if not head:
                return
            request = await self._admit(head)
            self._open[task] = request.target
            watch.arm(LOOKUP_S + CONNECT_S + HEAD_S)
            server = await self._connect(request.target)
            try:
                flow = Flow(client, server, self._counter(request.target), self._bandwidth, watch)
                watch.arm(IDLE_S)
                if request.tunnel:
                    await tunnel(flow, request, early, self._judge)
                else:
                    await self._exchange(flow, request, early)
            finally:
                server.close()
        except Turned as turned:
            if not client.answered:
                await _answer(client, turned, watch)

    async def _exchange(self, flow: Flow, request: ProxyRequest, early: bytes) -> None:
        try:
            await exchange(flow, request, early)
        except Malformed as error:
            if error.status.startswith("4"):
                await self._judge.refuse(str(request.target), MALFORMED, error.text, status=error.status)
            raise Turned(error.status, f"{request.target}: {error.text}") from None
        flow.client.end()

    async def _read_head(self, client: Wire) -> tuple[bytes, bytes]:
        """(head with its end, what came behind it); two times nothing when the client left. Raises Turned."""
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0 and len(data) < MAX_HEAD_BYTES:
            more = await client.read(MAX_HEAD_BYTES)
            if not more:
                return b"", b""
            data += more
        if not 0 <= end <= MAX_HEAD_BYTES - 4:
            status = "431 Request Header Fields Too Large"
            line = printable(data.partition(b"\n")[0].rstrip(b"\r"))
            await self._judge.refuse(
                line, MALFORMED, f"the head is longer than {MAX_HEAD_BYTES:,} bytes", status=status
            )
        return data[: end + 4], data[end + 4 :]

    async def _admit(self, head: bytes) -> ProxyRequest:
        await self._requests.take(1)
        try:
            request = parse_request(head)
        except Malformed as error:
            await self._judge.refuse(error.asked, MALFORMED, error.text, status=error.status)
        named = request.host_header
        if named is not None and named != request.target:
            reason = f"the Host header says {named}, the request {request.target}"
            await self._judge.refuse(str(request.target), NAME_MISMATCH, reason)
        await self._judge.admit(request.target)
        return request

    async def _connect(self, target: Target) -> Wire:
        try:
            if target.address is not None:
                places = await find(target, self._lookup)  # nothing to wait for
            else:
                async with self._lookups:
                    places = await within(self._clock, LOOKUP_S, find(target, self._lookup))
        except AddressRefused as error:
            hint = "an address inside is reached only where that very address is granted"
            await self._judge.refuse(str(target), ADDRESS_REFUSED, str(error), hint=hint)
        except Unreachable as error:
            raise Turned("502 Bad Gateway", str(error)) from None
        except TimeoutError:
            raise Turned("504 Gateway Timeout", f"{target.host}: no answer from the resolver in time") from None
        problem = ""
        for place in places:
            try:
                return await self._open_place(place, CONNECT_S / len(places))
            except TimeoutError:
                problem = "no answer in time"
            except OSError as error:
                problem = error.strerror or str(error)
        status = "504 Gateway Timeout" if problem == "no answer in time" else "502 Bad Gateway"
        raise Turned(status, f"{target} cannot be reached: {problem}")

    async def _open_place(self, place: Place, seconds: float) -> Wire:
        sock = socket.socket(place.family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            connecting = asyncio.get_running_loop().sock_connect(sock, (place.address, place.port))
            await within(self._clock, seconds, connecting)
        except BaseException:
            sock.close()
            raise
        return Wire(sock)

    def _counter(self, target: Target) -> HostBytes:
        name = str(target)
        if name not in self.bytes_by_host and len(self.bytes_by_host) >= _HOSTS_COUNTED:
            name = OTHER_HOSTS
        return self.bytes_by_host.setdefault(name, HostBytes())


async def _answer(client: Wire, turned: Turned, watch: Watch) -> None:
    """Say no, in words, and give the client the time to read them."""
    body = f"{turned.text}\n".encode()
    lines = [
        f"HTTP/1.1 {turned.status}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        f"{REFUSED_HEADER}: {printable(turned.rule.encode()) or 'failed'}",
        "Connection: close",
        "",
        "",
    ]
    watch.arm(LINGER_S)
    await client.write("\r\n".join(lines).encode() + body)
    client.end()
    # Closed with bytes unread, the answer might be thrown away on its way.
    left = 4 * MAX_HEAD_BYTES
    while left > 0 and (data := await client.read(MAX_HEAD_BYTES)):
        left -= len(data)


def _report(name: str, error: BaseException) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": f"{name} failed", "exception": error})
