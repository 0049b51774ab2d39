"""The system calls that the observer is told of, and what each one asks for. Standard library only.

Numbers: Linux `arch/x86/entry/syscalls/syscall_64.tbl` and `include/uapi/asm-generic/unistd.h`.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

_HERE = None
"""In place of the number of an argument: the path is relative to the working folder."""


class Act(Enum):
    OPEN = auto()
    EXECUTE = auto()
    MAKE = auto()
    """A new name in a folder: the path must not exist yet."""
    REMOVE = auto()
    """A name taken out of a folder: the path must exist."""
    TRUNCATE = auto()
    CONNECT = auto()
    BIND = auto()


class PathArgument(NamedTuple):
    act: Act
    path: int
    """Number of the argument that points to it."""
    folder: int | None = _HERE
    """Number of the argument that holds the descriptor of the folder."""


class Call(NamedTuple):
    x86_64: int | None
    aarch64: int | None
    paths: tuple[PathArgument, ...] = ()
    flags: int | None = None
    """Number of the argument with the flags of an open."""
    address: tuple[int, int] | None = None
    """Numbers of the arguments with a socket address and its length."""


CALLS = {
    "open": Call(2, None, (PathArgument(Act.OPEN, 0),), flags=1),
    "creat": Call(85, None, (PathArgument(Act.OPEN, 0),)),
    "openat": Call(257, 56, (PathArgument(Act.OPEN, 1, 0),), flags=2),
    "execve": Call(59, 221, (PathArgument(Act.EXECUTE, 0),)),
    "execveat": Call(322, 281, (PathArgument(Act.EXECUTE, 1, 0),)),
    "truncate": Call(76, 45, (PathArgument(Act.TRUNCATE, 0),)),
    "mkdir": Call(83, None, (PathArgument(Act.MAKE, 0),)),
    "mkdirat": Call(258, 34, (PathArgument(Act.MAKE, 1, 0),)),
    "symlink": Call(88, None, (PathArgument(Act.MAKE, 1),)),
    "symlinkat": Call(266, 36, (PathArgument(Act.MAKE, 2, 1),)),
    "link": Call(86, None, (PathArgument(Act.MAKE, 1),)),
    "linkat": Call(265, 37, (PathArgument(Act.MAKE, 3, 2),)),
    "rmdir": Call(84, None, (PathArgument(Act.REMOVE, 0),)),
    "unlink": Call(87, None, (PathArgument(Act.REMOVE, 0),)),
    "unlinkat": Call(263, 35, (PathArgument(Act.REMOVE, 1, 0),)),
    "rename": Call(82, None, (PathArgument(Act.REMOVE, 0), PathArgument(Act.MAKE, 1))),
    "renameat": Call(264, 38, (PathArgument(Act.REMOVE, 1, 0), PathArgument(Act.MAKE, 3, 2))),
    "renameat2": Call(316, 276, (PathArgument(Act.REMOVE, 1, 0), PathArgument(Act.MAKE, 3, 2))),
    "connect": Call(42, 203, address=(1, 2)),
    "bind": Call(49, 200, address=(1, 2)),
    "sendto": Call(44, 206, address=(4, 5)),
}


def numbers(machine: str) -> dict[int, str]:
    """Number → name, for x86_64 or aarch64; empty for another machine."""
    found = {name: getattr(call, machine, None) for name, call in CALLS.items()}
    return {number: name for name, number in found.items() if number is not None}
