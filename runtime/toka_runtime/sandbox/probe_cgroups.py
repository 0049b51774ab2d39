"""Which control groups this process may make and limit. Groups are made, written to and removed; no limit of an
existing group is changed, and nothing is moved but a throw-away process."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

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


def mount_points(mounts: str) -> dict[str, tuple[str, str]]:
    """From the text of mountinfo: controller (`` for version 2) → (mount point, its root)."""
    found: dict[str, tuple[str, str]] = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2":
            found[""] = (fields[4], fields[3])
        elif kind[0] == "cgroup":
            found |= {option: (fields[4], fields[3]) for option in kind[2].split(",") if option in _V1_LIMITS}
    return found


def own_groups(text: str) -> dict[str, str]:
    """From the text of /proc/self/cgroup: controller (`` for version 2) → path."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        found |= dict.fromkeys(controllers.split(","), path)
    return found


def _own_folder(controller: str) -> Path | None:
    mounts = mount_points(Path("/proc/self/mountinfo").read_text())
    path = own_groups(Path("/proc/self/cgroup").read_text()).get(controller)
    if controller not in mounts or path is None:
        return None
    place, root = mounts[controller]
    if root != "/" and path.startswith(root):
        path = path.removeprefix(root)
    return Path(place + path)


def _version_2() -> dict[str, Seen]:
    own = _own_folder("")
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
                return {V2: Seen(True, f"{own} is delegated; its limits need the runtime in a leaf group"), **seen}
            return {V2: Seen(False, f"{own}: {error.strerror}", error.errno or 0), **seen}
    return {V2: Seen(True, f"{own} is delegated: {', '.join(_V2_LIMITS)} were set in a group below"), **seen}


def _version_1() -> dict[str, Seen]:
    seen: dict[str, Seen] = {}
    for controller, (file, value) in _V1_LIMITS.items():
        name = f"cgroup.v1.{controller}"
        own = _own_folder(controller)
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
