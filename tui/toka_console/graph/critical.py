"""The chain of agents that takes longest from now on, and that no parallelism shortens. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toka_console.graph.dag import Dag, Pair
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.snapshot import AgentView
from toka_runtime.protocol.states import AgentState

ENDED = (AgentState.COMPLETED, AgentState.FAILED, AgentState.KILLED, AgentState.SKIPPED)


@dataclass(frozen=True)
class Critical:
    agents: tuple[AgentName, ...] = ()
    duration_s: float | None = None
    """What is left along it; None when no spec says how long anything takes, and agents were counted."""

    @property
    def pairs(self) -> frozenset[Pair]:
        return frozenset(map(Pair, self.agents, self.agents[1:]))


def critical_path(dag: Dag, views: Mapping[AgentName, AgentView]) -> Critical:
    """The longest chain of agents that have not ended, by what is left of their estimates; tasks without an estimate
    count with their time limit, agents without either as the mean of the others."""
    open_names = [name for name in dag.names if (view := views.get(name)) is not None and view.state not in ENDED]
    known = {name: left for name in open_names if (left := remaining_s(views[name])) is not None}
    mean = sum(known.values()) / len(known) if known else 1.0
    total: dict[AgentName, float] = {}
    came: dict[AgentName, AgentName] = {}
    for name in open_names:
        before = [parent for parent in dag.parents[name] if parent in total]
        longest = max(before, key=lambda parent: (total[parent], parent), default=None)
        total[name] = known.get(name, mean) + (total[longest] if longest is not None else 0.0)
        if longest is not None:
            came[name] = longest
    if not total:
        return Critical()
    path = [max(open_names, key=lambda name: total[name])]
    while path[-1] in came:
        path.append(came[path[-1]])
    return Critical(tuple(reversed(path)), total[path[0]] if known else None)


def remaining_s(view: AgentView) -> float | None:
    """Seconds of the tasks that are not done; None when the spec says nothing about time."""
    tasks = [task for task in view.spec.tasks if not task.condition][view.tasks_done :]
    declared = [task.estimated_duration_s or task.timeout_s for task in tasks]
    given = [seconds for seconds in declared if seconds is not None]
    return sum(given) if given else view.spec.security.limits.timeout_s
