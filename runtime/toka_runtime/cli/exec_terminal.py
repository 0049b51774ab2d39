"""The command's own terminal: a new one, relayed to the caller's, which the command never holds.

With the caller's own it could change the settings that outlive it and read what is typed next.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import signal
import termios
import tty
from contextlib import suppress
from typing import Any, Self

_CHUNK = 65536
_DRAIN_S = 1.0


class Terminal:
    """Only within a running loop, as a context manager. `descriptors` are for the command: the caller's own, and the
    new terminal where these are one."""

    def __init__(self, mine: tuple[int, int, int] = (0, 1, 2)) -> None:
        terminals = [number for number in mine if os.isatty(number)]
        self.descriptors = mine
        self.used = bool(terminals)
        if not terminals:
            return
        self._loop = asyncio.get_running_loop()
        self._outside = terminals[0]
        self._screen = next((number for number in reversed(terminals) if number != mine[0]), terminals[0])
        self._keys = mine[0] if mine[0] in terminals else None
        self._settings: list[Any] | None = None
        self._master, self._slave = os.openpty()
        self.descriptors = tuple(self._slave if number in terminals else number for number in mine)

    def __enter__(self) -> Self:
        if not self.used:
            return self
        termios.tcsetattr(self._slave, termios.TCSANOW, termios.tcgetattr(self._outside))
        self._resize()
        self._loop.add_signal_handler(signal.SIGWINCH, self._resize)
        self._loop.add_reader(self._master, self._show)
        if self._keys is not None and os.tcgetpgrp(self._keys) == os.getpgrp():
            self._settings = termios.tcgetattr(self._keys)
            # What is typed, Ctrl-C too, is for the command's terminal to understand.
            tty.setraw(self._keys, termios.TCSADRAIN)
            self._loop.add_reader(self._keys, self._typed, self._keys)
        return self

    def __exit__(self, *_: object) -> None:
        if not self.used:
            return
        self._loop.remove_signal_handler(signal.SIGWINCH)
        self._loop.remove_reader(self._master)
        os.close(self._slave)
        # The last that was written, until the kernel says that nobody is left.
        while select.select([self._master], [], [], _DRAIN_S)[0] and self._show():
            pass
        os.close(self._master)
        if self._keys is not None and self._settings is not None:
            self._loop.remove_reader(self._keys)
            termios.tcsetattr(self._keys, termios.TCSADRAIN, self._settings)

    def _resize(self) -> None:
        with suppress(OSError):
            size = fcntl.ioctl(self._outside, termios.TIOCGWINSZ, b"\0" * 8)
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def _show(self) -> bool:
        try:
            data = os.read(self._master, _CHUNK)
        except OSError:
            data = b""
        _write_all(self._screen, data)
        return bool(data)

    def _typed(self, keys: int) -> None:
        data = os.read(keys, 1024)
        if not data:
            self._loop.remove_reader(keys)
        _write_all(self._master, data)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
