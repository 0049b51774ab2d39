"""Who may start now, who waits for what, who is skipped. A pure function of the fleet's states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.spec import Dependency, DependencyCondition, Priority
from toka_runtime.protocol.states import LIVE, TERMINAL, AgentState


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the scheduler needs to know of one requested agent."""

    name: AgentName
    state: AgentState
    priority: Priority
    dependencies: tuple[Dependency, ...] = ()
    memory_bytes: int | None = None
    """Declared limit, for admission."""
    verified: bool = False
    """Completed, and every check that was declared has passed (at least one)."""
    requested: bool = True
    holding: str = ""
    """Why it must not start yet for a reason of its own, e.g. a restart's back-off."""


@dataclass(frozen=True, slots=True)
class Schedule:
    start: tuple[AgentName, ...] = ()
    skip: Mapping[AgentName, str] = field(default_factory=dict[AgentName, str])
    """Name → why it can never start."""
    blockers: Mapping[AgentName, tuple[str, ...]] = field(default_factory=dict[AgentName, tuple[str, ...]])
    """Name → what it waits for; for every requested PENDING agent that is neither started nor skipped."""


def schedule(agents: Iterable[Candidate], *, slots: int, memory_bytes: int | None = None) -> Schedule:
    """One step. `slots`: how many may be live at once. `memory_bytes`: what the declared limits of live agents may add
    up to (None: unbounded); an agent that alone exceeds it starts only when nothing else is live."""
    fleet = {agent.name: agent for agent in agents}
    live = [agent for agent in fleet.values() if agent.state in LIVE]
    free = slots - len(live)
    committed = sum(agent.memory_bytes or 0 for agent in live)
    start: list[AgentName] = []
    skip: dict[AgentName, str] = {}
    blockers: dict[AgentName, tuple[str, ...]] = {}
    waiting = [agent for agent in fleet.values() if agent.requested and agent.state is AgentState.PENDING]
    for agent in sorted(waiting, key=lambda agent: (agent.priority.rank, agent.name)):
        reasons, impossible = _dependencies(agent, fleet)
        if impossible:
            skip[agent.name] = impossible
            continue
        if agent.holding:
            reasons.append(agent.holding)
        needs = agent.memory_bytes or 0
        if not reasons and free <= 0:
            reasons.append(f"a free slot ({slots} agents run at most)")
        if not reasons and memory_bytes is not None and (live or start) and committed + needs > memory_bytes:
            reasons.append(f"memory: {needs >> 20} MiB declared, {max(0, memory_bytes - committed) >> 20} MiB free")
        if reasons:
            blockers[agent.name] = tuple(reasons)
            continue
        start.append(agent.name)
        free -= 1
        committed += needs
    return Schedule(tuple(start), skip, blockers)


def _dependencies(agent: Candidate, fleet: Mapping[AgentName, Candidate]) -> tuple[list[str], str]:
    """What it waits for, and why it can never start ("" when it still can)."""
    reasons: list[str] = []
    for dependency in agent.dependencies:
        other = fleet.get(dependency.agent)
        if other is None or (not other.requested and not dependency.required):
            if dependency.required:
                return [], f"required agent {dependency.agent} is not loaded"
            continue
        if _satisfied(dependency.condition, other):
            continue
        if other.state in TERMINAL:
            if dependency.required:
                return [], _failure(dependency, other)
            continue
        # Not its present state: that would be a new reason, and an event, at each of its steps.
        asked = "" if other.requested else ", which nobody has started"
        reasons.append(f"{dependency.agent} to be {dependency.condition}{asked}")
    return reasons, ""


def _satisfied(condition: DependencyCondition, other: Candidate) -> bool:
    match condition:
        case DependencyCondition.STARTED:
            return other.state in {AgentState.RUNNING, AgentState.PAUSED, AgentState.STOPPING, AgentState.COMPLETED}
        case DependencyCondition.COMPLETED:
            return other.state is AgentState.COMPLETED
        case DependencyCondition.VERIFIED:
            return other.state is AgentState.COMPLETED and other.verified


def _failure(dependency: Dependency, other: Candidate) -> str:
    if other.state is AgentState.COMPLETED:
        return f"required agent {other.name} completed, but its work is not verified"
    return f"required agent {other.name} is {other.state}"
