"""What a forked child keeps open. Standard library only."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

SPARE = 200
"""Numbers from here on are never a target of `keep_only`."""


def keep_only(*kept: int, errors_to: int | None = None, spare: int = -1) -> None:
    """Move `kept` to 3, 4, … in this order (closed on execve) and close everything else above 2, but for `spare`, which
    keeps its number (from SPARE on). Standard error goes to `errors_to`; standard input and output become /dev/null,
    and standard error too when `errors_to` is None."""
    # First out of the way: a source may have the number of another's target.
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, SPARE) for descriptor in kept]
    errors = None if errors_to is None else fcntl.fcntl(errors_to, fcntl.F_DUPFD_CLOEXEC, SPARE)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(null if errors is None else errors, 2)
    for number, descriptor in enumerate(high, 3):
        os.dup2(descriptor, number, inheritable=False)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  # no pathlib in the fork server
        if (number := int(name)) >= 3 + len(kept) and number != spare:
            # Closed already: the one that listed this folder.
            with suppress(OSError):
                os.close(number)
