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
    READ,
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
_IPV6_TEST = "[::1]:0"
"""What libraries bind to once, to learn whether there is IPv6; no program serves anybody there."""
_OWN_DESCRIPTORS = {"/dev/stdin": "0", "/dev/stdout": "1", "/dev/stderr": "2"}


class Refused(NamedTuple):
    kind: str
    """A value of `OperationKind`."""
    target: str
    """Absolute path, or `host:port`."""
    rule: str
    """VIEW: the path does not exist in the view; whether it does on the host is not known here."""


class Attempt(NamedTuple):
    act: Act
    path: str
    """Absolute, as the process that tries sees it; links and `..` are not resolved."""
    flags: int = 0


class _Folder(NamedTuple):
    real: str
    """Without links."""
    fixed: bool
    """Read-only, and so is the way to it: whatever the agent does, names in it mean what they meant, and the rules
    allow to read it all."""


class PathRules:
    """Which rights the rules give to a path: the sum over all folders above it, as Landlock takes it."""

    def __init__(self, accesses: Iterable[PathAccess], handled: int) -> None:
        """`handled`: rights that this kernel knows; others are not refused."""
        self._handled = handled
        self._rules: dict[str, int] = {}
        self._folders: dict[str, int] = {}
        for path, rights in accesses:
            for flags, kept in ((os.O_DIRECTORY, rights), (0, rights & FILE_RIGHTS)):
                if (real := _real(path, flags)) is not None:
                    self._rules[real] = self._rules.get(real, 0) | kept
                    break

    def allow(self, path: str, needed: int) -> bool:
        """`path`: absolute, without links."""
        needed &= self._handled
        given = self._rules.get(path, 0)
        return not needed & ~(given | self._of_folder(os.path.dirname(path)))  # noqa: PTH120  # as above

    def _of_folder(self, folder: str) -> int:
        known = self._folders.get(folder)
        if known is None:
            known, place = self._rules.get("/", 0), folder
            # Not by recursion: an agent makes folders as deep as a path can be.
            while place not in ("/", ""):
                known |= self._rules.get(place, 0)
                place = os.path.dirname(place)  # noqa: PTH120  # no pathlib in a tool child
            if len(self._folders) >= _REMEMBERED:
                self._folders.clear()
            self._folders[folder] = known
        return known


