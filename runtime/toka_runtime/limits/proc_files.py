"""Reading a process's files under /proc, cheaply: descriptors stay open and are read again with pread.

A descriptor of a process that has ended gives an error for ever, also when its number is used again: what is read is
always of the process that was opened.
"""

from __future__ import annotations

import os
import resource
from typing import NamedTuple

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class DescriptorBudget:
    """How many descriptors all meters together may keep open; beyond it files are opened for each reading."""

    def __init__(self, most: int | None = None) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._free = most if most is not None else min(soft, 65536) // 4

    def take(self) -> bool:
        if self._free <= 0:
            return False
        self._free -= 1
        return True

    def give_back(self) -> None:
        self._free += 1

    @property
    def free(self) -> int:
        return self._free


SHARED_BUDGET = DescriptorBudget()


class ProcFile:
    """One file, read as often as wanted."""

    def __init__(self, path: str, budget: DescriptorBudget) -> None:
        self._path = path
        self._budget = budget
        self._descriptor = -1
        self._dead = False

    def read(self) -> bytes:
        """b"" when the process has ended, or the file is none of ours to read."""
        if self._dead:
            return b""
        if self._descriptor < 0:
            try:
                descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self._dead = True
                return b""
            if not self._budget.take():
                try:
                    return _read_all(descriptor)
                finally:
                    os.close(descriptor)
            self._descriptor = descriptor
        return _read_all(self._descriptor)

    def close(self) -> None:
        self._dead = True
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._budget.give_back()


class Stat(NamedTuple):
    parent: int
    state: str
    cpu_ticks: int
    """User and system time, its own and that of children it has waited for."""
    threads: int
    started_ticks: int
    resident_bytes: int


def parse_stat(data: bytes) -> Stat | None:
    """None for an empty reading: the process is gone."""
    # The name in parentheses may hold anything, also spaces and parentheses.
    fields = data[data.rfind(b")") + 2 :].split(b" ")
    if len(fields) < 22:
        return None
    ticks = int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])
    resident = int(fields[21]) * _PAGE_BYTES
    return Stat(int(fields[1]), fields[0].decode(), ticks, int(fields[17]), int(fields[19]), resident)


def _read_all(descriptor: int) -> bytes:
    try:
        data = os.pread(descriptor, 16384, 0)
        if len(data) < 4000:
            # The kernel fills whole pages of such files: less than one is the end.
            return data
        while more := os.pread(descriptor, 65536, len(data)):
            data += more
    except OSError:
        return b""
    return data
