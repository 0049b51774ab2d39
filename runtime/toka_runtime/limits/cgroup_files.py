"""The control group file system: where this process stands in it, and the few things that are done to it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

V1_CONTROLLERS = ("memory", "pids", "cpu", "freezer")


class CgroupFiles:
    """Group folders and their files, as the kernel shows them. All methods raise OSError."""

    def make(self, folder: Path) -> None:
        folder.mkdir()

    def remove(self, folder: Path) -> None:
        folder.rmdir()

    def read(self, file: Path) -> str:
        # Plain calls: a hundred agents are read four times a second.
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, 65536).decode()
        finally:
            os.close(descriptor)

    def write(self, file: Path, text: str) -> None:
        # One write, and no creation: a file that is not there is a controller that is not there.
        descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def groups(self, folder: Path) -> list[Path]:
        """The groups right below."""
        with os.scandir(folder) as entries:
            return [folder / entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


KERNEL = CgroupFiles()


class Places(NamedTuple):
    """The groups that this process is in."""

    v2: Path | None
    v1: dict[str, Path]
    """Controller (of `V1_CONTROLLERS`) → folder."""


def own_places(proc: str = "/proc/self") -> Places:
    """Raises OSError where there is no such file system."""
    mounts = mount_points(Path(proc, "mountinfo").read_text())
    found: dict[str, Path] = {}
    for controller, path in own_groups(Path(proc, "cgroup").read_text()).items():
        if controller not in mounts:
            continue
        place, root = mounts[controller]
        if root != "/" and path.startswith(root):
            path = path.removeprefix(root)
        folder = Path(place + path)
        if folder.is_dir():
            found[controller] = folder
    return Places(found.pop("", None), found)


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
            found |= {option: (fields[4], fields[3]) for option in kind[2].split(",") if option in V1_CONTROLLERS}
    return found


def own_groups(text: str) -> dict[str, str]:
    """From the text of /proc/self/cgroup: controller (`` for version 2) → path."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        found |= dict.fromkeys(controllers.split(","), path)
    return found


def counters(text: str) -> dict[str, int]:
    """Of a file with a name and a number in each line, such as `memory.events`."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.isdecimal():
            found[name] = int(value)
    return found
