"""Which control groups this process may make and limit. Groups are made, written to and removed; no limit of an
existing group is changed, and nothing is moved but a throw-away process."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from toka_runtime.limits.cgroup_control import members
from toka_runtime.limits.cgroup_files import own_places
from toka_runtime.limits.enforcer import is_branch
from toka_runtime.sandbox.probe_children import Seen, attempts
from toka_runtime.sandbox.probe_model import Check

V2 = "cgroup.v2"
_V2_LIMITS = {"memory.max": "1073741824", "pids.max": "100", "cpu.max": "50000 100000"}
_V1_LIMITS = {
    "memory": ("memory.limit_in_bytes", "1073741824"),
    "pids": ("pids.max", "100"),
    "cpu": ("cpu.cfs_quota_us", "50000"),
    "freezer": ("freezer.state", "FROZEN"),
}


def cgroups() -> list[Check]:
    return [*attempts(V2, _version_2), *attempts("cgroup.v1", _version_1)]


def _version_2() -> dict[str, Seen]:
    own = own_places().v2
    if own is None:
        return {V2: Seen(False, "not mounted", errno.ENOENT)}
    offered = (own / "cgroup.controllers").read_text().split()
    missing = [name for name in ("memory", "pids", "cpu") if name not in offered]
    with _group(own) as group:
        seen = {"cgroup.v2.freeze": _frozen(group)}
        if missing:
            detail = f"its controllers are elsewhere: {own}/cgroup.controllers lacks {', '.join(missing)}"
            return {V2: Seen(False, detail, errno.ENOENT), **seen}
        try:
            # Alters nothing that is not altered back: only what was not on is switched on, and off again.
            on = (own / "cgroup.subtree_control").read_text().split()
            new = [name for name in ("memory", "pids", "cpu") if name not in on]
            if new:
                (own / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in new))
            try:
                for name, value in _V2_LIMITS.items():
                    (group / name).write_text(value)
            finally:
                if new:
                    (own / "cgroup.subtree_control").write_text(" ".join(f"-{name}" for name in new))
        except OSError as error:
            if error.errno == errno.EBUSY:
                # What the kernel says after it has checked the right to do it and that the controllers are there.
                return {V2: _shared(own), **seen}
            return {V2: Seen(False, f"{own}: {error.strerror}", error.errno or 0), **seen}
    return {V2: Seen(True, f"{own} is delegated: {', '.join(_V2_LIMITS)} were set in a group below"), **seen}


def _shared(own: Path) -> Seen:
    """A group with processes hands out no controllers: the runtime moves aside, if they are all its own."""
    others = set(members(own)) - {os.getpid(), os.getppid()}
    if others and not is_branch(own.name):
        return Seen(False, f"{own} holds other processes, too: {len(others)}", errno.EBUSY)
    return Seen(True, f"{own} is delegated; the runtime moves into a group below, and its agents beside it")


def _version_1() -> dict[str, Seen]:
    seen: dict[str, Seen] = {}
    places = own_places().v1
    for controller, (file, value) in _V1_LIMITS.items():
        name = f"cgroup.v1.{controller}"
        own = places.get(controller)
        if own is None:
            seen[name] = Seen(False, "not mounted", errno.ENOENT)
            continue
        try:
            with _group(own) as group:
                (group / file).write_text(value)
                if controller == "freezer":
                    (group / file).write_text("THAWED")
                seen[name] = Seen(True, f"{file} was set in a group below {own}")
        except OSError as error:
            seen[name] = Seen(False, f"{own}: {error.strerror}", error.errno or 0)
    return seen


@contextmanager
def _group(own: Path) -> Generator[Path]:
    group = own / f"toka-probe-{os.getpid()}"
    group.mkdir()
    try:
        yield group
    finally:
        with suppress(OSError):
            group.rmdir()


def _frozen(group: Path) -> Seen:
    """Freeze a process of our own and let it go."""
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    try:
        (group / "cgroup.procs").write_text(str(pid))
        (group / "cgroup.freeze").write_text("1")
        (group / "cgroup.freeze").write_text("0")
        return Seen(True, "cgroup.freeze was written for a process of a group below")
    except OSError as error:
        return Seen(False, f"{group.name}: {error.strerror}", error.errno or 0)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
