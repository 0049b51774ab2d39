"""Cycles in a directed graph of names. Iterative: a chain of ten thousand agents is no deep recursion."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T", bound=str)


def strongly_connected(edges: Mapping[T, Sequence[T]]) -> list[frozenset[T]]:
    """The groups of names that reach each other (and single names that depend on themselves), i.e. where cycles are.
    Names without an entry in `edges` are ignored. Order follows `edges`."""
    index: dict[T, int] = {}
    low: dict[T, int] = {}
    stack: list[T] = []
    on_stack: set[T] = set()
    groups: list[frozenset[T]] = []
    for root in edges:
        if root in index:
            continue
        work = [(root, iter(edges[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            name, rest = work[-1]
            step = next((n for n in rest if n in edges and (n not in index or n in on_stack)), None)
            if step is None:
                work.pop()
                if work:
                    parent = work[-1][0]
                    low[parent] = min(low[parent], low[name])
                if low[name] == index[name]:
                    _close(name, stack, on_stack, edges, groups)
            elif step in index:
                low[name] = min(low[name], index[step])
            else:
                index[step] = low[step] = len(index)
                stack.append(step)
                on_stack.add(step)
                work.append((step, iter(edges[step])))
    return groups


def _close(
    name: T, stack: list[T], on_stack: set[T], edges: Mapping[T, Sequence[T]], groups: list[frozenset[T]]
) -> None:
    members: set[T] = set()
    while name not in members:
        top = stack.pop()
        on_stack.discard(top)
        members.add(top)
    if len(members) > 1 or name in edges[name]:
        groups.append(frozenset(members))


def cycle_through(name: T, edges: Mapping[T, Sequence[T]], group: frozenset[T]) -> list[T]:
    """A shortest way from `name` back to itself within its group: [name, …, name]."""
    came_from: dict[T, T] = {}
    queue = deque([name])
    while queue:
        here = queue.popleft()
        for step in edges[here]:
            if step == name:
                path = [name, here]
                while path[-1] != name:
                    path.append(came_from[path[-1]])
                return path[::-1]
            if step in group and step not in came_from:
                came_from[step] = here
                queue.append(step)
    raise ValueError(f"{name} lies on no cycle")
