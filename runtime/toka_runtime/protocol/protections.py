"""What confines agents: what a host offers, what it holds, and what was put around one run."""

from __future__ import annotations

from enum import StrEnum

from toka_runtime.protocol.limits import Strength
from toka_runtime.protocol.model import Model
from toka_runtime.protocol.spec import SandboxMode


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
    """What the runtime uses today: not what the host could do."""

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


class Tier(StrEnum):
    """What the host offers, whether the runtime uses it already or not."""

    A = "A"
    B = "B"
    C = "C"
    D = "D"
    E = "E"


TIER_MEANING: dict[Tier, str] = {
    Tier.A: "namespaces, Landlock, and a cgroup v2 of one's own: everything can be enforced",
    Tier.B: "namespaces and Landlock, but no cgroup v2 of one's own: the badges say what holds memory and CPU",
    Tier.C: "only bwrap may make namespaces: what it makes is enforced, but agents start more slowly",
    Tier.D: "no user namespaces: no guaranteed kill and pause, no network for executed tools",
    Tier.E: "no Landlock: no path rules for single tool calls",
}


class Observation(StrEnum):
    """Who sees what an agent was refused."""

    BROKERED_ONLY = "brokered only"
    """The broker and the proxy: what a program was refused by the kernel shows only in its own words."""
    KERNEL_OBSERVED = "kernel-observed"
    """An observer of system calls too."""


class HostProtections(Model):
    """What trying every protection on a host has shown."""

    sandbox: bool
    """Agents with `sandbox: true` start here: the whole confinement was built, and held everything that was tried."""
    reason: str = ""
    """Why they do not; or, where bwrap has to make the namespaces (tier C), why that is so."""
    fix: str = ""
    tier: Tier
    tier_meaning: str
    badges: tuple[Badge, ...]
    """One for each area, in the order of `Area`."""


class Protections(Model):
    """What is around one run: what its launch has really applied, on what its host was found to hold."""

    asked: SandboxMode
    unconfined: str = ""
    """Why nothing but its user's rights holds it; "" where it is confined."""
    tier: Tier | None = None
    """None: the run was over before the host had been tried."""
    badges: tuple[Badge, ...] = ()
    """One for each area, in the order of `Area`; none where the tier is not known."""
    observation: Observation = Observation.BROKERED_ONLY
