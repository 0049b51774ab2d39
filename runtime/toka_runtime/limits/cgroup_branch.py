"""The runtime's own branch in one control group hierarchy: a group for each agent below it, with its limits."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from toka_runtime.limits.cgroup_control import (
    Freezer,
    FreezerV1,
    FreezerV2,
    Killer,
    KillerV1,
    KillerV2,
    members,
)
from toka_runtime.limits.cgroup_files import KERNEL, CgroupFiles, counters
from toka_runtime.protocol.limit_name import LimitName

PERIOD_US = 100_000
"""Processor time is given out once in so long."""
_REMOVE_S = 2.0
_CONTROLLERS = {"memory": LimitName.MEMORY, "pids": LimitName.PROCESSES, "cpu": LimitName.CPU}


class Figures(NamedTuple):
    """What one agent's groups are to hold; None: nothing."""

    memory_bytes: int | None = None
    cpu_fraction: float | None = None
    processes: int | None = None
    whole: bool = True
    """At the memory limit the kernel ends all of the agent, where it can (version 2), not one process of it."""


class Counts(NamedTuple):
    """What the kernel has counted since the group was made; None: not held here."""

    memory_kills: int | None = None
    refused_processes: int | None = None
    held_back_s: float | None = None


class Branch:
    """One folder below the group that this process is in. Blocking; raises OSError."""

    version: int
    holds: frozenset[LimitName]
    controls: bool
    """Its groups can be frozen and killed."""

    def __init__(self, folder: Path, files: CgroupFiles = KERNEL) -> None:
        self.folder = folder
        self._files = files

    def add(self, name: str, figures: Figures) -> Path:
        """A new group with these limits. Nothing is left of it when that fails."""
        group = self.folder / name
        self._files.make(group)
        try:
            self._limit(group, figures)
        except OSError:
            with suppress(OSError):
                self._files.remove(group)
            raise
        return group

    def remove(self, group: Path) -> bool:
        """See `remove_group`."""
        return remove_group(group, self._files)

    def mechanism(self, limit: LimitName) -> str:
        return f"cgroup v{self.version} {_FILES[self.version][limit]}"

    def counts(self, group: Path) -> Counts:
        raise NotImplementedError

    def memory_peak_bytes(self, group: Path) -> int:
        """The most that it has had at once."""
        raise NotImplementedError

    def freezer(self, group: Path) -> Freezer:
        raise NotImplementedError

    def killer(self, group: Path) -> Killer:
        raise NotImplementedError

    def _limit(self, group: Path, figures: Figures) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Remove it, with whatever is left below."""
        remove_groups(self.folder, self.killer, self._files)

    def _read(self, group: Path, name: str) -> str:
        return self._files.read(group / name)

    def _write(self, group: Path, name: str, value: object) -> None:
        self._files.write(group / name, str(value))


_FILES = {
    1: {LimitName.MEMORY: "memory.limit_in_bytes", LimitName.PROCESSES: "pids.max", LimitName.CPU: "cpu.cfs_quota_us"},
    2: {LimitName.MEMORY: "memory.max", LimitName.PROCESSES: "pids.max", LimitName.CPU: "cpu.max"},
}


class BranchV2(Branch):
    """All controllers that were delegated, in one group; freezing and killing need none."""

    version = 2
    controls = True

    def __init__(self, own: Path, name: str, files: CgroupFiles = KERNEL) -> None:
        """`own`: the group that this process is in. With controllers to give, this process moves into a group of its
        own below: the kernel limits groups only below one that holds no process itself."""
        super().__init__(own / name, files)
        self._own = own
        self._leaf: Path | None = None
        files.make(self.folder)
        try:
            offered = files.read(own / "cgroup.controllers").split()
            wanted = [controller for controller in _CONTROLLERS if controller in offered]
            self.problem = self._delegate(wanted) if wanted else f"{own}/cgroup.controllers lacks memory, pids and cpu"
            given = [] if self.problem else wanted
        except BaseException:
            self.close()
            raise
        self.holds = frozenset(_CONTROLLERS[controller] for controller in given)

    def counts(self, group: Path) -> Counts:
        memory = counters(self._read(group, "memory.events")) if LimitName.MEMORY in self.holds else None
        pids = counters(self._read(group, "pids.events")) if LimitName.PROCESSES in self.holds else None
        cpu = counters(self._read(group, "cpu.stat")) if LimitName.CPU in self.holds else None
        return Counts(
            memory_kills=None if memory is None else memory.get("oom_kill", 0),
            refused_processes=None if pids is None else pids.get("max", 0),
            held_back_s=None if cpu is None else cpu.get("throttled_usec", 0) / 1e6,
        )

    def memory_peak_bytes(self, group: Path) -> int:
        # memory.peak came with Linux 5.19.
        for name in ("memory.peak", "memory.current"):
            with suppress(FileNotFoundError):
                return int(self._read(group, name))
        return 0

    def freezer(self, group: Path) -> Freezer:
        return FreezerV2(group, self._files)

    def killer(self, group: Path) -> Killer:
        return KillerV2(group, self._files)

    def close(self) -> None:
        if self._leaf is not None:
            # Back to where it was, which a group that hands out controllers does not allow.
            for folder in (self.folder, self._own):
                with suppress(OSError):
                    self._hand_out(folder, [name for name in _CONTROLLERS if name in self._handed_out(folder)], "-")
            self._write(self._own, "cgroup.procs", os.getpid())
            self._files.remove(self._leaf)
            self._leaf = None
        super().close()

    def _delegate(self, wanted: list[str]) -> str:
        """Why it could not be done; "" when these controllers now work in groups below the branch."""
        try:
            self._hand_out(self._own, wanted, "+")
        except OSError as error:
            if error.errno != errno.EBUSY:
                return f"{self._own}: {error.strerror}"
            if problem := self._step_aside(wanted):
                return problem
        try:
            self._hand_out(self.folder, wanted, "+")
        except OSError as error:
            return f"{self.folder}: {error.strerror}"
        return ""

    def _step_aside(self, wanted: list[str]) -> str:
        leaf = self.folder.with_name(f"{self.folder.name}-runtime")
        try:
            self._files.make(leaf)
            self._leaf = leaf
            self._write(leaf, "cgroup.procs", os.getpid())
            self._hand_out(self._own, wanted, "+")
        except OSError as error:
            if error.errno == errno.EBUSY:
                return f"{self._own} holds other processes than this runtime"
            return f"{self._own}: {error.strerror}"
        return ""

    def _handed_out(self, folder: Path) -> list[str]:
        return self._read(folder, "cgroup.subtree_control").split()

    def _hand_out(self, folder: Path, controllers: list[str], sign: str) -> None:
        on = self._handed_out(folder)
        new = [name for name in controllers if (name in on) != (sign == "+")]
        if new:
            self._write(folder, "cgroup.subtree_control", " ".join(f"{sign}{name}" for name in new))

    def _limit(self, group: Path, figures: Figures) -> None:
        if LimitName.MEMORY in self.holds and figures.memory_bytes is not None:
            self._write(group, "memory.max", figures.memory_bytes)
            with suppress(FileNotFoundError):
                # Without it the limit would be one of memory that is not swapped out.
                self._write(group, "memory.swap.max", 0)
            if figures.whole:
                self._write(group, "memory.oom.group", 1)
        if LimitName.PROCESSES in self.holds and figures.processes is not None:
            self._write(group, "pids.max", figures.processes)
        if LimitName.CPU in self.holds and figures.cpu_fraction is not None:
            self._write(group, "cpu.max", f"{_quota(figures.cpu_fraction)} {PERIOD_US}")


class BranchV1(Branch):
    """One controller each, in a hierarchy of its own."""

    version = 1

    def __init__(self, own: Path, name: str, controller: str, files: CgroupFiles = KERNEL) -> None:
        super().__init__(own / name, files)
        self.holds = frozenset({_CONTROLLERS[controller]} if controller in _CONTROLLERS else ())
        self.controls = controller == "freezer"
        files.make(self.folder)

    def counts(self, group: Path) -> Counts:
        if LimitName.MEMORY in self.holds:
            kills = counters(self._read(group, "memory.oom_control")).get("oom_kill", 0)
            return Counts(memory_kills=kills)
        if LimitName.PROCESSES in self.holds:
            return Counts(refused_processes=counters(self._read(group, "pids.events")).get("max", 0))
        if LimitName.CPU in self.holds:
            return Counts(held_back_s=counters(self._read(group, "cpu.stat")).get("throttled_time", 0) / 1e9)
        return Counts()

    def memory_peak_bytes(self, group: Path) -> int:
        return int(self._read(group, "memory.max_usage_in_bytes"))

    def freezer(self, group: Path) -> Freezer:
        return FreezerV1(group, self._files)

    def killer(self, group: Path) -> Killer:
        return KillerV1(group, self._files)

    def close(self) -> None:
        # A group of another controller has no freezer: what is left in it is killed by way of the others.
        remove_groups(self.folder, self.killer if self.controls else None, self._files)

    def _limit(self, group: Path, figures: Figures) -> None:
        if LimitName.MEMORY in self.holds and figures.memory_bytes is not None:
            self._write(group, "memory.limit_in_bytes", figures.memory_bytes)
            with suppress(OSError):
                # Memory and swap together; not there where swap is not accounted.
                self._write(group, "memory.memsw.limit_in_bytes", figures.memory_bytes)
        if LimitName.PROCESSES in self.holds and figures.processes is not None:
            self._write(group, "pids.max", figures.processes)
        if LimitName.CPU in self.holds and figures.cpu_fraction is not None:
            self._write(group, "cpu.cfs_period_us", PERIOD_US)
            self._write(group, "cpu.cfs_quota_us", _quota(figures.cpu_fraction))


def _quota(fraction: float) -> int:
    """Microseconds in a period; the kernel takes no less than a millisecond."""
    return max(1000, round(fraction * PERIOD_US))


def remove_group(group: Path, files: CgroupFiles = KERNEL, timeout_s: float = _REMOVE_S) -> bool:
    """False: it still holds processes after the time. A group that is gone already is removed."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            files.remove(group)
        except FileNotFoundError:
            return True
        except OSError as error:
            # Busy until the last process is reaped, which takes its parent a moment.
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        else:
            return True


def remove_groups(folder: Path, killer: Callable[[Path], Killer] | None, files: CgroupFiles = KERNEL) -> bool:
    """A branch with all that is below it; what still runs there is killed first. False: something is left."""
    try:
        groups = files.groups(folder)
    except FileNotFoundError:
        return True
    for group in groups:
        with suppress(OSError):
            if killer is not None and members(group, files):
                killer(group).kill(_REMOVE_S)
        remove_group(group, files)
    return remove_group(folder, files)
