"""Landlock by system call: which paths the process and its children may use from now on. No policy here; standard
library only (it runs between fork and exec).

Numbers and structures: Linux `include/uapi/linux/landlock.h`, ABI 1 (5.13) to 7 (6.15).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

_libc: Any = ctypes.CDLL(None, use_errno=True)

# The same on every architecture (they are younger than the unified table).
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH, _RULE_NET_PORT = 1, 2

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE = 1 << 4, 1 << 5
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << bit for bit in range(6, 13))
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15

READ = READ_FILE | READ_DIR
WRITE = WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SYM | MAKE_FIFO | REFER | TRUNCATE
"""What changing a folder takes. Device nodes and sockets are never made by an agent."""
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1
TCP_SINCE = 4
"""The first ABI with rules for TCP."""
_SCOPE_ABSTRACT_SOCKET, _SCOPE_SIGNAL = 1 << 0, 1 << 1


class PathAccess(NamedTuple):
    path: str
    rights: int
    """A sum of the constants above; on a file those for folders are left out."""


class LandlockError(OSError):
    """A Landlock call failed. `step` names which."""

    def __init__(self, number: int, step: str) -> None:
        super().__init__(number, f"{step}: {os.strerror(number)}")
        self.step = step


def abi() -> int:
    """The kernel's Landlock ABI; 0 where there is none (or it is switched off at boot)."""
    return max(0, _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG)))


def restrict(accesses: Iterable[PathAccess], *, connect_port: int | None = None) -> None:
    """From here on this process and its children have only these path rights; no TCP bind and no connect but to
    `connect_port`, where the kernel knows how to refuse it; no signal and no abstract socket to the outside of the
    domain. Needs no_new_privs. A path that does not exist is skipped: a right to nothing. Raises LandlockError."""
    version = abi()
    if version == 0:
        raise LandlockError(38, "landlock_create_ruleset")
    handled = handled_rights(version)
    net = _BIND_TCP | _CONNECT_TCP if version >= TCP_SINCE else 0
    scoped = _SCOPE_ABSTRACT_SOCKET | _SCOPE_SIGNAL if version >= 6 else 0
    attributes = struct.pack("=QQQ", handled, net, scoped)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = _call("landlock_create_ruleset", _CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for path, rights in accesses:
            _add(ruleset, path, rights & handled)
        if connect_port is not None and net:
            _add_rule(ruleset, _RULE_NET_PORT, struct.pack("=QQ", _CONNECT_TCP, connect_port), f"port {connect_port}")
        _call("landlock_restrict_self", _RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def handled_rights(version: int) -> int:
    """Path rights that a kernel with this ABI refuses without a rule."""
    rights = (1 << 13) - 1
    if version >= 2:
        rights |= REFER
    if version >= 3:
        rights |= TRUNCATE
    if version >= 5:
        rights |= IOCTL_DEV
    return rights


def _add(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        if not os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112  # no pathlib between fork and exec
            rights &= FILE_RIGHTS
        if rights:
            _add_rule(ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", rights, descriptor), path)
    finally:
        os.close(descriptor)


def _add_rule(ruleset: int, kind: int, rule: bytes, what: str) -> None:
    number, last = ctypes.c_int(ruleset), ctypes.c_uint32(0)
    _call(f"landlock_add_rule {what}", _ADD_RULE, number, ctypes.c_int(kind), rule, last)


def _call(step: str, *arguments: Any) -> int:
    result: int = _libc.syscall(*arguments)
    if result < 0:
        raise LandlockError(ctypes.get_errno(), step)
    return result
