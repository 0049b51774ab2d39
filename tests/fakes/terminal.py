"""A program on a pseudo-terminal of ours: what it writes, byte by byte, and how it leaves the terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from typing import Any

PATIENCE_S = 40.0


class Terminal:
    """Start `argv` on a pty of `size` (columns, rows). Close it, or use it as a context."""

    def __init__(
        self, argv: Sequence[str], size: tuple[int, int] = (120, 40), env: dict[str, str] | None = None
    ) -> None:
        self._master, slave = pty.openpty()
        self.resize(*size)
        self.before: list[Any] = termios.tcgetattr(slave)
        self._slave = slave
        self.output = b""
        self._mark = 0
        self.process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=env,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for descriptor in (self._master, self._slave):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        self._mark = len(self.output)
        os.write(self._master, keys.encode())

    def read(self, patience_s: float) -> bool:
        """Read what is there within `patience_s`; False when nothing came."""
        ready, _, _ = select.select([self._master], [], [], patience_s)
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:
            return False
        self.output += data
        return bool(data)

    def expect(self, pattern: bytes, since_typed: bool = True) -> None:
        """Read until `pattern` was written (after the last `type`, when `since_typed`)."""
        deadline = time.monotonic() + PATIENCE_S
        start = self._mark if since_typed else 0
        while re.search(pattern, self.output[start:]) is None:
            assert time.monotonic() < deadline, f"{pattern!r} was not written: …{self.output[-2000:]!r}"
            assert self.read(0.5) or self.process.poll() is None, f"it ended: …{self.output[-2000:]!r}"

    def settle(self, quiet_s: float = 0.2) -> None:
        """Read until nothing comes for a while."""
        deadline = time.monotonic() + PATIENCE_S
        while self.read(quiet_s):
            assert time.monotonic() < deadline, "it does not settle"

    def wait(self) -> int:
        """Read until it ends; its exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end: …{self.output[-2000:]!r}"
            self.read(0.1)
        while self.read(0):
            pass
        return self.process.wait()

    def forget(self) -> None:
        """What was written so far is not looked at any more."""
        self.output, self._mark = b"", 0

    @property
    def echoes(self) -> bool:
        """Whether what is typed shows up by itself."""
        return bool(termios.tcgetattr(self._slave)[3] & termios.ECHO)

    def hang_up(self) -> None:
        """The terminal goes away."""
        os.close(self._slave)
        os.close(self._master)

    @property
    def restored(self) -> bool:
        """Whether the terminal's settings are what they were."""
        return termios.tcgetattr(self._slave) == self.before
