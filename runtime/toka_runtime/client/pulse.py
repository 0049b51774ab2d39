"""How far away a host is, and how much its clock is off: pings over the channel, answered before any event."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta
from typing import NamedTuple

from toka_runtime.clock import Clock
from toka_runtime.errors import ProtocolError
from toka_runtime.protocol.wire import Frame

KEPT = 8
"""Samples that are remembered: the quickest of them tells the clocks best (RFC 5905, clock filter)."""


class _Sample(NamedTuple):
    round_trip_s: float
    skew_s: float


class Pulse:
    """Of one link; it outlives the link's connections."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._number = 0
        self._sent_at = 0.0
        self._samples: deque[_Sample] = deque(maxlen=KEPT)

    def ping(self) -> Frame:
        self._number += 1
        self._sent_at = self._clock.monotonic()
        return {"t": "ping", "c": self._number}

    def pong(self, frame: Frame) -> None:
        """An answer; one to an earlier ping tells nothing. Raises ProtocolError."""
        if frame.get("c") != self._number:
            return
        try:
            theirs = datetime.fromisoformat(str(frame.get("now")))
            round_trip_s = self._clock.monotonic() - self._sent_at
            ours = self._clock.now() - timedelta(seconds=round_trip_s / 2)
            self._samples.append(_Sample(round_trip_s, (theirs - ours).total_seconds()))
        except (TypeError, ValueError, OverflowError) as error:
            raise ProtocolError("a pong without a time") from error

    @property
    def round_trip_s(self) -> float | None:
        """The last one."""
        return self._samples[-1].round_trip_s if self._samples else None

    @property
    def skew_s(self) -> float | None:
        """How much the host's clock is ahead of ours, to within half of `least_round_trip_s`."""
        return min(self._samples).skew_s if self._samples else None

    @property
    def least_round_trip_s(self) -> float | None:
        return min(self._samples).round_trip_s if self._samples else None
