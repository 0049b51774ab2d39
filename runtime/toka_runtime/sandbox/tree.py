"""Stop, continue and kill whole process trees by signals, each proven by looking again. Standard library only.

A tree is found through `/proc/PID/task/TID/children`. Processes fork, die and are adopted while one looks, so every
operation repeats until a look finds nothing left to do. A signal goes through a pidfd, after the process behind it has
been seen to be a member: never to a stranger that got a used number. Where nobody may leave the tree (a child
subreaper at its root, or a PID namespace later), the root's own "no child left" is exact.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

PAUSE_S = 2.0
KILL_S = 5.0
_SETTLE_S = 0.02
"""A process that sleeps inside the kernel for longer than this, with the stop signal queued, counts as stopped: it
cannot run an instruction of its own before it stops (a parent in vfork waits there for its stopped child)."""

_PAGE_FULL = 4000
"""The kernel fills a page of 4096 bytes at a time, with whole records: from so many bytes on there may be more."""
_GONE = frozenset("ZX")
_STOPPED = frozenset("Tt")
_SIGSTOP_BIT = 1 << (signal.SIGSTOP - 1)


class ProcStat(NamedTuple):
    parent: int
    state: str
    threads: int
    started_ticks: int


class Swept(NamedTuple):
    """What an operation on a tree came to."""

    processes: int
    """How many different processes were reached."""
    survivors: tuple[int, ...]
    """Pids for which it could not be shown; empty: proven."""
    duration_ms: float

    @property
    def confirmed(self) -> bool:
        return not self.survivors


def proc_stat(pid: int) -> ProcStat | None:
    """None when there is no such process."""
    return _parse_stat(_read(f"/proc/{pid}/stat"))


def children(pid: int, threads: int = 1) -> list[int]:
    """Direct children, of every thread, living or unreaped."""
    return _children_by_list(pid, threads) if _HAS_CHILDREN_FILES else _children_by_scan()(pid, threads)


def members(root: int) -> dict[int, ProcStat]:
    """All descendants, parents before children, as seen in one pass."""
    return _walk(root)


def stop_tree(root: int, timeout_s: float = PAUSE_S) -> Swept:
    """SIGSTOP for every descendant of `root` (not `root` itself). Confirmed when all are seen to be stopped, and two
    looks at who is there after that find nobody else."""
    began, pauses = time.monotonic(), _pauses()
    stopped: set[int] = set()
    while True:
        stop = _Stop(began)
        seen = _walk(root, stop, pin=True)
        stopped = {pid for pid, stat in seen.items() if not _gone(stat)}
        while stop.awake:
            if time.monotonic() - began > timeout_s:
                return _swept(stopped, stop.awake, began)
            time.sleep(next(pauses))
            stop.look_again()
        threads = {pid: stat.threads for pid, stat in seen.items()}
        # Twice: while one looks, an orphan may move to a parent that has been looked at already.
        if all(_pids(root, threads) <= seen.keys() for _ in range(2)):
            return _swept(stopped, (), began)
        if time.monotonic() - began > timeout_s:
            return _swept(stopped, _pids(root, threads) - seen.keys(), began)


def continue_tree(root: int, timeout_s: float = PAUSE_S) -> Swept:
    """SIGCONT for every descendant, children before parents: a parent that watches its children sees none stopped."""
    began, pauses = time.monotonic(), _pauses()
    everyone = members(root)
    for pid in reversed(everyone):
        _signal_member(pid, everyone[pid], signal.SIGCONT)
    while True:
        stopped = {pid: stat for pid, stat in members(root).items() if stat.state == "T"}
        if not stopped or time.monotonic() - began > timeout_s:
            return _swept(everyone, stopped, began)
        for pid in reversed(stopped):
            _signal_member(pid, stopped[pid], signal.SIGCONT)
        time.sleep(next(pauses))


def signal_tree(root: int, number: int) -> int:
    """Send one signal to every living descendant, once. Returns how many got it.

    Found first and signalled then, children before parents: a parent that dies of it would take its children out of
    sight. Whatever is forked meanwhile (by a handler that tidies up, say) is left alone."""
    everyone = members(root)
    return sum(_signal_member(pid, everyone[pid], number) for pid in reversed(everyone) if not _gone(everyone[pid]))


def kill_children(on_reap: Callable[[int, int], None], timeout_s: float = KILL_S) -> Swept:
    """SIGKILL for every descendant of this process, which must be a child subreaper; all are reaped, each told to
    `on_reap(pid, exit code)`. Proven when the kernel says that this process has no child."""
    began, pauses = time.monotonic(), _pauses()
    me = os.getpid()
    killed: set[int] = set()
    while True:
        _walk(me, _Kill(killed), pin=True)
        if reap(on_reap):
            return _swept(killed, (), began)
        if time.monotonic() - began > timeout_s:
            left = [pid for pid, stat in members(me).items() if not _gone(stat)]
            return _swept(killed, left, began)
        time.sleep(next(pauses))


def kill_subtree(top: int, timeout_s: float = KILL_S) -> Swept:
    """SIGKILL for `top` and every descendant. `top` must be unable to vanish unseen (a child of this process that only
    this process reaps, or held by a pidfd). It is stopped first and killed last, so that it goes on adopting its
    orphans until none is left. Nothing is reaped here."""
    began, pauses = time.monotonic(), _pauses()
    if (stat := proc_stat(top)) is None or _gone(stat):
        return _swept((), (), began)
    killed = {top}
    _signal_member(top, stat, signal.SIGSTOP)
    quiet = 0
    while True:
        before = len(killed)
        living = {pid for pid, stat in _walk(top, _Kill(killed), pin=True).items() if not _gone(stat)}
        quiet = 0 if living or len(killed) > before else quiet + 1
        # Twice: while one looks, an orphan may move to a parent that has been looked at already.
        if quiet == 2 or time.monotonic() - began > timeout_s:
            break
        if living:
            time.sleep(next(pauses))
    _signal_member(top, stat, signal.SIGKILL)
    while True:
        left = [pid for pid, stat in members(top).items() if not _gone(stat)]
        end = proc_stat(top)
        if end is None or _gone(end) or end.started_ticks != stat.started_ticks:
            return _swept(killed, left, began)
        if time.monotonic() - began > timeout_s:
            return _swept(killed, [*left, top], began)
        time.sleep(next(pauses))


def kill_strays(known: Collection[int], timeout_s: float = 1.0) -> Swept:
    """Kill the trees of all children of this process that are not `known`: orphans that it has adopted. They are not
    reaped here."""
    began, pauses = time.monotonic(), _pauses()
    me = os.getpid()
    killed: set[int] = set()
    while True:
        found = [pid for pid in children(me) if pid not in known]
        strays = {pid: stat for pid in found if (stat := proc_stat(pid)) is not None and not _gone(stat)}
        if not strays or time.monotonic() - began > timeout_s:
            return _swept(killed, strays, began)
        for pid, stat in strays.items():
            if _signal_member(pid, stat, signal.SIGKILL):
                killed.add(pid)
            _walk(pid, _Kill(killed), pin=True)
        time.sleep(next(pauses))


def reap(on_reap: Callable[[int, int], None]) -> bool:
    """Reap every child that has ended, without waiting. True when no child is left, neither living nor dead."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if pid == 0:
            return False
        on_reap(pid, os.waitstatus_to_exitcode(status))


