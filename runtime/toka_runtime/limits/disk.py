"""How much an agent's folders hold, without a quota of the file system: what was written tells when to look."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

MAX_DEPTH = 256
"""Folders below it are not looked into."""
LOOK_S = 5.0
"""So often it is looked at any rate: space can be taken without writing (fallocate)."""
_SHARE = 20
"""At most one part in so many of the time is spent looking; five times as much when the limit may be reached."""
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def measure(folders: Iterable[str]) -> tuple[int, bool]:
    """(bytes of storage taken, whether all could be looked into). Links are not followed, a file with several names
    counts once. Blocking; what comes and goes meanwhile may be missed."""
    total, complete = 0, True
    seen: set[tuple[int, int]] = set()
    for folder in folders:
        taken, whole = _measure(folder, seen)
        total, complete = total + taken, complete and whole
    return total, complete


def _measure(folder: str, seen: set[tuple[int, int]]) -> tuple[int, bool]:
    total, complete = 0, True
    open_folders: list[tuple[int, list[str]]] = []
    try:
        open_folders.append((os.open(folder, _FLAGS), ["."]))
        while open_folders:
            parent, names = open_folders[-1]
            if not names:
                os.close(open_folders.pop()[0])
                continue
            name = names.pop()
            if len(open_folders) > MAX_DEPTH:
                complete = False
                continue
            try:
                descriptor = os.open(name, _FLAGS, dir_fd=parent)
            except FileNotFoundError:
                continue
            except OSError:
                complete = False
                continue
            below: list[str] = []
            open_folders.append((descriptor, below))
            total += _entries(descriptor, below, seen)
    except OSError:
        return total, False
    finally:
        for descriptor, _ in open_folders:
            os.close(descriptor)
    return total, complete


def _entries(descriptor: int, below: list[str], seen: set[tuple[int, int]]) -> int:
    """Bytes of one folder's entries; its folders are added to `below`."""
    total = 0
    with os.scandir(descriptor) as entries:
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if found.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                if (found.st_dev, found.st_ino) in seen:
                    continue
                seen.add((found.st_dev, found.st_ino))
            total += found.st_blocks * 512
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.name)
    return total


class DiskGauge:
    """Looks when it may matter: seldom, and as soon as what the agent has written could have filled the limit."""

    def __init__(self, folders: Iterable[str], limit_bytes: int, *, growth_only: bool = False) -> None:
        """`growth_only`: what is there at the first look does not count (a folder of the operator's own)."""
        self._folders = tuple(folders)
        self._limit = limit_bytes
        self._growth_only = growth_only
        self._base = 0
        self._taken = 0
        self._written_then = 0
        self._next_at: float | None = None
        self._soonest_at = 0.0

    def used(self, now: float, written_bytes: int) -> int:
        """At the last look, below `limit_bytes` unless a look has shown otherwise. Blocking when it is time to look.
        `written_bytes`: by the agent's processes since they began."""
        due = self._next_at is None or now >= self._next_at
        possible = self.possible(written_bytes) > self._limit and now >= self._soonest_at
        if due or possible:
            self._look(now, written_bytes)
        return self._taken

    def possible(self, written_bytes: int) -> int:
        """The most that it can be by now, as far as it was written."""
        return self._taken + max(0, written_bytes - self._written_then)

    def _look(self, now: float, written_bytes: int) -> None:
        began = time.monotonic()
        found, complete = measure(self._folders)
        took = time.monotonic() - began
        if self._next_at is None and self._growth_only:
            self._base = found
        found = max(0, found - self._base)
        # Into what can't be looked everything may have gone that was written.
        self._taken = found if complete else max(found, self.possible(written_bytes))
        self._written_then = written_bytes
        self._next_at = now + max(LOOK_S, took * _SHARE)
        self._soonest_at = now + took * _SHARE / 5
