"""The dependency graph of a fleet: who starts after whom, in which order, and which chain takes longest.

Required dependencies must not form a cycle (`GraphError`); an optional one that would close a cycle is dropped with a
note, so that nobody waits for it. A dependency on an agent that is not in the fleet has no edge: it is listed under
`missing`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from toka_runtime.errors import GraphError
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.spec import AgentSpec, Dependency, DependencyCondition
from toka_runtime.specs.cycles import cycle_through, strongly_connected
from toka_runtime.specs.graph_text import to_mermaid, to_text


@dataclass(frozen=True, slots=True)
class Edge:
    """`before` has to reach `condition` before `after` starts."""

    before: AgentName
    after: AgentName
    required: bool
    condition: DependencyCondition
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CriticalPath:
    """The chain of agents that no parallelism shortens."""

    agents: tuple[AgentName, ...]
    duration_s: float | None
    """Sum of the estimates along it; None when no spec of the fleet gives any, and agents were counted instead."""
    assumed: tuple[AgentName, ...] = ()
    """Agents on it without an estimate: they count as the mean of those that have one."""


@dataclass(frozen=True)
class Graph:
    specs: Mapping[AgentName, AgentSpec]
    """In the order given."""
    edges: tuple[Edge, ...]
    """In order of `after`, then as written."""
    order: tuple[AgentName, ...]
    """Start order: dependencies first, then priority, then name."""
    levels: tuple[tuple[AgentName, ...], ...]
    """Agents of a level depend on earlier levels only; within a level in start order."""
    critical: CriticalPath
    notes: tuple[str, ...] = ()
    """Optional dependencies that were dropped, one line each."""
    missing: Mapping[AgentName, tuple[Dependency, ...]] = field(default_factory=dict[AgentName, tuple[Dependency, ...]])
    """Agent → what it depends on that is not in the fleet."""

    @cached_property
    def into(self) -> Mapping[AgentName, tuple[Edge, ...]]:
        """Agent → the edges that end at it."""
        found: dict[AgentName, list[Edge]] = {name: [] for name in self.specs}
        for edge in self.edges:
            found[edge.after].append(edge)
        return {name: tuple(edges) for name, edges in found.items()}

    def dependencies(self, name: AgentName) -> tuple[Dependency, ...]:
        """What `name` has to wait for: as in its spec, less the optional ones that were dropped."""
        kept = {edge.before for edge in self.into[name]}
        return tuple(d for d in self.specs[name].dependencies if d.agent in kept or d.agent not in self.specs)

    def dependants(self, name: AgentName) -> tuple[AgentName, ...]:
        """Who waits for `name` directly, in start order."""
        found = {edge.after for edge in self.edges if edge.before == name}
        return tuple(other for other in self.order if other in found)

    def to_text(self) -> str:
        return to_text(self)

    def to_mermaid(self) -> str:
        return to_mermaid(self)

    def to_json(self) -> dict[str, Any]:
        """JSON-compatible: {order, levels, edges, critical_path, notes, missing}."""
        return {
            "order": list(self.order),
            "levels": [list(level) for level in self.levels],
            "edges": [
                {
                    "before": edge.before,
                    "after": edge.after,
                    "required": edge.required,
                    "condition": edge.condition.value,
                    "reason": edge.reason,
                }
                for edge in self.edges
            ],
            "critical_path": {
                "agents": list(self.critical.agents),
                "duration_s": self.critical.duration_s,
                "assumed": list(self.critical.assumed),
            },
            "notes": list(self.notes),
            "missing": {name: [d.agent for d in absent] for name, absent in self.missing.items()},
        }


def build_graph(specs: Iterable[AgentSpec], conditions: frozenset[str] = frozenset()) -> Graph:
    """The graph of these agents; `conditions` says which conditional tasks count in estimates.

    Raises GraphError for two agents of one name and for a cycle of required dependencies.
    """
    fleet: dict[AgentName, AgentSpec] = {}
    for spec in specs:
        if spec.name in fleet:
            raise GraphError(f"two agents are named {spec.name}", hint="give each agent a name of its own")
        fleet[spec.name] = spec
    edges, notes = _edges(fleet)
    before: dict[AgentName, list[AgentName]] = {name: [] for name in fleet}
    for edge in edges:
        before[edge.after].append(edge.before)
    order = _order(fleet, before)
    missing = {
        name: absent
        for name, spec in fleet.items()
        if (absent := tuple(d for d in spec.dependencies if d.agent not in fleet))
    }
    return Graph(
        specs=fleet,
        edges=edges,
        order=order,
        levels=_levels(order, before),
        critical=_critical(fleet, order, before, conditions),
        notes=notes,
        missing=missing,
    )


def _edges(fleet: Mapping[AgentName, AgentSpec]) -> tuple[tuple[Edge, ...], tuple[str, ...]]:
    required = {
        name: [d.agent for d in spec.dependencies if d.required and d.agent in fleet] for name, spec in fleet.items()
    }
    for group in strongly_connected(required):
        path = cycle_through(min(group), required, group)
        raise GraphError(f"dependency cycle: {' → '.join(path)}", hint="make one of these dependencies optional")
    everything = {name: [d.agent for d in spec.dependencies if d.agent in fleet] for name, spec in fleet.items()}
    circle = {name: number for number, group in enumerate(strongly_connected(everything)) for name in group}
    notes: list[str] = []
    after = {name: list(names) for name, names in required.items()}
    dropped: set[tuple[AgentName, AgentName]] = set()
    # Urgent agents keep their wishes; the last one that would close a circle gives way.
    for name in sorted(fleet, key=lambda name: (fleet[name].priority.rank, name)):
        for dependency in fleet[name].dependencies:
            other = dependency.agent
            if dependency.required or other not in fleet:
                continue
            in_circle = name in circle and circle[name] == circle.get(other)
            if in_circle and (other == name or _reaches(other, name, after)):
                dropped.add((other, name))
                notes.append(f"{name} does not wait for {other} (optional): that would close a cycle")
            else:
                after[name].append(other)
    edges = tuple(
        Edge(d.agent, name, d.required, d.condition, d.reason)
        for name, spec in fleet.items()
        for d in spec.dependencies
        if d.agent in fleet and (d.agent, name) not in dropped
    )
    return edges, tuple(notes)


def _reaches(start: AgentName, goal: AgentName, after: Mapping[AgentName, Sequence[AgentName]]) -> bool:
    """Whether `start` waits, directly or not, for `goal`."""
    open_names, seen = [start], {start}
    while open_names:
        name = open_names.pop()
        if name == goal:
            return True
        fresh = [other for other in after[name] if other not in seen]
        seen.update(fresh)
        open_names.extend(fresh)
    return False


def _order(fleet: Mapping[AgentName, AgentSpec], before: Mapping[AgentName, list[AgentName]]) -> tuple[AgentName, ...]:
    waits = {name: len(set(names)) for name, names in before.items()}
    next_ones: dict[AgentName, list[AgentName]] = {name: [] for name in fleet}
    for name, names in before.items():
        for other in set(names):
            next_ones[other].append(name)
    ready = [(fleet[name].priority.rank, name) for name, count in waits.items() if count == 0]
    heapq.heapify(ready)
    order: list[AgentName] = []
    while ready:
        _, name = heapq.heappop(ready)
        order.append(name)
        for other in next_ones[name]:
            waits[other] -= 1
            if waits[other] == 0:
                heapq.heappush(ready, (fleet[other].priority.rank, other))
    return tuple(order)


def _levels(
    order: Sequence[AgentName], before: Mapping[AgentName, list[AgentName]]
) -> tuple[tuple[AgentName, ...], ...]:
    level: dict[AgentName, int] = {}
    levels: list[list[AgentName]] = []
    for name in order:
        level[name] = 1 + max((level[other] for other in before[name]), default=-1)
        if level[name] == len(levels):
            levels.append([])
        levels[level[name]].append(name)
    return tuple(tuple(names) for names in levels)


def _critical(
    fleet: Mapping[AgentName, AgentSpec],
    order: Sequence[AgentName],
    before: Mapping[AgentName, list[AgentName]],
    conditions: frozenset[str],
) -> CriticalPath:
    known: dict[AgentName, float] = {}
    for name, spec in fleet.items():
        estimates = [task.estimated_duration_s for task in spec.enabled_tasks(conditions)]
        given = [seconds for seconds in estimates if seconds is not None]
        if given:
            known[name] = sum(given)
    mean = sum(known.values()) / len(known) if known else 1.0
    total: dict[AgentName, float] = {}
    came: dict[AgentName, AgentName] = {}
    for name in order:
        longest = max(before[name], key=lambda other: total[other], default=None)
        total[name] = known.get(name, mean) + (total[longest] if longest is not None else 0.0)
        if longest is not None:
            came[name] = longest
    if not order:
        return CriticalPath((), None)
    last = max(order, key=lambda name: total[name])
    path = [last]
    while path[-1] in came:
        path.append(came[path[-1]])
    path.reverse()
    assumed = tuple(name for name in path if name not in known) if known else ()
    return CriticalPath(tuple(path), total[last] if known else None, assumed)
