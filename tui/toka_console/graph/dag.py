"""Who waits for whom on one host, as the specs say: safe to draw, whatever they say. Pure.

An agent that is not loaded is a node without an agent; what closes a cycle is marked and stands for no order.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.spec import AgentSpec


class Pair(NamedTuple):
    before: AgentName
    after: AgentName


@dataclass(frozen=True, slots=True)
class Edge:
    """`before` has to reach `condition` (started, completed, verified) before `after` starts."""

    before: AgentName
    after: AgentName
    required: bool
    condition: str
    closes_cycle: bool = False

    @property
    def pair(self) -> Pair:
        return Pair(self.before, self.after)


@dataclass(frozen=True)
class Dag:
    names: tuple[AgentName, ...]
    """Every node once, after all that it depends on."""
    missing: frozenset[AgentName]
    """Nodes that specs name and nobody loaded."""
    edges: tuple[Edge, ...]
    """At most one for two nodes; none from a node to itself."""
    own: frozenset[AgentName] = frozenset()
    """Nodes that depend on themselves."""

    @cached_property
    def parents(self) -> Mapping[AgentName, tuple[AgentName, ...]]:
        """Node → what it depends on, without what closes a cycle."""
        found: dict[AgentName, list[AgentName]] = {name: [] for name in self.names}
        for edge in self.edges:
            if not edge.closes_cycle:
                found[edge.after].append(edge.before)
        return {name: tuple(others) for name, others in found.items()}

    @cached_property
    def children(self) -> Mapping[AgentName, tuple[AgentName, ...]]:
        """Node → who depends on it, without what closes a cycle."""
        found: dict[AgentName, list[AgentName]] = {name: [] for name in self.names}
        for edge in self.edges:
            if not edge.closes_cycle:
                found[edge.before].append(edge.after)
        return {name: tuple(others) for name, others in found.items()}

    def subtree(self, root: AgentName) -> tuple[AgentName, ...]:
        """`root` and all that depends on it, directly or not; in order."""
        found = {root}
        for name in self.names:
            if any(parent in found for parent in self.parents[name]):
                found.add(name)
        return tuple(name for name in self.names if name in found)


def build(specs: Iterable[AgentSpec], chosen: Collection[AgentName] | None = None) -> Dag:
    """The graph of these specs; with `chosen`, of those agents and of what is between them alone."""
    fleet = {spec.name: spec for spec in specs}
    kept = [name for name in fleet if chosen is None or name in chosen]
    edges: dict[Pair, Edge] = {}
    own: set[AgentName] = set()
    for name in kept:
        for wish in fleet[name].dependencies:
            if wish.agent == name:
                own.add(name)
            elif chosen is None or wish.agent in chosen or wish.agent not in fleet:
                pair = Pair(wish.agent, name)
                required = wish.required or (pair in edges and edges[pair].required)
                edges[pair] = Edge(*pair, required=required, condition=wish.condition.value)
    missing = {edge.before for edge in edges.values()} - fleet.keys()
    rank = {name: fleet[name].priority.rank for name in kept} | dict.fromkeys(missing, 9)
    order, closing = _sorted(rank, edges)
    return Dag(
        names=tuple(order),
        missing=frozenset(missing),
        edges=tuple(replace(edge, closes_cycle=pair in closing) for pair, edge in edges.items()),
        own=frozenset(own),
    )


def _sorted(rank: Mapping[AgentName, int], edges: Mapping[Pair, Edge]) -> tuple[list[AgentName], set[Pair]]:
    """Dependencies first, then by rank and name; and the edges that had to be left out for that."""
    waits: dict[AgentName, set[AgentName]] = {name: set() for name in rank}
    others: dict[AgentName, list[AgentName]] = {name: [] for name in rank}
    for before, after in edges:
        waits[after].add(before)
        others[before].append(after)
    ready = [(rank[name], name) for name, before in waits.items() if not before]
    heapq.heapify(ready)
    order: list[AgentName] = []
    closing: set[Pair] = set()
    left = dict.fromkeys(sorted(rank))
    while left:
        while ready:
            _, name = heapq.heappop(ready)
            order.append(name)
            del left[name]
            for other in others[name]:
                if name in waits[other]:
                    waits[other].discard(name)
                    if not waits[other]:
                        heapq.heappush(ready, (rank[other], other))
        if left:
            pair = _weakest(_cycle(next(iter(left)), waits), edges)
            closing.add(pair)
            waits[pair.after].discard(pair.before)
            if not waits[pair.after]:
                heapq.heappush(ready, (rank[pair.after], pair.after))
    return order, closing


def _cycle(start: AgentName, waits: Mapping[AgentName, set[AgentName]]) -> list[Pair]:
    """A cycle that holds `start` up: everybody who is left waits for somebody who is left."""
    walk: dict[AgentName, int] = {}
    path: list[AgentName] = []
    name = start
    while name not in walk:
        walk[name] = len(path)
        path.append(name)
        name = min(waits[name])
    circle = path[walk[name] :]
    return [Pair(before, after) for after, before in zip(circle, [*circle[1:], circle[0]], strict=True)]


def _weakest(circle: list[Pair], edges: Mapping[Pair, Edge]) -> Pair:
    """An optional dependency where there is one."""
    return min(circle, key=lambda pair: (edges[pair].required, pair.after, pair.before))
