"""A patch between two folders without git: for hosts that have none."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toka_runtime.supervisor.workspace.folders import open_regular

_MAX_FILE_BYTES = 256 * 1024


def plain_diff(before: Path, after: Path, exclude: Path, max_bytes: int) -> tuple[str, bool]:
    """Unified diff of at most about `max_bytes`, and whether it was cut. Blocking: call it in a thread."""
    names = sorted(_files(before, exclude) | _files(after, exclude))
    parts: list[str] = []
    size = 0
    for name in names:
        for line in _compare(name, before / name, after / name):
            size += len(line.encode("utf-8", "replace"))
            if size > max_bytes:
                return "".join(parts), True
            parts.append(line)
    return "".join(parts), False


def _files(top: Path, exclude: Path) -> set[str]:
    """Regular files and links below `top`, relative; git folders are left out."""
    found: set[str] = set()
    for folder, folders, files in os.walk(top):
        here = Path(folder)
        linked = [name for name in folders if (here / name).is_symlink()]
        folders[:] = [name for name in folders if name != ".git" and here / name != exclude]
        found.update(str((here / name).relative_to(top)) for name in (*files, *linked))
    return found


@dataclass(frozen=True, slots=True)
class _Side:
    identity: str
    """Equal on both sides: nothing changed."""
    description: str
    lines: tuple[str, ...] | None
    """None: not shown by lines."""


_ABSENT = _Side("", "nothing", ())


def _compare(name: str, before: Path, after: Path) -> Iterator[str]:
    old, new = _look(before), _look(after)
    if old.identity == new.identity:
        return
    shown = name.encode("utf-8", "replace").decode()
    yield f"diff a/{shown} b/{shown}\n"
    if old.lines is None or new.lines is None:
        yield f"# was {old.description}, is {new.description}\n"
        return
    source = "/dev/null" if old is _ABSENT else f"a/{shown}"
    target = "/dev/null" if new is _ABSENT else f"b/{shown}"
    for line in difflib.unified_diff(old.lines, new.lines, source, target):
        yield line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"


def _look(path: Path) -> _Side:
    try:
        if path.is_symlink():
            link = f"a link to {path.readlink()}"
            return _Side(link, link, None)
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(_MAX_FILE_BYTES + 1)
            digest = hashlib.sha256(content)
            while chunk := file.read(_MAX_FILE_BYTES):
                digest.update(chunk)
    except OSError:
        return _ABSENT
    identity = f"{size} {digest.hexdigest()}"
    if size > _MAX_FILE_BYTES or b"\0" in content:
        kind = "a binary file" if b"\0" in content else "a file"
        return _Side(identity, f"{kind} of {size:,} bytes", None)
    return _Side(identity, "a file", tuple(content.decode("utf-8", "replace").splitlines(keepends=True)))
