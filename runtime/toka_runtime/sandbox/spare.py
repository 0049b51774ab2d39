"""A sandbox made while nobody waits for it: process 1 of its own namespaces, in a root that is still empty. It waits
for its confinement, and is then as good as one that was made for it. Standard library only."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from toka_runtime.sandbox import groups, kernel, namespaces
from toka_runtime.sandbox.confine import Confinement, enclose, failed
from toka_runtime.sandbox.control import MAX_DESCRIPTORS, MAX_MESSAGE_BYTES, reset_signals
from toka_runtime.sandbox.descriptors import keep_only
from toka_runtime.sandbox.namespaces import PrimitiveMissing

TITLE = "toka:spare"
Body = Callable[[dict[str, Any], list[int], int], NoReturn]
"""(the confinement, the descriptors that came with it, the listener on its own loopback)."""


class SpareSandbox:
    """At most one, made anew by `fill` when it has been taken. The caller must reap its children."""

    def __init__(self, prepare: Callable[[], None], body: Body) -> None:
        """`prepare` and `body` as in `confine.fork_first`."""
        self._prepare, self._body = prepare, body
        self._socket: socket.socket | None = None
        self._user = False
        self._useless = False
        self.pid = 0
        """0: there is none."""
        # What is mounted on the host after a spare was made is not in it.
        self._mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._mounted = select.poll()
        self._mounted.register(self._mounts, select.POLLPRI)

    def fill(self, *, user: bool) -> None:
        """Make one, if there is none. `user` as in `namespaces.fork_apart`. One that can't be made is no error: an
        agent then gets a sandbox made for it, or is told why not."""
        if self.pid or self._useless:
            return
        owner = namespaces.Owner.of_this_process() if user else None
        self._mounted.poll(0)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                pid = namespaces.fork_apart(user=user)
            except OSError:
                ours.close()
                self._useless = True
                return
            if pid == 0:
                self._wait(theirs, owner)
        self.pid, self._socket, self._user = pid, ours, user

    def take(self, confinement: Confinement, descriptors: list[int], control_groups: list[str]) -> int | None:
        """The pid of process 1, behind all walls; None when there is no spare that would do. Raises OSError
        (PrimitiveMissing) when a wall could not be built; nothing is left then."""
        pid, order = self.pid, self._socket
        if order is None:
            return None
        if self._user != confinement["user"] or self._mounted.poll(0):
            self.discard()
            return None
        self.pid, self._socket = 0, None
        try:
            with order:
                groups.enter(control_groups, pid)
                socket.send_fds(order, [json.dumps(confinement).encode()], descriptors)
                heard = dict[str, Any](json.loads(order.recv(MAX_MESSAGE_BYTES) or "{}"))
            if heard.get("ready"):
                return pid
        except (BrokenPipeError, ConnectionResetError, ProcessLookupError):
            heard = {}
        except OSError:
            _end(pid)
            raise
        _end(pid)
        if "error" in heard:
            raise PrimitiveMissing(int(heard["errno"]), str(heard["error"]))
        # It had not come so far: here it can't be done beforehand.
        self._useless = True
        return None

    def ended(self, pid: int) -> None:
        """A child of this process has been reaped: its number may come to mean another."""
        if self._socket is not None and pid == self.pid:
            self._socket.close()
            self.pid, self._socket = 0, None
            # It ends by itself only where it could not be made.
            self._useless = True

    def discard(self) -> None:
        if self._socket is not None:
            self._socket.close()
            _end(self.pid)
        self.pid, self._socket = 0, None

    def _wait(self, order: socket.socket, owner: namespaces.Owner | None) -> NoReturn:
        """Process 1, until it has become an agent's."""
        try:
            kernel.set_title(TITLE)
            reset_signals()
            keep_only(order.detach())
            waiting = socket.socket(fileno=3)
            namespaces.isolate_forked(owner)
            namespaces.empty_root()
            data, descriptors, _, _ = socket.recv_fds(
                waiting, MAX_MESSAGE_BYTES, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
            if not data:
                os._exit(0)
        except BaseException:  # noqa: BLE001  # a forked child never returns into its parent's code
            os._exit(1)
        try:
            confinement = dict[str, Any](json.loads(data))
            listener = enclose(confinement, self._prepare)
        except BaseException as error:  # noqa: BLE001
            waiting.send(json.dumps(failed(error)).encode())
            os._exit(1)
        waiting.send(b'{"ready": true}')
        waiting.close()
        self._body(confinement, list(descriptors), listener)


def _end(pid: int) -> None:
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
