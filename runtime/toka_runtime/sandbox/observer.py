"""The observer of one tool call that runs commands: sees what its processes try, and tells what the walls refuse.

The kernel stops each of the calls in `observer_calls` until the observer has answered (seccomp user notification). The
answer is always `go on`: Landlock and the namespaces decide. Standard library only; forked from a shim, outside of the
walls of the call, so that what runs inside can't reach it. When it ends, so does the call.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from toka_runtime.sandbox import kernel, seccomp
from toka_runtime.sandbox.observer_calls import CALLS, Act, Call, PathArgument, numbers
from toka_runtime.sandbox.observer_report import Report
from toka_runtime.sandbox.observer_rules import Attempt, Judge, of_process
from toka_runtime.sandbox.tree import kill_children

KERNEL_OBSERVED = "what the kernel refuses a command is told (kernel-observed)"
BROKERED_ONLY = "what the kernel refuses a command is not told (brokered only)"

TELL_S = 0.25
"""Repeated refusals are counted for so long."""
_MEMORIES = 64
_PATH_BYTES, _FIRST_BYTES = 4096, 192
_ADDRESS_BYTES = 128
_AT_FDCWD = -100
_LAST_ADDRESS = (1 << 63) - 1

_RECEIVE, _ANSWER, _SET_FLAGS = 0xC0502100, 0xC0182101, 0x40082104
_GO_ON = 1
_SAME_PROCESSOR = 1
"""SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP: who waits and who answers take turns on one processor (Linux 6.6)."""
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_RESPONSE = struct.Struct("=QqiI")
_EMPTY = bytes(_NOTIFICATION.size)


class Notification(NamedTuple):
    id: int
    pid: int
    """Of the thread that waits."""
    name: str
    arguments: tuple[int, ...]


def observe(
    reports: socket.socket, answers: socket.socket, restrict: Callable[[], None], judge: Callable[[], Judge]
) -> int | None:
    """Fork: the child takes on the walls (`restrict`) and is observed from then on with all that it starts; None is
    returned in it, which alone keeps `answers`, so that its end is the end of file there. In the parent: the child's
    exit code, when it and whatever it left have ended; a signal that ended the child ends the parent, too. Where the
    kernel has no listener the child runs unobserved."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # A child's end interrupts whatever the observer waits for.
    signal.signal(signal.SIGCHLD, _nothing)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        kernel.die_with_parent(parent)
        kernel.adopt_orphans()
        ours.close()
        reports.close()
        restrict()
        _offer(theirs)
        return None
    theirs.close()
    answers.close()
    # The child has the grace to end on its own; this one ends after it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    listener = _accept(ours)
    if listener is not None:
        _Observer(listener, child, judge(), Report(reports)).run()
    _, status = os.waitpid(child, 0)
    kill_children(lambda pid, status: None)
    return _ended_alike(os.waitstatus_to_exitcode(status))


def _offer(peer: socket.socket) -> None:
    with peer:
        try:
            listener = seccomp.listen(tuple(numbers(os.uname().machine)))
        except OSError as error:
            peer.send(errno.errorcode.get(error.errno or 0, "?").encode())
            return
        socket.send_fds(peer, [b"listener"], [listener])
        # The only other one is the observer's: its end is seen by all that would wait for it.
        os.close(listener)


def _accept(peer: socket.socket) -> int | None:
    with peer:
        _, descriptors, _, _ = socket.recv_fds(peer, 64, 1, socket.MSG_CMSG_CLOEXEC)
    return descriptors[0] if descriptors else None


def _ended_alike(code: int) -> int:
    if code < 0:
        with suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


