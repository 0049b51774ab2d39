"""Into the control groups that hold an agent's limits. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Iterable

from toka_runtime.sandbox.namespaces import PrimitiveMissing


def enter(groups: Iterable[str], pid: int = 0) -> None:
    """Move this process, or `pid`; what it forks from now on is counted there, too. Raises PrimitiveMissing: half a set
    of limits is none."""
    for group in groups:
        try:
            descriptor = os.open(f"{group}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, str(pid).encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise PrimitiveMissing(error.errno or 0, f"control group {group}") from error
