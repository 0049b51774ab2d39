"""What the kernel's walls around one call say to an attempt, worked out from the rules that they were built from.
Standard library only. Nothing is decided here: the walls decide, and this tells why.

Paths are resolved in the observer's own view, which is the one of the processes that it observes.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from toka_runtime.sandbox.landlock import (
    EXECUTE,
    FILE_RIGHTS,
    MAKE_REG,
    READ_DIR,
    READ_FILE,
    REMOVE_FILE,
    TRUNCATE,
    WRITE_FILE,
    PathAccess,
)
from toka_runtime.sandbox.observer_calls import Act

LANDLOCK, VIEW, NETWORK = "sandbox:landlock", "sandbox:view", "sandbox:network"
_KERNEL_FOLDERS = ("/proc", "/sys", "/dev")
"""What is missing in them is missing by the kind of machine, not by a wall."""
_BYTECODE = "__pycache__"
"""Python tries to keep its compiled modules beside their sources and does not mind when it may not."""
_REMEMBERED = 8192
_MAPPED = bytes(10) + b"\xff\xff"
"""Before an IPv4 address in an IPv6 one."""
_LOOPBACK = (b"\x7f", bytes(4), bytes(15) + b"\x01", bytes(16))
"""How addresses of the own loopback begin; of zeros alone too, which mean it where one connects."""
_OWN_DESCRIPTORS = {"/dev/stdin": "0", "/dev/stdout": "1", "/dev/stderr": "2"}


class Refused(NamedTuple):
    kind: str
    """A value of `OperationKind`."""
    target: str
    """Absolute path, or `host:port`."""
    rule: str
    """VIEW: the path does not exist in the view; whether it does on the host is not known here."""


class Attempt(NamedTuple):
    """On a path, with all that has to be read from the process while it waits."""

    act: Act
    pid: int
    path: str
    folder: int | None
    """A descriptor of the folder that a relative path begins at."""
    flags: int = 0


class PathRules:
    """Which rights the rules give to a path: the sum over all folders above it, as Landlock takes it."""

    def __init__(self, accesses: Iterable[PathAccess], handled: int) -> None:
        """`handled`: rights that this kernel knows; others are not refused."""
        self._handled = handled
        self._rules: dict[str, int] = {}
        self._folders: dict[str, int] = {}
        for path, rights in accesses:
            real = os.path.realpath(path)
            kept = rights if os.path.isdir(real) else rights & FILE_RIGHTS  # noqa: PTH112  # no pathlib in a tool child
            self._rules[real] = self._rules.get(real, 0) | kept

    def allow(self, path: str, needed: int) -> bool:
        """`path`: absolute, without links."""
        needed &= self._handled
        given = self._rules.get(path, 0)
        return not needed & ~(given | self._of_folder(os.path.dirname(path)))  # noqa: PTH120  # as above

    def _of_folder(self, folder: str) -> int:
        known = self._folders.get(folder)
        if known is None:
            above = 0 if folder == "/" else self._of_folder(os.path.dirname(folder))  # noqa: PTH120  # as above
            known = self._rules.get(folder, 0) | above
            if len(self._folders) >= _REMEMBERED:
                self._folders.clear()
            self._folders[folder] = known
        return known


class Judge:
    """What the walls of one call refuse."""

    def __init__(self, rules: PathRules, visible: Sequence[str], *, tcp: bool, port: int | None) -> None:
        """`visible`: the folders and files of the view. `tcp`: Landlock's rules for TCP are in force, and allow only
        to connect to `port`."""
        self._rules = rules
        self._visible = tuple(dict.fromkeys((*visible, *_KERNEL_FOLDERS)))
        self._tcp, self._port = tcp, port
        self._fine: set[tuple[Act, str, int]] = set()

    def forget(self) -> None:
        """Links may have changed: what was found before is looked up again."""
        self._fine.clear()

    def judge(self, attempt: Attempt) -> Refused | None:
        """Call it when the attempt has been made: it then tells by what is there whether it went through. Takes a few
        system calls, none of which waits for the agent."""
        key = (attempt.act, attempt.path, attempt.flags)
        if key in self._fine:
            return None
        found = self._judge(attempt._replace(path=_of_process(attempt.path, attempt.pid)))
        if found is None and attempt.folder is None and len(self._fine) < _REMEMBERED:
            self._fine.add(key)
        return found

    def _judge(self, attempt: Attempt) -> Refused | None:
        if attempt.act in (Act.MAKE, Act.REMOVE):
            return self._in_folder(attempt)
        follow = os.O_NOFOLLOW if attempt.flags & os.O_NOFOLLOW else 0
        try:
            descriptor = os.open(attempt.path, os.O_PATH | os.O_CLOEXEC | follow, dir_fd=attempt.folder)
        except OSError as error:
            return self._missing(attempt) if error.errno in (errno.ENOENT, errno.ENOTDIR) else None
        try:
            path, mode = os.readlink(f"/proc/self/fd/{descriptor}"), os.fstat(descriptor).st_mode  # noqa: PTH115  # no pathlib in a tool child
        finally:
            os.close(descriptor)
        if not path.startswith("/"):
            return None  # A pipe, a socket, memory.
        return self._existing(attempt, path, mode)

    def _existing(self, attempt: Attempt, path: str, mode: int) -> Refused | None:
        if attempt.act is Act.EXECUTE:
            runnable = stat.S_ISREG(mode) and mode & 0o111
            return (
                Refused("process.execute", path, LANDLOCK)
                if runnable and not self._rules.allow(path, EXECUTE)
                else None
            )
        needed = TRUNCATE if attempt.act is Act.TRUNCATE else _rights_of(attempt.flags)
        writes = bool(needed & ~READ_FILE)
        if stat.S_ISLNK(mode) or (stat.S_ISDIR(mode) and writes) or attempt.flags & os.O_EXCL:
            return None  # Refused for what it is: a link, a folder, a name that is taken.
        if stat.S_ISDIR(mode):
            # The rule of the folder itself counts, too.
            return None if self._rules.allow(f"{path.rstrip('/')}/.", READ_DIR) else Refused("fs.list", path, LANDLOCK)
        if self._rules.allow(path, needed):
            return None
        return Refused("fs.write" if writes else "fs.read", path, LANDLOCK)

    def _missing(self, attempt: Attempt) -> Refused | None:
        makes = attempt.act is Act.OPEN and bool(attempt.flags & os.O_CREAT)
        if makes and (refused := self._in_folder(attempt._replace(act=Act.MAKE))) is not None:
            return refused
        if attempt.act is Act.EXECUTE:
            return None  # A search of PATH.
        return self._hidden(attempt, "fs.write" if makes else "fs.read")

    def _in_folder(self, attempt: Attempt) -> Refused | None:
        """A name made in a folder or taken out of it: still there, or still missing, when it was refused."""
        path = attempt.path.rstrip("/")
        folder, name = os.path.split(path)
        wanted = attempt.act is Act.REMOVE
        try:
            os.stat(path, dir_fd=attempt.folder, follow_symlinks=False)
            there = True
        except OSError:
            there = False
        if there is not wanted:
            return None
        try:
            descriptor = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=attempt.folder)
        except OSError:
            return None if wanted else self._hidden(attempt, "fs.write")
        try:
            real = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115  # no pathlib in a tool child
        finally:
            os.close(descriptor)
        target = f"{real.rstrip('/')}/{name}"
        if not name or self._rules.allow(target, REMOVE_FILE if wanted else MAKE_REG):
            return None
        return None if _BYTECODE in target.split("/") else Refused("fs.write", target, LANDLOCK)

    def _hidden(self, attempt: Attempt, kind: str) -> Refused | None:
        """Not in the view. None where only a name is missing in a folder that is."""
        base = "/"
        if attempt.folder is not None:
            base = os.readlink(f"/proc/self/fd/{attempt.folder}")  # noqa: PTH115  # no pathlib in a tool child
        # Links on the way may lead out of the view.
        path = os.path.realpath(os.path.join(base, attempt.path))  # noqa: PTH118  # as above
        if not path.startswith("/") or any(path == seen or path.startswith(f"{seen}/") for seen in self._visible):
            return None
        return Refused(kind, path, VIEW)

    def judge_address(self, act: Act, address: bytes, protocol: str) -> Refused | None:
        """`address` as the kernel reads it; `protocol` as sockets name theirs (`TCP`, `UDPv6` …)."""
        place = _place_of(address)
        if place is None:
            return None
        host, port, where = place
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        tcp = self._tcp and protocol.startswith("TCP")
        if act is Act.BIND:
            return Refused("network.listen", target, LANDLOCK) if tcp else None
        if not where.startswith(_LOOPBACK):
            return Refused("network.connect", target, NETWORK)
        return Refused("network.connect", target, LANDLOCK) if tcp and port != self._port else None


def _rights_of(flags: int) -> int:
    needed = 0
    access = flags & os.O_ACCMODE
    if access in (os.O_RDONLY, os.O_RDWR):
        needed |= READ_FILE
    if access in (os.O_WRONLY, os.O_RDWR):
        needed |= WRITE_FILE
    return needed | (TRUNCATE if flags & os.O_TRUNC else 0)


def _of_process(path: str, pid: int) -> str:
    """Names that mean something else for every process."""
    if path in _OWN_DESCRIPTORS:
        return f"/proc/{pid}/fd/{_OWN_DESCRIPTORS[path]}"
    for name, meant in (("/proc/self", f"/proc/{pid}"), ("/dev/fd", f"/proc/{pid}/fd")):
        if path == name or path.startswith(f"{name}/"):
            return meant + path[len(name) :]
    return path


def _place_of(address: bytes) -> tuple[str, int, bytes] | None:
    """Host, port, and the host's bytes; None for another family than IPv4 and IPv6."""
    family = struct.unpack_from("=H", address)[0] if len(address) >= 2 else 0
    if family == socket.AF_INET and len(address) >= 8:
        host = address[4:8]
    elif family == socket.AF_INET6 and len(address) >= 24:
        host = address[8:24].removeprefix(_MAPPED)
    else:
        return None
    version = socket.AF_INET if len(host) == 4 else socket.AF_INET6
    return socket.inet_ntop(version, host), struct.unpack_from("!H", address, 2)[0], host
