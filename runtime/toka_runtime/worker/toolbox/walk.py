"""Going through a folder without following links, in order, within bounds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from toka_runtime.worker.toolbox.beneath import open_folder
from toka_runtime.worker.toolbox.failure import ToolFailure
from toka_runtime.worker.toolbox.globs import compile_glob

MAX_ENTRIES = 200_000
"""More are not looked at; the result says so."""
SKIPPED = ".git"


@dataclass
class Walk:
    """Entries below one folder. Links are named, never followed; `.git` is left out."""

    root_fd: int
    base: str
    """Folder to begin at, relative to the root, "" for the root."""
    recursive: bool
    exclude: tuple[str, ...] = ()
    """Globs, relative to the root, that policy protects from reading."""
    seen: int = 0
    complete: bool = True
    unreadable: list[str] = field(default_factory=list[str])

    def entries(self) -> Iterator[tuple[str, str]]:
        """(path relative to the root, kind), kind one of `file`, `folder`, `link`, `other`. A folder's own entries come
        sorted, files and folders mixed, each folder before what is in it."""
        hidden = [compile_glob(glob, ignore_case=True) for glob in self.exclude]
        stack: list[Iterator[tuple[str, str]]] = [iter(self._folder(self.base))]
        while stack:
            entry = next(stack[-1], None)
            if entry is None:
                stack.pop()
                continue
            path, kind = entry
            if any(pattern.fullmatch(path) for pattern in hidden):
                continue
            self.seen += 1
            if self.seen > MAX_ENTRIES:
                self.complete = False
                return
            yield path, kind
            if kind == "folder" and self.recursive:
                stack.append(iter(self._folder(path)))

    def _folder(self, path: str) -> list[tuple[str, str]]:
        prefix = f"{path}/" if path else ""
        found: list[tuple[str, str]] = []
        try:
            with open_folder(self.root_fd, path or ".") as fd, os.scandir(fd) as entries:
                for entry in entries:
                    if entry.name == SKIPPED:
                        continue
                    found.append((prefix + entry.name, _kind(entry)))
                    if self.seen + len(found) > MAX_ENTRIES:
                        self.complete = False
                        break
        except ToolFailure:
            # The starting folder has to be there; one below it may have gone or be closed to us.
            if path == self.base:
                raise
            self.unreadable.append(path)
        found.sort()
        return found


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_symlink():
            return "link"
        if entry.is_dir(follow_symlinks=False):
            return "folder"
        return "file" if entry.is_file(follow_symlinks=False) else "other"
    except OSError:
        return "other"


def printable(path: str) -> str:
    """A file name as valid text: bytes that are no UTF-8 become `�`, line breaks visible."""
    return os.fsencode(path).decode("utf-8", "replace").replace("\n", "␊").replace("\r", "␍")
