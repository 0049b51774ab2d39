"""What one try of a probe has shown, and how it is heard. Standard library only: it is used inside, too."""

from __future__ import annotations

import os
import select
import time
from typing import NamedTuple


class Seen(NamedTuple):
    """What one try has shown."""

    ok: bool
    detail: str
    number: int = 0
    """The errno behind it, if any."""


def refused(error: OSError) -> Seen:
    """An error as what was seen."""
    number = error.errno or 0
    return Seen(False, error.strerror or str(error), number)


def read_all(descriptor: int, deadline_s: float) -> str | None:
    """Up to the end of file; None when that has not come in time."""
    until = time.monotonic() + deadline_s
    text = bytearray()
    while True:
        left = until - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            return None
        data = os.read(descriptor, 65536)
        if not data:
            return text.decode(errors="replace")
        text += data
