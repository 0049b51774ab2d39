"""Calls into the kernel that the standard library has no wrapper for. No policy here; standard library only.

Loaded by the fork server before it forks: children find everything in memory.
"""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Any

_libc: Any = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38


_NAMES = {
    _PR_SET_PDEATHSIG: "PR_SET_PDEATHSIG",
    _PR_SET_CHILD_SUBREAPER: "PR_SET_CHILD_SUBREAPER",
    _PR_SET_NO_NEW_PRIVS: "PR_SET_NO_NEW_PRIVS",
}


def _prctl(option: int, argument: int) -> None:
    zero = ctypes.c_ulong(0)
    if _libc.prctl(option, ctypes.c_ulong(argument), zero, zero, zero) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({_NAMES[option]}): {os.strerror(number)}")


def no_new_privileges() -> None:
    """No execve of this process or its children gains rights (set-uid, file capabilities)."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def adopt_orphans() -> None:
    """Descendants whose parent ends become children of this process instead of init's."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """SIGKILL when the parent's (only) thread ends; at once when it has ended already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def set_title(title: str) -> None:
    """What `ps` shows: the name (15 bytes) and, where it fits, the command line."""
    name = ctypes.create_string_buffer(title.encode(errors="replace")[:15])
    _libc.prctl(_PR_SET_NAME, ctypes.byref(name), 0, 0, 0)
    start, end = _arguments
    if end - start > 1:
        text = title.encode(errors="replace")[: end - start - 1]
        ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


def _argument_memory() -> tuple[int, int]:
    """Where the kernel finds this process's command line; the same in every child."""
    with open("/proc/self/stat", "rb") as file:  # noqa: PTH123  # no pathlib in the fork server
        fields = file.read().rpartition(b")")[2].split()
    # Fields 48 and 49; zero where the kernel hides them. Counted from field 3, which follows the name.
    return int(fields[45]), int(fields[46])


_arguments = _argument_memory()
