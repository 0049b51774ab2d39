"""What freezes a control group, and what kills it. Both end with the kernel's word, never with a guess."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from toka_runtime.limits.cgroup_files import KERNEL, CgroupFiles, counters

_PAUSE_S = 0.0002
_FROZEN_PLACES = ("do_freezer_trap", "__refrigerator", "freezer_trap")
"""Functions of the kernel in which frozen threads sleep."""


class Freezer(Protocol):
    """Stops everything in one group, whatever session or PID namespace it is in. Blocking, less than a millisecond as
    a rule."""

    mechanism: str

    def freeze(self, timeout_s: float) -> bool:
        """True: the kernel says that all of it stands still. False: not within the time; it is still being frozen.
        Raises OSError when the group is gone."""
        ...

    def thaw(self, timeout_s: float) -> bool:
        """True: the kernel says that it runs. Raises OSError."""
        ...

    def frozen(self) -> bool: ...

    def members(self) -> tuple[int, ...]:
        """Pids of all in it. Raises OSError."""
        ...

    def awake(self) -> tuple[int, ...]:
        """Pids of those that have not been seen to stand still. Raises OSError."""
        ...


class Killer(Protocol):
    """Ends everything in one group, also while it is frozen. Blocking."""

    mechanism: str

    def kill(self, timeout_s: float) -> tuple[int, ...]:
        """Pids that are left after the time; empty: the kernel says that the group is empty. Raises OSError."""
        ...


class FreezerV2:
    mechanism = "cgroup.freeze"

    def __init__(self, group: Path, files: CgroupFiles = KERNEL) -> None:
        self._group, self._files = group, files

    def freeze(self, timeout_s: float) -> bool:
        self._files.write(self._group / "cgroup.freeze", "1")
        return _until(self.frozen, timeout_s)

    def thaw(self, timeout_s: float) -> bool:
        self._files.write(self._group / "cgroup.freeze", "0")
        return _until(lambda: not self.frozen(), timeout_s)

    def frozen(self) -> bool:
        # Read directly: waiting for the file's notification takes 13–16 ms.
        return counters(self._files.read(self._group / "cgroup.events")).get("frozen") == 1

    def members(self) -> tuple[int, ...]:
        return members(self._group, self._files)

    def awake(self) -> tuple[int, ...]:
        return _awake(self.members())


class KillerV2:
    mechanism = "cgroup.kill"

    def __init__(self, group: Path, files: CgroupFiles = KERNEL) -> None:
        self._group, self._files = group, files

    def kill(self, timeout_s: float) -> tuple[int, ...]:
        self._files.write(self._group / "cgroup.kill", "1")
        return () if _until(self._empty, timeout_s) else members(self._group, self._files)

    def _empty(self) -> bool:
        return counters(self._files.read(self._group / "cgroup.events")).get("populated") == 0


class FreezerV1:
    mechanism = "cgroup v1 freezer"

    def __init__(self, group: Path, files: CgroupFiles = KERNEL) -> None:
        self._group, self._files = group, files

    def freeze(self, timeout_s: float) -> bool:
        def done() -> bool:
            # Written again each time: a process that was being born is caught by the next try.
            self._files.write(self._group / "freezer.state", "FROZEN")
            return self.frozen()

        return _until(done, timeout_s)

    def thaw(self, timeout_s: float) -> bool:
        self._files.write(self._group / "freezer.state", "THAWED")
        return _until(lambda: self._state() == "THAWED", timeout_s)

    def frozen(self) -> bool:
        return self._state() == "FROZEN"

    def members(self) -> tuple[int, ...]:
        return members(self._group, self._files)

    def awake(self) -> tuple[int, ...]:
        return _awake(self.members())

    def _state(self) -> str:
        return self._files.read(self._group / "freezer.state").strip()


class KillerV1:
    """Version 1 has no such file: everybody in the group is signalled, with the group frozen so that nobody forks away,
    and then let go to die."""

    mechanism = "cgroup v1 freezer, signals"

    def __init__(self, group: Path, files: CgroupFiles = KERNEL) -> None:
        self._group, self._files = group, files
        self._freezer = FreezerV1(group, files)

    def kill(self, timeout_s: float) -> tuple[int, ...]:
        def emptied() -> bool:
            self._freezer.freeze(timeout_s / 10)
            for pid in members(self._group, self._files):
                _kill_member(pid, self._group, self._files)
            self._freezer.thaw(timeout_s / 10)
            return not members(self._group, self._files)

        return () if _until(emptied, timeout_s) else members(self._group, self._files)


def members(group: Path, files: CgroupFiles = KERNEL) -> tuple[int, ...]:
    """Processes in this very group; 0 stands for one that this PID namespace has no number for."""
    return tuple(int(pid) for pid in files.read(group / "cgroup.procs").split())


def _awake(pids: tuple[int, ...]) -> tuple[int, ...]:
    """Where the kernel says nothing about where they sleep, all of them."""
    return tuple(pid for pid in pids if not _sleeps_frozen(pid))


def _sleeps_frozen(pid: int) -> bool:
    try:
        threads = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/wchan")]
    except OSError:
        return False
    return all(any(word in place for word in _FROZEN_PLACES) for place in threads)


def _kill_member(pid: int, group: Path, files: CgroupFiles) -> None:
    """Only while it is in the group: a number may come to mean another process."""
    try:
        descriptor = os.pidfd_open(pid)
    except (ProcessLookupError, ValueError, OSError):
        return
    try:
        if pid in members(group, files):
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)


def _until(true: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    pause = _PAUSE_S
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, 0.005)
    return True
