"""A version 2 control group hierarchy in memory, with the kernel's rules (Documentation/admin-guide/cgroup-v2.rst) as
far as the runtime meets them. No host of ours delegates real controllers; what is real is tried where it is."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from toka_runtime.limits.cgroup_files import CgroupFiles

_CONTROLLER_FILES = {
    "memory": {
        "memory.max": "max",
        "memory.swap.max": "max",
        "memory.oom.group": "0",
        "memory.current": "0",
        "memory.peak": "0",
        "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0",
    },
    "pids": {"pids.max": "max", "pids.current": "0", "pids.events": "max 0"},
    "cpu": {"cpu.max": "max 100000"},
}
_CPU_STAT = "usage_usec 0\nuser_usec 0\nsystem_usec 0"
_THROTTLED = "\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0"


class _Group:
    def __init__(self, controllers: set[str]) -> None:
        self.controllers = controllers
        self.given: set[str] = set()
        self.procs: set[int] = set()
        self.frozen = False
        self.files = {"cpu.stat": _CPU_STAT + (_THROTTLED if "cpu" in controllers else "")}
        for controller in controllers:
            self.files |= _CONTROLLER_FILES.get(controller, {})


class FakeCgroup2(CgroupFiles):
    def __init__(self, own: Path, controllers: str = "cpu memory pids", procs: tuple[int, ...] = ()) -> None:
        """`own` is the delegated group that the runtime is in, beside `procs`."""
        self.all = {own: _Group(set(controllers.split()))}
        self.all[own].procs = {os.getpid(), *procs}

    def make(self, folder: Path) -> None:
        if folder in self.all:
            raise FileExistsError(errno.EEXIST, "File exists")
        self.all[folder] = _Group(set(self._group(folder.parent).given))

    def remove(self, folder: Path) -> None:
        group = self._group(folder)
        if group.procs or self.groups(folder):
            raise OSError(errno.EBUSY, "Device or resource busy")
        del self.all[folder]

    def groups(self, folder: Path) -> list[Path]:
        self._group(folder)
        return [path for path in self.all if path.parent == folder]

    def read(self, file: Path) -> str:
        group = self._group(file.parent)
        match file.name:
            case "cgroup.controllers":
                return " ".join(sorted(group.controllers))
            case "cgroup.subtree_control":
                return " ".join(sorted(group.given))
            case "cgroup.procs":
                return "".join(f"{pid}\n" for pid in sorted(group.procs))
            case "cgroup.events":
                return f"populated {int(bool(group.procs))}\nfrozen {int(group.frozen)}\n"
            case name:
                return self._file(group, name)

    def write(self, file: Path, text: str) -> None:
        group = self._group(file.parent)
        match file.name:
            case "cgroup.procs":
                if group.given:
                    raise OSError(errno.EBUSY, "Device or resource busy")
                pid = int(text) or os.getpid()
                for other in self.all.values():
                    other.procs.discard(pid)
                group.procs.add(pid)
            case "cgroup.subtree_control":
                self._hand_out(file.parent, group, text.split())
            case "cgroup.freeze":
                group.frozen = text == "1"
            case "cgroup.kill":
                group.procs.clear()
            case name:
                self._file(group, name)
                self._check(name, text)
                group.files[name] = text

    def _hand_out(self, folder: Path, group: _Group, words: list[str]) -> None:
        for word in words:
            sign, controller = word[0], word[1:]
            if sign == "+" and controller not in group.controllers:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory")
            if sign == "-" and any(controller in self.all[below].given for below in self.groups(folder)):
                raise OSError(errno.EBUSY, "Device or resource busy")
        if group.procs and any(word[0] == "+" for word in words):
            raise OSError(errno.EBUSY, "Device or resource busy")
        group.given |= {word[1:] for word in words if word[0] == "+"}
        group.given -= {word[1:] for word in words if word[0] == "-"}
        for below in self.groups(folder):
            fresh = _Group(set(group.given))
            fresh.procs, fresh.given, fresh.frozen = self.all[below].procs, self.all[below].given, False
            fresh.files |= {name: text for name, text in self.all[below].files.items() if name in fresh.files}
            self.all[below] = fresh

    @staticmethod
    def _check(name: str, text: str) -> None:
        if name == "cpu.max":
            quota, period = text.split()
            if int(quota) < 1000 or not 1000 <= int(period) <= 1_000_000:
                raise OSError(errno.EINVAL, "Invalid argument")
        elif text != "max" and int(text) < 0:
            raise OSError(errno.EINVAL, "Invalid argument")

    @staticmethod
    def _file(group: _Group, name: str) -> str:
        if name not in group.files:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return group.files[name]

    def _group(self, folder: Path) -> _Group:
        if folder not in self.all:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return self.all[folder]
