"""Where the boxes of a graph stand: layers from top to bottom, columns within them, streets between the columns for
edges that pass by. Pure; the same graph gives the same picture.

A layer holds no more boxes than fit side by side: what has no room goes to the next one, which keeps the order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from toka_console.graph.dag import Dag, Edge
from toka_runtime.protocol.ids import AgentName

SWEEPS = 4
LANE = 2
"""Cells of a lane with the air beside it."""


Links = Mapping[AgentName, Sequence[AgentName]]


class Form(NamedTuple):
    """Size of a box, with its frame."""

    width: int
    height: int


class Spot(NamedTuple):
    layer: int
    column: int


class NetKey(NamedTuple):
    """Edges from one node are drawn as one line that branches; optional ones are another, upward ones a third."""

    upper: AgentName
    required: bool
    upward: bool = False
    """Its lower end comes first: it closes a cycle."""


class Lane(NamedTuple):
    """A vertical line beside the boxes: below the layers `first` to `last` it can be branched off."""

    street: int
    slot: int
    first: int
    last: int


@dataclass(frozen=True)
class Placing:
    form: Form
    spots: Mapping[AgentName, Spot]
    layers: tuple[tuple[AgentName, ...], ...]
    columns: int
    lanes: Mapping[NetKey, Lane]
    """Of nets that go farther than to the next layer."""
    nets: Mapping[NetKey, tuple[AgentName, ...]]
    """Net → the nodes it leads to."""
    column_x: tuple[int, ...]
    """Left edge of each column."""
    street_x: tuple[int, ...]
    """First lane of each street: one left of each column, and one right of the last."""
    width: int


def place(dag: Dag, form: Form, columns: int) -> Placing:
    """At most `columns` boxes side by side."""
    above, below = _links(dag)
    layers = _layers(dag, above, max(1, columns))
    columns = max((len(layer) for layer in layers), default=1)
    spots = _columns(above, below, layers, columns)
    nets = _nets(dag, spots)
    lanes, slots = _lanes(nets, spots, columns)
    column_x: list[int] = []
    street_x: list[int] = []
    x = 0
    for street in range(columns + 1):
        inner = 0 < street < columns
        x += 1 if slots[street] or inner else 0
        street_x.append(x)
        x += slots[street] * LANE + (1 if inner and not slots[street] else 0)
        if street < columns:
            column_x.append(x)
            x += form.width
    return Placing(form, spots, layers, columns, lanes, nets, tuple(column_x), tuple(street_x), x)


def _links(dag: Dag) -> tuple[Links, Links]:
    """(what has to be above, what has to be below) each node; also those whose edge closes a cycle."""
    number = {name: place for place, name in enumerate(dag.names)}
    above: dict[AgentName, list[AgentName]] = {name: [] for name in dag.names}
    below: dict[AgentName, list[AgentName]] = {name: [] for name in dag.names}
    for edge in dag.edges:
        upper, lower = sorted(edge.pair, key=number.__getitem__)
        above[lower].append(upper)
        below[upper].append(lower)
    return above, below


def _layers(dag: Dag, above: Links, most: int) -> tuple[tuple[AgentName, ...], ...]:
    """Nodes of a layer are linked with earlier and later layers only. Nodes without any edge fill up what is left."""
    level: dict[AgentName, int] = {}
    for name in dag.names:
        level[name] = 1 + max((level[parent] for parent in above[name]), default=-1)
    linked = {name for edge in dag.edges for name in edge.pair}
    order = sorted(dag.names, key=lambda name: (name not in linked, level[name]))
    at: dict[AgentName, int] = {}
    counts: list[int] = []
    first_free = 0
    for name in order:
        layer = max(1 + max((at[parent] for parent in above[name]), default=-1), first_free)
        while layer < len(counts) and counts[layer] >= most:
            layer += 1
        counts += [0] * (layer + 1 - len(counts))
        counts[layer] += 1
        at[name] = layer
        while first_free < len(counts) and counts[first_free] >= most:
            first_free += 1
    layers: list[list[AgentName]] = [[] for _ in counts]
    for name in order:
        layers[at[name]].append(name)
    return tuple(tuple(layer) for layer in layers)


def _columns(above: Links, below: Links, layers: Sequence[Sequence[AgentName]], columns: int) -> dict[AgentName, Spot]:
    """Each box near the middle of those it is linked with, so that few edges cross."""
    column: dict[AgentName, float] = {}
    for names in layers:
        _set(column, names, {}, columns)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 1
        near = above if down else below
        for names in layers if down else reversed(layers):
            wished = {name: _mean(column[other] for other in near[name]) for name in names if near[name]}
            _set(column, names, wished, columns)
    return {name: Spot(layer, int(column[name])) for layer, names in enumerate(layers) for name in names}


def _set(
    column: dict[AgentName, float], names: Sequence[AgentName], wished: Mapping[AgentName, float], columns: int
) -> None:
    """Give the nodes of one layer different columns, in the order of their wishes and as near to them as can be."""
    middle = (columns - len(names)) / 2
    wishes = {name: wished.get(name, column.get(name, middle + place)) for place, name in enumerate(names)}
    order = sorted(names, key=lambda name: wishes[name])
    after, taken = -1, list[int]()
    for name in order:
        after = max(after + 1, round(wishes[name]))
        taken.append(after)
    before = columns
    for place in range(len(order) - 1, -1, -1):
        before = taken[place] = min(taken[place], before - 1)
    column.update(zip(order, taken, strict=True))


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def _nets(dag: Dag, spots: Mapping[AgentName, Spot]) -> dict[NetKey, tuple[AgentName, ...]]:
    nets: dict[NetKey, list[AgentName]] = {}
    for edge in dag.edges:
        net, lower = net_of(edge, spots)
        nets.setdefault(net, []).append(lower)
    return {net: tuple(found) for net, found in nets.items()}


def net_of(edge: Edge, spots: Mapping[AgentName, Spot]) -> tuple[NetKey, AgentName]:
    """The net that an edge belongs to, and the node at its lower end."""
    upper, lower = sorted(edge.pair, key=lambda name: spots[name].layer)
    upward = upper != edge.before
    return NetKey(upper, edge.required and not upward, upward), lower


def _lanes(
    nets: Mapping[NetKey, Sequence[AgentName]], spots: Mapping[AgentName, Spot], columns: int
) -> tuple[dict[NetKey, Lane], list[int]]:
    """The lanes, and how many each street has side by side."""
    streets: list[list[list[tuple[int, int]]]] = [[] for _ in range(columns + 1)]
    lanes: dict[NetKey, Lane] = {}
    for key, targets in sorted(
        nets.items(), key=lambda item: (spots[item[0].upper], not item[0].required, item[0].upward)
    ):
        source = spots[key.upper]
        first, last = source.layer, max(spots[name].layer for name in targets) - 1
        if last == first:
            continue
        far = [spots[name].column for name in targets if spots[name].layer > first + 1]

        def cost(street: int, source: Spot = source, far: Sequence[int] = far) -> tuple[float, int]:
            way = abs(street - source.column - 0.5) + _mean(abs(street - column - 0.5) for column in far)
            return way + len(streets[street]) / 4, street

        street = min(range(columns + 1), key=cost)
        slots = streets[street]
        slot = next((n for n, used in enumerate(slots) if all(b < first or last < a for a, b in used)), len(slots))
        if slot == len(slots):
            slots.append([])
        slots[slot].append((first, last))
        lanes[key] = Lane(street, slot, first, last)
    return lanes, [len(slots) for slots in streets]