# -- one pass ---------------------------------------------------------------------------------------------------------

Visit = Callable[[int, ProcStat, int], object]
"""Called for each descendant, before its children are listed: pid, what it is, its pidfd (-1 when not pinned)."""


def _walk(root: int, visit: Visit | None = None, *, pin: bool = False) -> dict[int, ProcStat]:
    """Descendants, parents before children. With `pin` a process is held by a pidfd while it is looked at, so that
    what is seen and what is signalled are one."""
    list_children = _children_by_list if _HAS_CHILDREN_FILES else _children_by_scan()
    top = proc_stat(root)
    seen: dict[int, ProcStat] = {}
    queue = [(root, top.threads if top is not None else 1)]
    for parent, threads in queue:
        for pid in list_children(parent, threads):
            if pid in seen:
                continue
            descriptor = _pidfd(pid) if pin else -1
            try:
                stat = proc_stat(pid)
                # Adopted meanwhile by somebody outside, or a stranger with a used number: not ours.
                if stat is None or not (stat.parent == parent or stat.parent == root or stat.parent in seen):
                    continue
                if visit is not None:
                    visit(pid, stat, descriptor)
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
            seen[pid] = stat
            queue.append((pid, stat.threads))
    return seen


def _pids(root: int, threads: dict[int, int]) -> set[int]:
    """Who is below `root`, by the lists of children alone: a third of the cost of `_walk`."""
    list_children = _children_by_list if _HAS_CHILDREN_FILES else _children_by_scan()
    top = proc_stat(root)
    found: set[int] = set()
    queue = [(root, top.threads if top is not None else 1)]
    for parent, count in queue:
        for pid in list_children(parent, count):
            if pid not in found:
                found.add(pid)
                queue.append((pid, threads.get(pid, 1)))
    return found


