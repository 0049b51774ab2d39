"""A state folder as it would be after `kill -9` at this moment, without killing the test."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from toka_runtime.store.schema import DATABASE


class Crash:
    """`freeze` while a runtime works; `thaw` once it is closed: then its orderly end has never been."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._kept = state_dir.with_name(f"{state_dir.name}-frozen")

    def freeze(self) -> None:
        shutil.copytree(
            self._state_dir, self._kept, symlinks=True, ignore=shutil.ignore_patterns(f"{DATABASE}*", "*.sock")
        )
        with (
            closing(sqlite3.connect(self._state_dir / DATABASE)) as source,
            closing(sqlite3.connect(self._kept / DATABASE)) as target,
        ):
            source.backup(target)

    def thaw(self) -> None:
        shutil.rmtree(self._state_dir)
        self._kept.rename(self._state_dir)