class Judge:
    """What the walls of one call refuse."""

    def __init__(
        self, rules: PathRules, visible: Sequence[str], fixed: Sequence[str], *, tcp: bool, port: int | None
    ) -> None:
        """`visible`: the folders and files of the view, `fixed` those that are read-only. `tcp`: Landlock's rules for
        TCP are in force, and allow only to connect to `port`."""
        self._rules = rules
        self._visible = (*visible, *_KERNEL_FOLDERS)
        self._fixed = tuple(fixed)
        self._tcp, self._port = tcp, port
        self._folders: dict[str, _Folder | None] = {}
        self._absent: dict[str, str] = {}

    def forget(self) -> None:
        """Links may have changed: folders that the agent may write are looked up again."""
        self._folders = {path: found for path, found in self._folders.items() if found is not None and found.fixed}
        self._absent.clear()

    def judge(self, attempt: Attempt) -> Refused | None:
        """Call it when the attempt has been made: it then tells by what is there whether it went through. Takes a few
        system calls, none of which waits for the agent. Raises OSError when something changes meanwhile."""
        act, path, flags = attempt
        if act is Act.MAKE or act is Act.REMOVE:
            return self._in_folder(attempt)
        # By hand: this runs for each file that a build opens.
        top, _, name = path.rpartition("/")
        folder = self._folder(top or "/")
        if folder is None:
            return self._missing(attempt, None)
        if folder.fixed and act is Act.OPEN and name != ".." and not _rights_of(flags) & ~READ:
            return None
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return self._missing(attempt, folder)
        if name in ("", ".", "..") or (stat.S_ISLNK(mode) and not flags & os.O_NOFOLLOW):
            return self._through_link(attempt)
        return self._existing(attempt, f"{folder.real.rstrip('/')}/{name}", mode)

    def _folder(self, path: str) -> _Folder | None:
        """None where there is none."""
        if path in self._folders:
            return self._folders[path]
        real = _real(path, os.O_DIRECTORY)
        found: _Folder | None = None
        if real is not None:
            fixed = ".." not in path and _is_in(path, self._fixed) and _is_in(real, self._fixed)
            found = _Folder(real, fixed and self._rules.allow(f"{real}/.", READ))
        if len(self._folders) >= _REMEMBERED:
            self._folders.clear()
        self._folders[path] = found
        return found

    def _through_link(self, attempt: Attempt) -> Refused | None:
        try:
            mode = os.stat(attempt.path).st_mode  # noqa: PTH116  # no pathlib in a tool child
        except OSError as error:
            return self._missing(attempt, None) if error.errno == errno.ENOENT else None
        real = _real(attempt.path)
        # Else a pipe, a socket, memory.
        return self._existing(attempt, real, mode) if real is not None and real.startswith("/") else None

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
        if self._rules.allow(path, needed if stat.S_ISREG(mode) else needed & ~TRUNCATE):
            return None
        return Refused("fs.write" if writes else "fs.read", path, LANDLOCK)

    def _missing(self, attempt: Attempt, folder: _Folder | None) -> Refused | None:
        """`folder`: where the name is missing; None when a folder on the way is."""
        makes = attempt.act is Act.OPEN and bool(attempt.flags & os.O_CREAT)
        if makes and folder is not None:
            return self._in_folder(attempt._replace(act=Act.MAKE))
        if attempt.act is Act.EXECUTE or (folder is not None and _is_in(folder.real, self._visible)):
            return None  # A search of PATH; a name that might have been there.
        return self._hidden(attempt.path, "fs.write" if makes else "fs.read")

    def _in_folder(self, attempt: Attempt) -> Refused | None:
        """A name made in a folder or taken out of it: still there, or still missing, when it was refused."""
        path = attempt.path.rstrip("/")
        top, _, name = path.rpartition("/")
        wanted = attempt.act is Act.REMOVE
        if not name or os.path.lexists(path) is not wanted:
            return None
        folder = self._folder(top or "/")
        if folder is None:
            return None if wanted else self._hidden(path, "fs.write")
        target = f"{folder.real.rstrip('/')}/{name}"
        if self._rules.allow(target, REMOVE_FILE if wanted else MAKE_REG) or _BYTECODE in target.split("/"):
            return None
        return Refused("fs.write", target, LANDLOCK)

    def _hidden(self, path: str, kind: str) -> Refused | None:
        """Not in the view; None where only a name is missing in a folder that is. Links on the way may lead out."""
        top, _, name = path.rpartition("/")
        real = self._absent.get(top)
        if real is None:
            if len(self._absent) >= _REMEMBERED:
                self._absent.clear()
            real = self._absent[top] = os.path.realpath(top)
        target = os.path.realpath(path) if os.path.lexists(path) else f"{real.rstrip('/')}/{name}"
        return None if _is_in(target, self._visible) else Refused(kind, target, VIEW)

    def judge_address(self, act: Act, address: bytes, protocol: str) -> Refused | None:
        """`address` as the kernel reads it; `protocol` as sockets name theirs (`TCP`, `UDPv6` …)."""
        place = _place_of(address)
        if place is None:
            return None
        host, port, where = place
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        tcp = self._tcp and protocol.startswith("TCP")
        if act is Act.BIND:
            return Refused("network.listen", target, LANDLOCK) if tcp and target != _IPV6_TEST else None
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


def _real(path: str, flags: int = 0) -> str | None:
    """The kernel's name for what a path leads to; None where that does not exist or is not to be reached."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC | flags)
    except OSError:
        return None
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115  # no pathlib in a tool child
    finally:
        os.close(descriptor)


def _is_in(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def of_process(path: str, pid: int) -> str:
    """Instead of names that mean something else for every process, those that mean the same for all."""
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
