"""Textual's terminal driver with three things changed. It waits for keys instead of polling: a lone Esc is known at
once, leaving takes no time, an idle console wakes nobody. It says how slow the terminal is. A terminal that is gone
ends the console in order."""

from __future__ import annotations

import asyncio
import os
import selectors
import sys
import time
from codecs import getincrementaldecoder
from collections.abc import Callable
from typing import Any, TextIO

from textual._parser import ParseError
from textual._xterm_parser import XTermParser
from textual.app import App
from textual.drivers.linux_driver import LinuxDriver

from toka_console import skeleton


class TimedFile:
    """A terminal to write to, which knows how long the last write took: on a slow link, the time of a frame."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._gone = False
        self._writing_since: float | None = None
        self._last_s = 0.0
        self.written = 0
        """Bytes so far."""

    @property
    def delay_s(self) -> float:
        """Seconds that the last write took, or that the present one has taken so far."""
        since = self._writing_since
        return self._last_s if since is None else max(self._last_s, time.monotonic() - since)

    def write(self, text: str) -> int:
        # A lone surrogate cannot be encoded; nothing that is drawn may end the writer.
        data = text.encode("utf-8", "replace")
        self.written += len(data)
        self._timed(lambda: self._file.write(data.decode()))
        return len(text)

    def flush(self) -> None:
        self._timed(self._file.flush)

    def _timed(self, work: Callable[[], object]) -> None:
        if self._gone:
            return
        self._writing_since = started = time.monotonic()
        try:
            work()
        except (OSError, ValueError):
            # The terminal has gone. A writer that dies would leave the loop waiting for it for ever.
            self._gone = True
        finally:
            self._last_s = time.monotonic() - started
            self._writing_since = None

    def fileno(self) -> int:
        return self._file.fileno()


class ConsoleDriver(LinuxDriver):
    """Draws on stdout, so that stderr can be redirected."""

    def __init__(
        self, app: App[Any], *, debug: bool = False, mouse: bool = True, size: tuple[int, int] | None = None
    ) -> None:
        super().__init__(app, debug=debug, mouse=mouse, size=size)  # pyright: ignore[reportUnknownMemberType] # open in Textual
        self.terminal = TimedFile(sys.__stdout__ or sys.stdout)
        self._file: Any = self.terminal
        self._wake: tuple[int, int] = os.pipe()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start_application_mode(self) -> None:
        self._loop = asyncio.get_running_loop()
        super().start_application_mode()
        if skeleton.before is not None:
            # What is given back when it is stopped from outside is what was before the first picture.
            self.attrs_before = skeleton.before

    def disable_input(self) -> None:
        os.write(self._wake[1], b"x")
        super().disable_input()

    def run_input_thread(self) -> None:
        """Wait for input and dispatch events; asleep while there is neither input nor a pending escape sequence."""
        parser = XTermParser(self._debug)
        decode = getincrementaldecoder((sys.__stdin__ or sys.stdin).encoding)("replace").decode
        selector = selectors.DefaultSelector()
        selector.register(self.fileno, selectors.EVENT_READ)
        selector.register(self._wake[0], selectors.EVENT_READ)
        try:
            while not self.exit_event.is_set():
                due = parser._timeout_time  # pyright: ignore[reportPrivateUsage] # there is no public way to ask
                ready = selector.select(None if due is None else max(0.0, due - time.monotonic()))
                if any(key.fd == self._wake[0] for key, _ in ready):
                    os.read(self._wake[0], 16)
                    break
                if ready:
                    data = self._read()
                    if not data:
                        break
                    for message in parser.feed(decode(data)):
                        self.process_message(message)
                for message in parser.tick():
                    self.process_message(message)
        finally:
            selector.close()
            try:
                for _ in parser.feed(""):
                    pass
            except (EOFError, ParseError):
                pass

    def _read(self) -> bytes:
        """What was typed; nothing more will come after b"" (the terminal has gone)."""
        try:
            data = os.read(self.fileno, 4096)
        except OSError:
            data = b""
        stop = getattr(self._app, "stop", None)
        if not data and self._loop is not None and stop is not None:
            self._loop.call_soon_threadsafe(stop)
        return data