class _Observer:
    def __init__(self, listener: int, child: int, judge: Judge, report: Report) -> None:
        self._listener, self._child = listener, child
        self._judge, self._report = judge, report
        self._names = numbers(os.uname().machine)
        self._memory = ProcessMemory()
        self._buffer = bytearray(_NOTIFICATION.size)
        self._due = False
        # Both handlers are Python's, which do not restart the call that they interrupt.
        signal.signal(signal.SIGALRM, self._timer)
        with suppress(OSError):
            fcntl.ioctl(listener, _SET_FLAGS, _SAME_PROCESSOR)

    def run(self) -> None:
        """Until the observed child has ended."""
        signal.setitimer(signal.ITIMER_REAL, TELL_S, TELL_S)
        while True:
            notification = self._receive()
            if notification is not None:
                self._take(notification)
                if not self._due:
                    continue
                self._due = False
            # Woken: by the timer, or by the end of a child.
            self._judge.forget()
            self._report.tell_again()
            if self._child_ended():
                break
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._report.finish()
        os.close(self._listener)

    def _timer(self, number: int, frame: Any) -> None:
        self._due = True

    def _child_ended(self) -> bool:
        return os.waitid(os.P_PID, self._child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _receive(self) -> Notification | None:
        """Waits. None when a signal came, nobody is left, or whoever waited has been interrupted meanwhile."""
        self._buffer[:] = _EMPTY
        try:
            fcntl.ioctl(self._listener, _RECEIVE, self._buffer, True)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return None
            raise
        number, pid, _, call, _, _, *arguments = _NOTIFICATION.unpack(self._buffer)
        return Notification(number, pid, self._names[call], tuple(arguments))

    def _take(self, notification: Notification) -> None:
        """Read what the process has asked for, let it go on, then judge: it waits for no more than the reading."""
        call = CALLS[notification.name]
        attempts: list[Attempt] = []
        address: tuple[bytes, str] | None = None
        try:
            with suppress(OSError, ValueError):
                # A process that can't be read (it hides its memory, it is gone) is not observed; the walls hold.
                if call.address is None:
                    attempts = [self._attempt(notification, call, argument) for argument in call.paths]
                else:
                    address = self._address(notification, call.address)
            if notification.name.startswith("exec"):
                self._memory.forget(notification.pid)
        finally:
            valid = self._go_on(notification)
        for attempt in attempts:
            with suppress(OSError, ValueError):
                if valid and (refused := self._judge.judge(attempt)) is not None:
                    self._report.add(refused)
        if valid and address is not None:
            act = Act.BIND if notification.name == "bind" else Act.CONNECT
            if (refused := self._judge.judge_address(act, *address)) is not None:
                self._report.add(refused)

    def _go_on(self, notification: Notification) -> bool:
        """False when nobody waited any more: what was read may have been another process's."""
        try:
            fcntl.ioctl(self._listener, _ANSWER, _RESPONSE.pack(notification.id, 0, 0, _GO_ON))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINPROGRESS):
                return False
            raise
        return True

    def _attempt(self, notification: Notification, call: Call, argument: PathArgument) -> Attempt:
        pid, arguments = notification.pid, notification.arguments
        flags = self._flags(notification, call)
        path = os.fsdecode(self._memory.text(pid, arguments[argument.path]))
        if path.startswith("/"):
            return Attempt(argument.act, of_process(path, pid), flags)
        number = _AT_FDCWD if argument.folder is None else _signed(arguments[argument.folder])
        place = f"/proc/{pid}/cwd" if number == _AT_FDCWD else f"/proc/{pid}/fd/{number}"
        if not path:
            # Only an execution of an open file means something without a path.
            return Attempt(argument.act, place, flags)
        return Attempt(argument.act, f"{os.readlink(place)}/{path}", flags)  # noqa: PTH115  # no pathlib in a tool child

    def _flags(self, notification: Notification, call: Call) -> int:
        if notification.name == "creat":
            return os.O_CREAT | os.O_WRONLY | os.O_TRUNC
        if call.flags is None:
            return 0
        flags = notification.arguments[call.flags]
        if flags & os.O_PATH:
            raise ValueError("no access, only a place")
        return flags & 0xFFFFFFFF

    def _address(self, notification: Notification, where: tuple[int, int]) -> tuple[bytes, str]:
        size = min(notification.arguments[where[1]] & 0xFFFFFFFF, _ADDRESS_BYTES)
        address = self._memory.read(notification.pid, notification.arguments[where[0]], size)
        number = _signed(notification.arguments[0])
        protocol = os.getxattr(f"/proc/{notification.pid}/fd/{number}", "system.sockprotoname")
        return address, protocol.rstrip(b"\0").decode()


class ProcessMemory:
    """Reads of observed processes. A descriptor stays with the program that a process ran when it was opened."""

    def __init__(self) -> None:
        self._open: dict[int, int] = {}

    def read(self, pid: int, address: int, size: int) -> bytes:
        """At most `size` bytes. Raises OSError where nothing can be read, ValueError for no address of a process."""
        if address > _LAST_ADDRESS:
            raise ValueError("not an address of a process")
        known = self._open.get(pid)
        if known is not None and (data := os.pread(known, size, address)):
            return data
        # Not known yet, or another program by now.
        self.forget(pid)
        if len(self._open) >= _MEMORIES:
            self.forget(next(iter(self._open)))
        self._open[pid] = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(self._open[pid], size, address)

    def text(self, pid: int, address: int) -> bytes:
        """Up to its zero byte. Raises OSError; ValueError when it is longer than a path can be."""
        data = self.read(pid, address, _FIRST_BYTES)
        if b"\0" not in data:
            data = self.read(pid, address, _PATH_BYTES)
        text, zero, _ = data.partition(b"\0")
        if not zero:
            raise ValueError("longer than a path can be")
        return text

    def forget(self, pid: int) -> None:
        descriptor = self._open.pop(pid, None)
        if descriptor is not None:
            os.close(descriptor)


def _signed(argument: int) -> int:
    """A descriptor's number: an int in the lower half of the register."""
    return (argument & 0xFFFFFFFF) - ((argument & 0x80000000) << 1)


def _nothing(number: int, frame: Any) -> None:
    pass
