"""Ending everything that a command has started, also what has left its process group.

The tool child adopts orphans (`PR_SET_CHILD_SUBREAPER`), so whatever a command leaves behind stays below it and can be
found. A process that forks faster than it is found can only be ended with its PID namespace; that is the shim's part.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from functools import lru_cache

_PR_SET_CHILD_SUBREAPER = 36
_ROUND_S = 0.005


@lru_cache(1)
def adopt_orphans() -> bool:
    """Make this process the parent of orphans below it. False where the kernel refuses."""
    return ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123  # pathlib is not needed in the child
            found = [int(number) for number in file.read().split()]
        # Children belong to the thread that forked them.
        others = [task for task in os.listdir(f"/proc/{pid}/task") if task != str(pid)]  # noqa: PTH208
        for task in others:
            with open(f"/proc/{pid}/task/{task}/children") as file:  # noqa: PTH123
                found += [int(number) for number in file.read().split()]
    except FileNotFoundError:
        return _children_by_scan(pid) if not os.path.exists(f"/proc/self/task/{os.getpid()}/children") else []  # noqa: PTH110
    except (OSError, ValueError):
        return []
    return found


def _children_by_scan(pid: int) -> list[int]:
    """For kernels without the `children` files: every process whose parent is `pid`."""
    found: list[int] = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                parent = int(file.read().rpartition(b")")[2].split()[1])
            if parent == pid:
                found.append(int(name))
    return found


def descendants(pid: int, leave: frozenset[int] = frozenset()) -> list[int]:
    """Every process below `pid`, parents first; the direct children in `leave` and what is below them are left out."""
    found: list[int] = []
    waiting = [child for child in children(pid) if child not in leave]
    seen: set[int] = set()
    while waiting:
        child = waiting.pop()
        if child in seen:
            continue
        seen.add(child)
        found.append(child)
        waiting += children(child)
    return found


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def reap(leave: frozenset[int], known: int) -> None:
    """Collect every ended child but those in `leave` and `known` (whose owner wants the exit code)."""
    for pid in children(os.getpid()):
        if pid not in leave and pid != known:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def end_all(leave: frozenset[int], *, deadline_s: float = 5.0) -> list[int]:
    """Kill and collect every descendant of this process but `leave`. Returns the survivors (none, as a rule: those that
    the kernel cannot end at once, or that fork faster than they are found)."""
    me = os.getpid()
    until = time.monotonic() + deadline_s
    while True:
        alive = descendants(me, leave)
        # Frozen first, so that none forks while the others are killed.
        signal_all(alive, signal.SIGSTOP)
        signal_all(alive, signal.SIGKILL)
        reap(leave, known=0)
        alive = descendants(me, leave)
        if not alive or time.monotonic() > until:
            return alive
        time.sleep(_ROUND_S)
