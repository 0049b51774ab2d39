"""A program on a pseudo-terminal of our own, read all the time; marks in its bytes are stamped when they are read."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

SIZE = (200, 50)
CHUNK = 1 << 16
SLOW_CHUNK = 512
"""Bytes read at a time from a terminal behind a slow link."""


class Program:
    """`output` grows as it is read. `link_bytes_s`: the terminal takes no more than so many bytes a second."""

    def __init__(self, argv: list[str], env: Mapping[str, str], link_bytes_s: float = 0.0) -> None:
        self.output = bytearray()
        self._link_bytes_s = link_bytes_s
        self._free_at = 0.0
        """When the link has carried what was read last."""
        self.started = time.monotonic()
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            told = {**os.environ, "COLORTERM": "truecolor", "TERM": "xterm-256color", **env}
            told.pop("NO_COLOR", None)
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
            os.execvpe(argv[0], argv, told)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))

    def read(self, patience_s: float) -> bool:
        """Whether something came in time."""
        deadline = time.monotonic() + patience_s
        if self._link_bytes_s:
            time.sleep(max(0.0, min(self._free_at - time.monotonic(), patience_s)))
            if time.monotonic() < self._free_at:
                return False
        if not select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self.master, SLOW_CHUNK if self._link_bytes_s else CHUNK)
        except OSError:
            return False
        if self._link_bytes_s:
            self._free_at = time.monotonic() + len(data) / self._link_bytes_s
        self.output += data
        # Synchronised output, as most terminals support it.
        if b"\x1b[?2026$p" in data:
            os.write(self.master, b"\x1b[?2026;2$y")
        return bool(data)

    def until(self, pattern: bytes, since: int = 0, patience_s: float = 60) -> float:
        """Seconds since the fork when `pattern` had been written after offset `since`."""
        searched = re.compile(pattern, re.DOTALL)
        deadline = time.monotonic() + patience_s
        while searched.search(self.output, max(0, since)) is None:
            if time.monotonic() > deadline or (not self.read(0.5) and not self.alive()):
                raise RuntimeError(f"{pattern!r} did not come: {bytes(self.output[-800:])!r}")
        return time.monotonic() - self.started

    def for_seconds(self, seconds: float) -> int:
        """Read for a while; bytes that came."""
        before, deadline = len(self.output), time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.read(left)
        return len(self.output) - before

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def alive(self) -> bool:
        with contextlib.suppress(OSError):
            return "\nState:\tZ" not in Path(f"/proc/{self.pid}/status").read_text()
        return False

    def cpu_s(self) -> float:
        """Of all its threads."""
        tasks = Path(f"/proc/{self.pid}/task")
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9

    def pss_mib(self) -> float:
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1]) / 1024  # type: ignore[index] # it is there

    def leave(self) -> float:
        """ctrl-q (and yes, if asked); seconds until it has ended."""
        for keys, patience_s in (("\x11", 1), ("\t\r", 20)):
            started = time.monotonic()
            self.type(keys)
            while self.alive() and time.monotonic() - started < patience_s:
                self.read(0.002)
            if not self.alive():
                break
        return time.monotonic() - started

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        os.close(self.master)


@contextlib.contextmanager
def running(*argv: str, env: Mapping[str, str] | None = None, link_bytes_s: float = 0.0) -> Iterator[Program]:
    program = Program(list(argv), env or {}, link_bytes_s)
    try:
        yield program
    finally:
        program.close()
