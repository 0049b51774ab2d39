"""What one call was refused, told to the runtime as it happens: the first of a kind at once, repeated ones as a count.
Standard library only."""

from __future__ import annotations

import select
import socket
from contextlib import suppress

from toka_runtime.sandbox.observer_rules import Refused
from toka_runtime.worker.frames import FrameSocket

DISTINCT = 256
"""So many different refusals of one call are told each for itself; the others as one count for each kind and rule."""


class Report:
    """Frames {"kind", "target", "rule", "count"}; a target of "" stands for many different ones."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._frames = FrameSocket(sock)
        self._told: set[Refused] = set()
        self._counts: dict[Refused, int] = {}

    @property
    def waiting(self) -> bool:
        """Something has been counted that was not told."""
        return bool(self._counts)

    def add(self, refused: Refused) -> None:
        if refused not in self._told:
            if len(self._told) < DISTINCT:
                self._told.add(refused)
                self._tell(refused, 1)
                return
            refused = refused._replace(target="")
        self._counts[refused] = self._counts.get(refused, 0) + 1

    def tell_again(self) -> None:
        """What was counted, unless the runtime is slow to read: whoever is observed must not wait for it."""
        if select.select([], [self._socket], [], 0)[1]:
            self.finish()

    def finish(self) -> None:
        counts, self._counts = self._counts, {}
        for refused, count in counts.items():
            self._tell(refused, count)

    def _tell(self, refused: Refused, count: int) -> None:
        # Without a runtime nobody wants to know, and the shim is about to end all this.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._frames.write({**refused._asdict(), "count": count})
