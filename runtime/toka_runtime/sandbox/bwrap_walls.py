"""The walls of `folder_walls.py`, made by bwrap: it takes paths, so what is mounted is looked at again from the inside
before anything runs. Standard library only."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import Any

from toka_runtime.sandbox.folder_walls import Walls, existing, make_folder

Built = dict[str, list[list[Any]]]
"""What `check_walls` is to find: {"writable" | "read_only" | "hidden": [[place, device, inode]]}."""
_UNOPENABLE = "/dev/null"
"""On a mount without devices nobody opens it."""


def wall_arguments(walls: Walls, owner: int | None) -> tuple[list[str], Built]:
    """For `bwrap`, behind the mount of the folder itself. Missing writable folders are made, as `owner`'s (None: this
    process's user)."""
    top = str(walls["root"])
    root = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    words: list[str] = []
    built: Built = {"writable": [], "read_only": [], "hidden": []}
    try:
        if _scoped(walls):
            words += ["--remount-ro", top]
            for place in walls["writable"]:
                # Where a link or a file is in its place there is nothing to write.
                with suppress(OSError):
                    make_folder(root, place, owner)
                    if _note(root, place, built["writable"], folder=True):
                        words += ["--bind", f"{top}/{place}", f"{top}/{place}"]
        for place in walls["read_only"]:
            if _note(root, place, built["read_only"]):
                words += ["--ro-bind", f"{top}/{place}", f"{top}/{place}"]
        for place in walls["hidden"]:
            if mode := _note(root, place, built["hidden"]):
                path = f"{top}/{place}"
                empty = ["--perms", "0000", "--tmpfs", path, "--remount-ro", path]
                words += empty if stat.S_ISDIR(mode) else ["--ro-bind", _UNOPENABLE, path]
    finally:
        os.close(root)
    return words, built


def check_walls(walls: Walls, built: Built) -> None:
    """Inside. Raises OSError when a mount is not what it was meant to be: somebody has put a link in its place."""
    root = os.open(str(walls["root"]), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _scoped(walls):
            _expect(_is_read_only(root), "")
        for kind, places in built.items():
            for place, *identity in places:
                with existing(root, place) as found:
                    same = found is not None and _identity(found) == identity
                    walled = found is not None and (kind == "writable" or _is_read_only(found))
                _expect(walled and same is (kind != "hidden"), place)
    finally:
        os.close(root)


def _scoped(walls: Walls) -> bool:
    """Only parts of the folder may be written."""
    return bool(walls["writable"]) and "" not in walls["writable"]


def _note(root: int, place: str, places: list[list[Any]], *, folder: bool = False) -> int:
    """Add what is at `place`, whose mode it returns; 0 where nothing is."""
    with existing(root, place) as found:
        mode = 0 if found is None else os.fstat(found).st_mode
        if found is None or (folder and not stat.S_ISDIR(mode)):
            return 0
        places.append([place, *_identity(found)])
        return mode


def _identity(descriptor: int) -> list[int]:
    found = os.fstat(descriptor)
    return [found.st_dev, found.st_ino]


def _is_read_only(descriptor: int) -> bool:
    return bool(os.fstatvfs(descriptor).f_flag & os.ST_RDONLY)


def _expect(holds: bool, place: str) -> None:
    if not holds:
        raise OSError(f"the wall around {place or 'the folder'} is not the one that was asked for")
