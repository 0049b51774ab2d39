"""What is in force around one run: what its launch applied, on what its host was found to hold."""

from __future__ import annotations

from toka_runtime.protocol.limits import Strength
from toka_runtime.protocol.protections import Area, Badge, HostProtections, Protections
from toka_runtime.protocol.spec import SandboxMode


def protections_in_force(host: HostProtections | None, *, asked: SandboxMode, unconfined: str = "") -> Protections:
    """`host`: None where it has not been tried yet. `unconfined`: why the run has no walls, "" where it has."""
    if unconfined:
        badges = unheld(unconfined, fix=host.fix if host else "")
    else:
        badges = host.badges if host else ()
    return Protections(asked=asked, unconfined=unconfined, tier=host.tier if host else None, badges=badges)


def unheld(reason: str, *, fix: str, effect: str = "") -> tuple[Badge, ...]:
    """The badges where there are no walls. `effect`: what goes before what it means for the agent."""
    return tuple(_unheld(area, reason, fix, effect) for area in Area)


def _unheld(area: Area, reason: str, fix: str, effect: str) -> Badge:
    strength, mechanism, means = Strength.NONE, "", "nothing holds but the rights of its user"
    if area is Area.KILL:
        strength, mechanism, means = Strength.APPROXIMATE, "subreaper", "orphans are adopted and killed, one by one"
    return Badge(area=area, strength=strength, mechanism=mechanism, reason=reason, effect=effect + means, fix=fix)
