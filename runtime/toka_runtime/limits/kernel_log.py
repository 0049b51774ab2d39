"""Whom the kernel has killed for want of memory, in its own words: /dev/kmsg, where this process may read it."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from threading import Lock

from toka_runtime.protocol.limits import Culprit

_CHOSEN = re.compile(r"task_memcg=([^,]*),task=(.*),pid=(\d+),uid=\d+$")
_KILLED = re.compile(r"Killed process (\d+) \(.*anon-rss:(\d+)kB, file-rss:\d+kB, shmem-rss:(\d+)kB")
_KEPT = 256


class KernelLog:
    """Only what comes after it was opened. Thread-safe."""

    def __init__(self, path: str = "/dev/kmsg") -> None:
        self._descriptor = -1
        self._lock = Lock()
        self._chosen: dict[str, Culprit] = {}
        """The last part of a group's path (the run's own group) → its newest victim."""
        with suppress(OSError):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.lseek(self._descriptor, 0, os.SEEK_END)
                self._record()
            except OSError:
                # It may be opened and not read where the kernel's messages are restricted.
                self.close()

    @property
    def readable(self) -> bool:
        return self._descriptor >= 0

    def killed(self, group: str) -> Culprit | None:
        """The newest victim of this group, by the last two parts of its path; told once."""
        with self._lock:
            while (line := self._next()) is not None:
                self._heard(line)
            return self._chosen.pop(group, None)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _next(self) -> str | None:
        while (record := self._record()) is not None:
            head, _, text = record.decode(errors="replace").partition(";")
            priority = head.partition(",")[0]
            # A process may write here what it likes; the kernel's own messages have facility 0.
            if priority.isdecimal() and int(priority) < 8:
                return text.partition("\n")[0]
        return None

    def _record(self) -> bytes | None:
        while self._descriptor >= 0:
            try:
                return os.read(self._descriptor, 8192)
            except BlockingIOError:
                return None
            except BrokenPipeError:
                # Overwritten before it was read: go on with the oldest that is left.
                continue
        return None

    def _heard(self, line: str) -> None:
        if (found := _CHOSEN.search(line)) is not None:
            group = "/".join(found[1].split("/")[-2:])
            self._chosen[group] = Culprit(pid=int(found[3]), command=found[2], known_by="kernel")
            while len(self._chosen) > _KEPT:
                del self._chosen[next(iter(self._chosen))]
        elif (found := _KILLED.search(line)) is not None:
            memory = (int(found[2]) + int(found[3])) * 1024
            for group, culprit in self._chosen.items():
                if culprit.pid == int(found[1]):
                    self._chosen[group] = culprit.model_copy(update={"memory_bytes": memory})
