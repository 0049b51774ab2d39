"""The settings file while the console runs: read at the start, and again whenever it has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toka_console.app import ConsoleApp
    from toka_console.settings import Loaded

Stamp = tuple[int, int, int]
"""Of a file: when it was changed (ns), its size in bytes, its inode."""


class Preferences:
    """`file` None: no settings. The disk is only touched in threads: a home folder may be on a slow network."""

    def __init__(self, app: ConsoleApp, file: Path | None) -> None:
        self._app = app
        self._file = file
        self._stamp: Stamp | None = None
        self._busy = False

    async def load(self) -> None:
        """Read for the first time. With a mistake in the file, the defaults are used."""
        await self._read("defaults are used")

    async def reload(self) -> None:
        """Read again. With a mistake in the file, everything stays as it is."""
        if self._file is None:
            self._app.say("there is no settings file to read", "warn")
        elif not self._busy:
            self._busy = True
            try:
                if await self._read("the old settings stay"):
                    self._app.say("settings reloaded")
            finally:
                self._busy = False

    async def watch(self) -> None:
        """Read again if the file is another one than before."""
        if self._file is not None and not self._busy and await asyncio.to_thread(_stamp, self._file) != self._stamp:
            await self.reload()

    async def tell(self, work: Awaitable[str]) -> None:
        """Read or write another file of the operator's, and say what went wrong, if anything did."""
        if problem := await work:
            self._app.say(problem, "warn")

    async def _read(self, otherwise: str) -> bool:
        from toka_console import settings

        file = self._file
        if file is None:
            return False
        # First the stamp: what is written while the file is read is seen by the next look.
        before, self._stamp = self._stamp, await asyncio.to_thread(_stamp, file)
        if self._stamp is None and before is not None:
            self._app.say(f"{file} is gone; {otherwise}", "warn")
            return False
        loaded = await asyncio.to_thread(settings.load, file)
        if loaded.problems:
            more = f" (+{len(loaded.problems) - 1} more)" if len(loaded.problems) > 1 else ""
            self._app.say(f"{loaded.problems[0].text(file)}{more}; {otherwise}", "warn")
            return False
        self._take(loaded)
        return True

    def _take(self, loaded: Loaded) -> None:
        app = self._app
        # A theme chosen by `:theme` stays as long as the file does not ask for another than before.
        other_theme = loaded.settings.theme != app.session.settings.theme
        app.session.settings, app.keymap = loaded.settings, loaded.keymap
        app.use_theme(loaded.settings.theme if other_theme else app.session.theme)


def _stamp(file: Path) -> Stamp | None:
    """None: there is no file that can be looked at."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
