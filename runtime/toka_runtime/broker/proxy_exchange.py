"""What goes through an opened connection: a tunnel that keeps to the name it was opened for, or one HTTP request."""

from __future__ import annotations

import asyncio
import re

from toka_runtime.broker.proxy_http import (
    HTTP_PORT,
    Malformed,
    ProxyRequest,
    Target,
    parse_answer,
)
from toka_runtime.broker.proxy_judge import NAME_MISMATCH, NOT_TLS, PLAIN_IN_TUNNEL, Judge, Turned
from toka_runtime.broker.proxy_relay import Flow
from toka_runtime.broker.proxy_tls import HANDSHAKE, UNRECOGNIZED_NAME, NotTls, server_name

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
TLS_PORT = 443
MAX_ANSWER_HEAD_BYTES = 64 << 10
_PLAIN = re.compile(rb"[\r\n]*(?:GET|HEAD|POST|PUT|DELETE|PATCH|OPTIONS|TRACE|CONNECT|PRI) ")
_PLAIN_LONGEST = 16


class PeerLeft(OSError):
    """One side ended before its part was done."""


async def tunnel(flow: Flow, request: ProxyRequest, early: bytes, judge: Judge) -> None:
    """After CONNECT: on the ports of HTTP and HTTPS only TLS goes through, and TLS on any port only with the name of
    the target. `early` came with the request. Returns when both sides have ended. Raises OSError and Turned; the client
    has been told with an alert then."""
    opened = asyncio.Event()
    if request.target.port not in (TLS_PORT, HTTP_PORT):
        opened.set()  # elsewhere the server may be the one who speaks first
    await flow.down(ESTABLISHED)

    async def up() -> None:
        first = await _opening(flow, request.target, early, judge)
        await flow.up(first)
        opened.set()
        if first:
            await flow.pump_up()
        else:
            flow.server.end()

    async def down() -> None:
        await opened.wait()
        await flow.pump_down()

    turned: list[Turned] = []
    broken: list[OSError] = []
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(up())
            group.create_task(down())
    except* Turned as found:
        turned += [error for error in found.exceptions if isinstance(error, Turned)]
    except* OSError as found:
        broken += [error for error in found.exceptions if isinstance(error, OSError)]
    for error in turned:
        if error.rule in (NAME_MISMATCH, NOT_TLS):
            await flow.client.write(UNRECOGNIZED_NAME)
        raise error
    for error in broken:
        raise error


async def _opening(flow: Flow, target: Target, data: bytes, judge: Judge) -> bytes:
    """The client's first bytes, once they are known to be no other name's. b"" when it says nothing."""
    tls_only = target.port in (TLS_PORT, HTTP_PORT)
    while True:
        if data and (tls_only or data[0] == HANDSHAKE):
            try:
                name = server_name(data)
            except NotTls as error:
                hint = "plain HTTP goes through the proxy as GET http://host/…"
                await judge.refuse(str(target), NOT_TLS, f"in a tunnel to this port: {error}", hint=hint)
            if name is not None:
                await _check_name(target, name, judge)
                return data
        elif data:
            if _PLAIN.match(data):
                reason = "plain HTTP in a tunnel, where its Host header is not checked"
                await judge.refuse(str(target), PLAIN_IN_TUNNEL, reason, hint="ask the proxy for http://host:port/…")
            if len(data) >= _PLAIN_LONGEST or not _may_become_plain(data):
                return data
        more = await flow.read_client()
        if not more:
            if data and (tls_only or data[0] == HANDSHAKE):
                await judge.refuse(str(target), NOT_TLS, "the TLS handshake ends in its first message")
            return data
        data += more


def _may_become_plain(data: bytes) -> bool:
    word = data.lstrip(b"\r\n")
    methods = (
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"PUT ",
        b"DELETE ",
        b"PATCH ",
        b"OPTIONS ",
        b"TRACE ",
        b"CONNECT ",
        b"PRI ",
    )
    return any(method.startswith(word) for method in methods)


async def _check_name(target: Target, name: str, judge: Judge) -> None:
    if name == target.host.strip("[]") or (not name and target.address is not None):
        return
    asked = f"asks for {name}" if name else "names no server"
    await judge.refuse(
        str(target), NAME_MISMATCH, f"the TLS handshake {asked}, the tunnel was opened for {target.host}"
    )


async def exchange(flow: Flow, request: ProxyRequest, early: bytes) -> None:
    """One request and its answer. Returns when the answer is complete. Raises OSError, and Malformed while the client
    has not been answered."""
    if request.expects_continue:
        await flow.client.write(CONTINUE)
    problems: list[Malformed] = []
    broken: list[OSError] = []
    try:
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(_send(flow, request, early))
            await _answer(flow, request)
            sending.cancel()  # the server has said all before it had heard all
    except* Malformed as found:
        problems += [error for error in found.exceptions if isinstance(error, Malformed)]
    except* OSError as found:
        broken += [error for error in found.exceptions if isinstance(error, OSError)]
    for error in (*problems, *broken):
        raise error


async def _send(flow: Flow, request: ProxyRequest, early: bytes) -> None:
    """What cannot be sent is no error: a server may answer and close before it has heard all."""
    if not await _sent(flow, request.head) or request.body is None:
        return
    body, data = request.body, early
    while not body.done:
        # What follows the body is not forwarded: it would be another request, that nobody has decided.
        if not await _sent(flow, data[: body.feed(data)]) or body.done:
            return
        data = await flow.read_client()
        if not data:
            raise PeerLeft("the client left in the middle of its request")


async def _sent(flow: Flow, data: bytes) -> bool:
    try:
        await flow.up(data)
    except OSError:
        return False
    return True


async def _answer(flow: Flow, request: ProxyRequest) -> None:
    data = b""
    while True:
        while (end := _head_end(data)) < 0:
            more = await flow.read_server()
            if not more or len(data) > MAX_ANSWER_HEAD_BYTES:
                raise Malformed("the server gave no answer in order", status="502 Bad Gateway")
            data += more
        answer = parse_answer(data[:end], request.method)
        data = data[end:]
        if not answer.interim:
            break
    await flow.down(answer.head)
    body = answer.body
    while True:
        if body is not None:
            data = data[: body.feed(data)]
        if data:
            await flow.down(data)
        if body is not None and body.done:
            return
        data = await flow.read_server()
        if not data:
            return
        await asyncio.sleep(0)


def _head_end(data: bytes) -> int:
    """Where the first head ends; -1 when it has not yet. Some servers end their lines with a bare line feed."""
    found = re.search(rb"\r?\n\r?\n", data)
    return found.end() if found else -1
