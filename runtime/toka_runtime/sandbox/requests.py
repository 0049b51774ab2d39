"""Control messages on the runtime's loop: numbered requests to the fork server or a shim, answers and events back."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from toka_runtime.errors import ProcessError
from toka_runtime.sandbox.control import MAX_DESCRIPTORS, MAX_MESSAGE_BYTES, Message, close_all


class ControlPeer:
    """The runtime's end of one control socket. `on_event` gets what is no answer; `on_closed` is called once, when the
    peer is gone or `close` was called."""

    def __init__(
        self, sock: socket.socket, name: str, on_event: Callable[[Message], None], on_closed: Callable[[], None]
    ) -> None:
        self.name = name
        self.closed = False
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._on_event, self._on_closed = on_event, on_closed
        self._numbers = count(1)
        self._open: dict[int, asyncio.Future[Message]] = {}
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._readable)

    async def request(
        self, action: str, *, timeout_s: float, descriptors: Sequence[int] = (), **fields: Any
    ) -> Message:
        """The answer, with `ok` true and the `descriptors` that came with it, which are the caller's now. Raises
        ProcessError when the peer is gone, refuses or does not answer in time. Descriptors are duplicated, the caller
        keeps its own."""
        number = next(self._numbers)
        answer: asyncio.Future[Message] = self._loop.create_future()
        self._open[number] = answer
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(json.dumps({"t": action, "id": number, **fields}).encode(), descriptors)
                message = await answer
        except TimeoutError:
            raise NoAnswer(f"{self.name} did not answer {action!r} within {timeout_s:g} s") from None
        finally:
            self._open.pop(number, None)
        if not message.get("ok"):
            raise Refused(f"{self.name} refused {action!r}: {message.get('error')}", errno=message.get("errno"))
        return message

    def close(self) -> None:
        """Safe to call twice. The peer sees end of file."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        for answer in self._open.values():
            if not answer.done():
                answer.set_exception(ProcessError(f"{self.name} is gone"))
        self._on_closed()

    async def _send(self, data: bytes, descriptors: Sequence[int]) -> None:
        while not self.closed:
            try:
                socket.send_fds(self._socket, [data], list(descriptors))
            except BlockingIOError:
                # It does not read: only a stopped or stuck peer lets the buffer fill. The caller's timeout ends this.
                await asyncio.sleep(0.01)
            except OSError:
                break
            else:
                return
        raise ProcessError(f"{self.name} is gone")

    def _readable(self) -> None:
        # A few at a time: a flood of messages must not hold up the loop.
        for _ in range(32):
            try:
                data, descriptors, _, _ = socket.recv_fds(
                    self._socket, MAX_MESSAGE_BYTES, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except ConnectionResetError:
                # Said once when the peer ended without having read all: its last messages come after this.
                continue
            except OSError:
                data, descriptors = b"", []
            if not data:
                self.close()
                return
            self._take(json.loads(data), list(descriptors))

    def _take(self, message: Message, descriptors: list[int]) -> None:
        if message.get("t") != "answer":
            close_all(descriptors)
            self._on_event(message)
            return
        answer = self._open.get(message.get("id", 0))
        if answer is not None and not answer.done():
            answer.set_result({**message, "descriptors": descriptors})
        else:
            close_all(descriptors)


class NoAnswer(ProcessError):
    """A shim or the fork server is stuck, or was stopped by somebody."""

    code = "process.no_answer"


class Refused(ProcessError):
    """A shim or the fork server could not do what was asked."""

    code = "process.refused"

    def __init__(self, message: str, *, errno: int | None) -> None:
        super().__init__(message)
        self.errno = errno


def process_end(pidfd: int) -> asyncio.Future[None]:
    """Done when the process has ended (also while nobody has reaped it). Cancel it to stop watching."""
    loop = asyncio.get_running_loop()
    end: asyncio.Future[None] = loop.create_future()
    # A descriptor of its own: the caller may close the other, and several may watch one process.
    own = os.dup(pidfd)

    def readable() -> None:
        if not end.done():
            end.set_result(None)

    def forget(_: asyncio.Future[None]) -> None:
        loop.remove_reader(own)
        os.close(own)

    loop.add_reader(own, readable)
    end.add_done_callback(forget)
    return end
