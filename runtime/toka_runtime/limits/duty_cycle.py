"""Holds processor time where the kernel does not: the tree runs and stands still in turn. Pure."""

from __future__ import annotations

BURST_S = 0.1
"""An agent that has used less may use so much of its share at once."""
SLICE_S = 0.05
"""What it must have earned before it runs again: it would otherwise be stopped and let go at every look."""


class DutyCycle:
    def __init__(self, fraction: float, now: float) -> None:
        """`fraction`: of one core. `now`: seconds of a monotonic clock."""
        self._fraction = fraction
        self._credit_s = fraction * BURST_S
        self._at, self._cpu_s = now, 0.0
        self.still = False
        """It is to stand still."""
        self.still_s = 0.0
        """For how long it has been so far, in all."""

    def step(self, now: float, cpu_s: float) -> bool:
        """`cpu_s`: processor time of the whole tree since it began. Returns `still`."""
        passed, used = now - self._at, max(0.0, cpu_s - self._cpu_s)
        self._at, self._cpu_s = now, cpu_s
        if self.still:
            self.still_s += passed
        # What was used too much is paid back whole, however seldom anybody looks.
        self._credit_s = min(self._credit_s + passed * self._fraction - used, self._fraction * BURST_S)
        self.still = self._credit_s < (self._fraction * SLICE_S if self.still else 0.0)
        return self.still
