"""What a probe of the host says: the JSON of `toka-runtime doctor --json`. Names and values are stable; later versions
may add fields."""

from __future__ import annotations

from enum import StrEnum

from toka_runtime.protocol.limits import Strength
from toka_runtime.protocol.model import Model


class Area(StrEnum):
    """What a badge is about."""

    FS = "FS"
    """Which files an agent sees and changes."""
    NET = "NET"
    """Which hosts it reaches."""
    KILL = "KILL"
    """Whether pause and kill reach all of its processes."""
    PROCS = "PROCS"
    """How many processes it has."""
    MEM = "MEM"
    """How much memory it uses."""
    CPU = "CPU"
    """How much processor time it uses."""


class Badge(Model):
    """What the runtime uses today, on this host: not what the host could do."""

    area: Area
    strength: Strength
    mechanism: str
    """What holds it ("" when nothing does)."""
    reason: str = ""
    """Why it is not stronger: an errno, a sysctl, or what the runtime does not use yet. "" when enforced."""
    effect: str
    """For the agent, in one line."""
    fix: str = ""
    """What the operator can do about `reason`. "" when there is nothing."""


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


class Tier(StrEnum):
    """What the host offers, whether the runtime uses it already or not."""

    A = "A"
    B = "B"
    C = "C"
    D = "D"
    E = "E"


TIER_MEANING: dict[Tier, str] = {
    Tier.A: "namespaces, Landlock, and a cgroup v2 of one's own: everything can be enforced",
    Tier.B: "namespaces and Landlock, but no cgroup v2 of one's own: memory and CPU are approximate",
    Tier.C: "only bwrap may create user namespaces",
    Tier.D: "no user namespaces: no guaranteed kill and pause, no network for executed tools",
    Tier.E: "no Landlock: no path rules for single tool calls",
}


class HostProbe(Model):
    format: int = 1
    """Changes only when a field changes its meaning."""
    sandbox: bool
    """Agents with `sandbox: true` start here: the whole confinement was built, and held everything that was tried."""
    reason: str = ""
    """Why they do not."""
    fix: str = ""
    tier: Tier
    tier_meaning: str
    badges: tuple[Badge, ...]
    """One for each area, in the order of `Area`."""
    checks: tuple[Check, ...]
    uid: int
    kernel: str
    machine: str
    duration_ms: float

    def check(self, name: str) -> Check | None:
        """None: it was not tried."""
        return next((check for check in self.checks if check.name == name), None)
