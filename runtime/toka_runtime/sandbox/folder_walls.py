"""Walls inside an agent's own folder, as mounts of its view: what it may not write cannot be changed in any way there,
modes and times included, and what is protected cannot be read either. Standard library only (it runs between fork and
work, after the view is built and before privileges are dropped).

Walls: {"root": path, "writable": [folders], "read_only": [places], "hidden": [places]}; places are relative to `root`,
"" is all of it. What lies in the folder may have been made by an attacker: each place is opened without following any
link, and the mount goes onto what was opened.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from toka_runtime.sandbox.namespaces import bind_onto, make_read_only
from toka_runtime.worker.toolbox.beneath import components, open_beneath

Walls = dict[str, Any]
_BLANK = "/tmp/.blank"  # noqa: S108  # of the view, where nobody runs yet


def build_walls(walls: Walls, owner: int | None) -> None:
    """Missing writable folders are made, as `owner`'s (None: this process's user). Raises OSError where something that
    is there cannot be walled off; what is gone needs no wall."""
    root = os.open(str(walls["root"]), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        writable = [str(place) for place in walls["writable"]]
        if writable and "" not in writable:
            for place in writable:
                _keep_writable(root, place, owner)
            make_read_only(_name(root))
        for place in walls["read_only"]:
            _make_read_only(root, str(place))
        for place in walls["hidden"]:
            _hide(root, str(place))
    finally:
        os.close(root)


def _keep_writable(root: int, place: str, owner: int | None) -> None:
    """A mount of its own for the folder, which stays as it is when the rest becomes read-only. Where a link or a file
    is in its place there is nothing to write."""
    try:
        make_folder(root, place, owner)
        with _opened(root, place, os.O_DIRECTORY) as found:
            bind_onto(_name(found), _name(found))
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.ENOENT):
            raise


def make_folder(root: int, place: str, owner: int | None) -> None:
    parts = components(place)
    for depth, name in enumerate(parts):
        with _opened(root, "/".join(parts[:depth]), os.O_DIRECTORY) as parent:
            try:
                os.mkdir(name, dir_fd=parent)
            except FileExistsError:
                continue
            if owner is not None:
                made = os.open(name, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
                os.fchown(made, owner, owner)
                os.close(made)


def _make_read_only(root: int, place: str) -> None:
    with existing(root, place) as found:
        if found is not None:
            bind_onto(_name(found), _name(found))
    with existing(root, place) as mounted:
        if mounted is not None:
            make_read_only(_name(mounted))


def _hide(root: int, place: str) -> None:
    """Behind something empty of the same kind that nobody may open."""
    with existing(root, place) as found:
        if found is None:
            return
        if stat.S_ISDIR(os.fstat(found).st_mode):
            os.mkdir(_BLANK, 0)  # noqa: PTH102  # no pathlib between fork and exec; likewise below
            bind_onto(_BLANK, _name(found))
            os.rmdir(_BLANK)  # noqa: PTH106
        else:
            os.close(os.open(_BLANK, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0))
            bind_onto(_BLANK, _name(found))
            os.unlink(_BLANK)  # noqa: PTH108
    with existing(root, place) as mounted:
        if mounted is not None:
            make_read_only(_name(mounted))


@contextmanager
def existing(root: int, place: str) -> Generator[int | None]:
    """What lies there, opened as a path; None where nothing does. Raises OSError (ELOOP) for a link: none was there
    when the walls were planned, so somebody has put it in place of what they protect."""
    try:
        found = open_beneath(root, components(place), os.O_PATH)
    except FileNotFoundError:
        yield None
        return
    try:
        # Without openat2, O_PATH opens the link itself.
        if stat.S_ISLNK(os.fstat(found).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), place)
        yield found
    finally:
        os.close(found)


@contextmanager
def _opened(root: int, place: str, flags: int) -> Generator[int]:
    found = open_beneath(root, components(place), os.O_PATH | flags)
    try:
        yield found
    finally:
        os.close(found)


def _name(descriptor: int) -> str:
    """A path to exactly what is open, whatever has been put in its place since."""
    return f"/proc/self/fd/{descriptor}"
