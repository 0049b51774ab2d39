"""Looks at each changed name before git does: what can be taken into a snapshot, what is gone, what is left out."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

MAX_FILE_BYTES = 100 * 1024 * 1024
"""Larger files stay in the folder but are not taken into commits or diffs."""

Nested = Literal["skip", "include"]
"""What happens with the files of a git repository that lies inside the tree."""


@dataclass(slots=True)
class Changes:
    add: list[bytes] = field(default_factory=list[bytes])
    remove: list[bytes] = field(default_factory=list[bytes])
    nested: list[bytes] = field(default_factory=list[bytes])
    """Files of nested repositories, to be added unless they are ignored."""
    left_out: tuple[str, ...] = ()


def sort_out(tree: Path, listed: bytes, nested: Nested, max_file_bytes: int = MAX_FILE_BYTES) -> Changes:
    """`listed` as git lists names with `-z`: relative, and with a slash at the end for a nested repository. Looks at
    every one: call it in a thread."""
    names = sorted({name for name in listed.split(b"\0") if name})
    top = os.fsencode(tree)
    changes = Changes()
    left_out: list[str] = []
    real: dict[bytes, bool] = {b"": True}
    for name in names:
        if name.endswith(b"/"):
            if nested == "include":
                changes.nested += _files_of(top, name)
            else:
                left_out.append(f"{os.fsdecode(name)} (a git repository of its own)")
            continue
        found = _lstat(top, name, real)
        if found is not None and stat.S_ISDIR(found.st_mode) and _lstat(top, name + b"/.git", real) is not None:
            # A submodule, or something in its place: what the commit before has stays.
            left_out.append(f"{os.fsdecode(name)} (a submodule)")
        elif found is None or not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
            # Gone, or replaced by a folder, a pipe, a socket: what was there before is no more.
            changes.remove.append(name)
        elif found.st_size > max_file_bytes:
            left_out.append(f"{os.fsdecode(name)} ({found.st_size:,} bytes)")
        elif stat.S_ISREG(found.st_mode) and not os.access(os.path.join(top, name), os.R_OK):  # noqa: PTH118  # bytes
            left_out.append(f"{os.fsdecode(name)} (not readable)")
        else:
            changes.add.append(name)
    changes.left_out = tuple(left_out)
    return changes


def _lstat(top: bytes, name: bytes, real: dict[bytes, bool]) -> os.stat_result | None:
    """None when it is not there, or only through a link on the way."""
    parent = name.rpartition(b"/")[0]
    if not _is_real_folder(top, parent, real):
        return None
    try:
        return os.lstat(os.path.join(top, name))  # noqa: PTH118  # names are bytes: pathlib has no such paths
    except OSError:
        return None


def _is_real_folder(top: bytes, name: bytes, real: dict[bytes, bool]) -> bool:
    if name not in real:
        found = _lstat(top, name, real)
        real[name] = found is not None and stat.S_ISDIR(found.st_mode)
    return real[name]


def _files_of(top: bytes, folder: bytes) -> list[bytes]:
    """Regular files and links below `folder`, without git's own folders; links are not followed."""
    found: list[bytes] = []
    for path, folders, files in os.walk(os.path.join(top, folder)):  # noqa: PTH118  # bytes
        folders[:] = sorted(name for name in folders if name != b".git")
        below = os.path.relpath(path, top)
        for name in sorted([*files, *folders]):
            entry = _lstat(path, name, {b"": True})
            if entry is not None and name != b".git" and (stat.S_ISREG(entry.st_mode) or stat.S_ISLNK(entry.st_mode)):
                found.append(below + b"/" + name)
    return found