class _Kill:
    """Visit that kills everyone alive."""

    def __init__(self, killed: set[int]) -> None:
        self._killed = killed

    def __call__(self, pid: int, stat: ProcStat, descriptor: int) -> None:
        if not _gone(stat) and _send(descriptor, signal.SIGKILL):
            self._killed.add(pid)


class _Stop:
    """Visit that stops whoever is not stopped yet, and notes it in `awake`."""

    def __init__(self, began: float) -> None:
        self.awake: dict[int, ProcStat] = {}
        self._began = began

    def __call__(self, pid: int, stat: ProcStat, descriptor: int) -> None:
        if not _gone(stat) and not self._is_stopped(pid, stat):
            self.awake[pid] = stat
            _send(descriptor, signal.SIGSTOP)

    def look_again(self) -> None:
        """Forget those that are stopped or gone by now."""
        for pid, before in list(self.awake.items()):
            stat = proc_stat(pid)
            same = stat is not None and stat.started_ticks == before.started_ticks
            if stat is None or not same or _gone(stat) or self._is_stopped(pid, stat):
                del self.awake[pid]

    def _is_stopped(self, pid: int, stat: ProcStat) -> bool:
        if stat.state in _STOPPED:
            return True
        if stat.state in _GONE:
            threads = [_parse_stat(_read(f"/proc/{pid}/task/{tid}/stat")) for tid in _threads(pid)]
            return all(thread is None or thread.state in _STOPPED | _GONE for thread in threads)
        patient = time.monotonic() - self._began > _SETTLE_S
        return patient and stat.state == "D" and _stop_is_queued(pid)


def _signal_member(pid: int, stat: ProcStat, number: int) -> bool:
    """Signal the process that `stat` was read from. False when it is gone."""
    descriptor = _pidfd(pid)
    if descriptor < 0:
        return False
    try:
        now = proc_stat(pid)
        return now is not None and now.started_ticks == stat.started_ticks and _send(descriptor, number)
    finally:
        os.close(descriptor)


def _pidfd(pid: int) -> int:
    """-1 when there is no such process."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return -1


def _send(descriptor: int, number: int) -> bool:
    if descriptor < 0:
        return False
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    return True


def _gone(stat: ProcStat) -> bool:
    # The first thread may be a zombie while others run on.
    return stat.state in _GONE and stat.threads <= 1


def _stop_is_queued(pid: int) -> bool:
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith((b"SigPnd:", b"ShdPnd:")) and int(line.split()[1], 16) & _SIGSTOP_BIT:
            return True
    return False


# -- /proc ------------------------------------------------------------------------------------------------------------


def _children_by_list(pid: int, threads: int) -> list[int]:
    if threads <= 1:
        return [int(child) for child in _read(f"/proc/{pid}/task/{pid}/children").split()]
    return [int(child) for tid in _threads(pid) for child in _read(f"/proc/{pid}/task/{tid}/children").split()]


def _children_by_scan() -> Callable[[int, int], list[int]]:
    """For kernels without CONFIG_PROC_CHILDREN: everybody's parent, read once."""
    families: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  # no pathlib in the fork server
        if name.isdecimal() and (stat := proc_stat(int(name))) is not None:
            families.setdefault(stat.parent, []).append(int(name))
    return lambda pid, threads: families.get(pid, [])


def _threads(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  # no pathlib in the fork server
    except OSError:
        return []


def _parse_stat(data: bytes) -> ProcStat | None:
    # The name in parentheses may hold anything, also spaces and parentheses.
    fields = data[data.rfind(b")") + 2 :].split(b" ", 20)
    if len(fields) < 20:
        return None
    return ProcStat(int(fields[1]), fields[0].decode(), int(fields[17]), int(fields[19]))


def _read(path: str) -> bytes:
    """b"" when the process is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        data = os.read(descriptor, 65536)
        if len(data) >= _PAGE_FULL:
            while more := os.read(descriptor, 65536):
                data += more
    except OSError:
        return b""
    finally:
        os.close(descriptor)
    return data


def _pauses() -> Iterator[float]:
    """How long to rest before looking again, for ever: short at first."""
    rest = 0.0002
    while True:
        yield rest
        rest = min(rest * 1.5, 0.005)


def _swept(processes: Collection[int], survivors: Collection[int], began: float) -> Swept:
    return Swept(len(processes), tuple(sorted(survivors)), (time.monotonic() - began) * 1000)


_HAS_CHILDREN_FILES = os.path.exists(f"/proc/self/task/{os.getpid()}/children")  # noqa: PTH110  # as above
