"""What `toka-runtime exec` tells beside the command's own output: denials as they happen, a summary at the end."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any, Self

from toka_runtime.cli.denial_record import facts_of
from toka_runtime.errors import StoreError
from toka_runtime.protocol.capability import Denial
from toka_runtime.protocol.events import Event, LimitReached, OperationDenied


class Report:
    """Use as a context manager. `where`: a file that is appended to, `-` for standard error, None for nowhere; never
    standard output, which is the command's."""

    def __init__(self, where: str | None, agent: str) -> None:
        self.agent = agent
        self.count = 0
        self.cpu_s: float | None = None
        """Of the command and its descendants that have ended; None: it was ended by force."""
        self.peak_memory_bytes: int | None = None
        """Of the whole tree at once, its own shim included (a few MiB); None where no control group counts it."""
        self.largest_process_bytes: int | None = None
        self.protections: tuple[str, ...] = ()
        self.limit = ""
        """Name of the limit that ended it."""
        self._began = time.monotonic()
        self._owned = where not in (None, "-")
        if where is None:
            self._out = -1
        elif where == "-":
            self._out = sys.stderr.fileno()
        else:
            self._out = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._owned:
            os.close(self._out)

    async def emit(self, event: Event) -> None:
        """For the proxy and the limits. Raises StoreError when a line cannot be written."""
        if isinstance(event, OperationDenied):
            self.denied(event.denial, event.count)
        elif isinstance(event, LimitReached):
            self.limit = event.limit.value

    def denied(self, denial: Denial, count: int = 1) -> None:
        """One line, at once. Raises StoreError when it cannot be written."""
        self.count += count
        if self._out < 0:
            return
        line = {
            "at": datetime.now(UTC).isoformat(),
            "agent": self.agent,
            **facts_of(denial),
            "count": count,
        }
        try:
            os.write(self._out, _ascii(line))
        except OSError as error:
            raise StoreError(f"a denial could not be written: {error.strerror}") from None

    def summary(self, code: int) -> int:
        """One object on standard error. Returns `code`."""
        line = {
            "exit": code,
            "signal": code - 128 if 128 < code < 193 else None,
            "duration_s": round(time.monotonic() - self._began, 3),
            "cpu_s": self.cpu_s,
            "peak_memory_bytes": self.peak_memory_bytes,
            "largest_process_bytes": self.largest_process_bytes,
            "denials": self.count,
            "limit": self.limit or None,
            "protections": list(self.protections),
        }
        sys.stderr.flush()
        os.write(sys.stderr.fileno(), _ascii(line))
        return code


def _ascii(line: dict[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=True).encode() + b"\n"
