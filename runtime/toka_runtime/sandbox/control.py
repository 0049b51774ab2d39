"""Control messages: one JSON object a datagram on a unix seqpacket socket, descriptors beside it. The blocking side,
for the fork server and the shims; standard library only."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

Message = dict[str, Any]

MAX_MESSAGE_BYTES = 64 * 1024
MAX_DESCRIPTORS = 6
IDLE_MS = 30


class ControlSocket:
    """Takes messages from the runtime, and wakes when a child ends."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        # Handled by Python only so that the number is written to the wake-up socket.
        self._woken, wake_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._wake_end = wake_end
        signal.set_wakeup_fd(wake_end.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Its life is bound to the runtime's, and to nothing that an agent or a terminal may send.
            signal.signal(number, signal.SIG_IGN)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._poll.register(self._woken, select.POLLIN)

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """A peer that is gone is noticed when reading. Descriptors are duplicated for it."""
        with suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._socket, [json.dumps(message).encode()], list(descriptors))

    def serve(
        self,
        on_message: Callable[[Message, list[int]], bool],
        on_children: Callable[[], None],
        on_idle: Callable[[], None] | None = None,
    ) -> None:
        """Until end of file, or until `on_message` returns False. It owns the descriptors that it gets. `on_idle` is
        called once when nothing more has come for a moment."""
        busy = False
        while True:
            ready = dict(self._poll.poll(IDLE_MS if busy else None))
            busy = bool(ready) and on_idle is not None
            if not ready and on_idle is not None:
                on_idle()
            if self._woken.fileno() in ready:
                self._woken.recv(4096)
                on_children()
            if self._socket.fileno() in ready:
                try:
                    data, descriptors, _, _ = socket.recv_fds(
                        self._socket, MAX_MESSAGE_BYTES, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
                    )
                except ConnectionResetError:
                    return
                if not data or not on_message(json.loads(data), list(descriptors)):
                    return


def reset_signals() -> None:
    """In a forked child: as if nobody had ever handled a signal."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _nothing(number: int, frame: object) -> None:
    pass
