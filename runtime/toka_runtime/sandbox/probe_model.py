"""What a probe of the host says: the JSON of `toka-runtime doctor --json`. Names and values are stable; later versions
may add fields."""

from __future__ import annotations

from toka_runtime.protocol.model import Model
from toka_runtime.protocol.protections import HostProtections


class Check(Model):
    """One protection that was tried in a throw-away process."""

    name: str
    """Stable, e.g. `namespace.pid`."""
    ok: bool
    detail: str
    """What was seen."""
    errno: str = ""
    """Name of the error, e.g. `EPERM`. "" when there was none."""
    duration_ms: float = 0.0


class HostProbe(HostProtections):
    format: int = 1
    """Changes only when a field changes its meaning."""
    checks: tuple[Check, ...]
    uid: int
    kernel: str
    machine: str
    duration_ms: float

    def check(self, name: str) -> Check | None:
        """None: it was not tried."""
        return next((check for check in self.checks if check.name == name), None)
