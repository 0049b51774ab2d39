"""One runtime a state folder: an advisory lock that the kernel drops when its holder dies."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from toka_runtime.errors import StoreError, StoreLocked


class StateLock:
    """Holds `folder/lock` until `release()`. The file holds the pid of its holder, for the message only: what counts
    is the lock, so a stale file never bars the way. The file is never removed (that would open a race)."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, folder: Path) -> StateLock:
        """Raises `StoreLocked` when another process (or another store of this one) holds the folder."""
        path = folder / "lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StoreError(
                f"cannot open {path}: {error.strerror}", hint="check the folder's owner and permissions"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise StoreError(
                    f"cannot lock {path}: {error.strerror}", hint="choose a state folder on a local disk"
                ) from error
            who = f"pid {holder}" if holder.isdigit() else "another process"
            raise StoreLocked(
                f"the state folder {folder} is in use by a runtime ({who})",
                hint="stop that runtime, attach to it, or choose another folder with --state-dir",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        """Safe to call twice."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1
