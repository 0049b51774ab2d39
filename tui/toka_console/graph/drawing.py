"""The edges of a placed graph as lines: ports at the boxes, tracks between the layers, junctions and crossings. Pure.

Lines of different nets meet in crossings only: what leaves a box does so at even cells of it, what arrives comes at
odd ones (or straight down), a lane belongs to one net, and a track is shared by nets that do not touch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from toka_console.graph.dag import Dag, Edge, Pair
from toka_console.graph.layout import LANE, Form, NetKey, Placing, net_of, place
from toka_runtime.protocol.ids import AgentName

UP, DOWN, LEFT, RIGHT = 1, 2, 4, 8
ARROW, BACK_ARROW = "▼", "△"
_AIR = 4
"""Cells beside a box in which its lanes are supposed to have room, when columns are counted."""
MOST_NODES, MOST_EDGES = 1_500, 6_000


class Box(NamedTuple):
    x: int
    y: int
    width: int
    height: int


class Point(NamedTuple):
    x: int
    y: int


class Line(NamedTuple):
    """A straight stretch, both ends in it. Horizontal or vertical."""

    start: Point
    end: Point
    net: NetKey
    leaves: int = 0
    """`UP` where its start touches the box that it comes from."""

    def cells(self, left: int, top: int, right: int, bottom: int) -> Iterator[tuple[Point, int]]:
        """Its cells within a window (right and bottom excluded), each with the directions it goes on in."""
        (x1, y1), (x2, y2) = self.start, self.end
        if y1 == y2:
            if top <= y1 < bottom:
                for x in range(max(x1, left), min(x2 + 1, right)):
                    yield Point(x, y1), (LEFT if x > x1 else self.leaves) | (RIGHT if x < x2 else 0)
        elif left <= x1 < right:
            for y in range(max(y1, top), min(y2 + 1, bottom)):
                yield Point(x1, y), (UP if y > y1 else self.leaves) | (DOWN if y < y2 else 0)


@dataclass(frozen=True)
class Drawing:
    form: Form
    boxes: Mapping[AgentName, Box]
    layers: tuple[tuple[AgentName, ...], ...]
    width: int
    height: int
    bands: tuple[tuple[int, int, tuple[Line, ...]], ...]
    """(first row, row after the last, lines in them), from top to bottom."""
    arrows: Mapping[Point, str]
    paths: Mapping[Pair, tuple[Line, ...]]
    """The way of each edge, from its upper end down."""

    def cells(self, left: int, top: int, width: int, height: int) -> dict[Point, tuple[int, NetKey]]:
        """Directions and net of each cell of a window that lines go through. In a crossing the vertical one shows."""
        found: dict[Point, tuple[int, NetKey]] = {}
        for first, after, lines in self.bands:
            if after <= top or first >= top + height:
                continue
            for line in lines:
                for point, mask in line.cells(left, top, left + width, top + height):
                    found[point] = _merged(found.get(point), mask, line.net)
        return found


def _merged(known: tuple[int, NetKey] | None, mask: int, net: NetKey) -> tuple[int, NetKey]:
    if known is None:
        return mask, net
    if known[1] == net:
        return known[0] | mask, net
    for (one, whose), other in ((known, mask), ((mask, net), known[0])):
        if other == LEFT | RIGHT and not one & other:
            return one, whose
    return known[0] | mask, net


def draw(dag: Dag, width: int, height: int) -> Drawing:
    """The graph for a window of `width` × `height` cells. Boxes with one line of text when all of it fits then, else
    with two. Takes a second for a thousand agents: not for the loop's thread."""
    longest = max((len(name) for name in dag.names), default=0)
    flat = Form(min(53, longest + 21), 3)
    if len(dag.names) <= 60:
        drawing = _route(dag, place(dag, flat, max(1, width // (flat.width + _AIR))))
        if drawing.width <= width and drawing.height <= height:
            return drawing
    tall = Form(max(22, min(30, longest) + 6), 4)
    return _route(dag, place(dag, tall, max(1, width // (tall.width + _AIR))))


@dataclass
class _Channel:
    """Between two layers: the nets in it with the cells that they have to join."""

    top: dict[NetKey, int] = field(default_factory=dict[NetKey, int])
    bottom: dict[NetKey, list[int]] = field(default_factory=dict[NetKey, list[int]])
    track: dict[NetKey, int] = field(default_factory=dict[NetKey, int])

    def span(self, net: NetKey) -> tuple[int, int]:
        ends = [self.top[net], *self.bottom[net]]
        return min(ends), max(ends)

    def assign(self) -> int:
        """Give each net that bends a track; how many there are."""
        free: list[int] = []
        for (first, last), net in sorted((self.span(net), net) for net in self.top):
            if first == last:
                continue
            track = next((number for number, end in enumerate(free) if end + 1 < first), len(free))
            free[track : track + 1] = [last]
            self.track[net] = track
        return len(free)


def _route(dag: Dag, placing: Placing) -> Drawing:
    channels = [_Channel() for _ in placing.layers]
    out = _out_ports(placing)
    for net in placing.nets:
        lane = placing.lanes.get(net)
        first = placing.spots[net.upper].layer
        for number in range(first, lane.last + 1 if lane else first + 1):
            channel = channels[number]
            channel.top[net] = out[net] if number == first else _lane_x(placing, net)
            channel.bottom[net] = [_lane_x(placing, net)] if lane and number < lane.last else []
    ports = _in_ports(placing, channels)
    for (net, target), x in ports.items():
        channels[placing.spots[target].layer - 1].bottom[net].append(x)
    return _drawn(dag, placing, channels, ports)


def _lane_x(placing: Placing, net: NetKey) -> int:
    lane = placing.lanes[net]
    return placing.street_x[lane.street] + LANE * lane.slot


def _out_ports(placing: Placing) -> dict[NetKey, int]:
    """Even cells near the middle of the box's lower edge."""
    middle = placing.form.width // 4 * 2
    return {
        net: placing.column_x[placing.spots[net.upper].column]
        + middle
        + (4 if net.upward else 0 if net.required else 2)
        for net in placing.nets
    }


def _in_ports(placing: Placing, channels: list[_Channel]) -> dict[tuple[NetKey, AgentName], int]:
    """Where each net arrives at each box: straight from above where it can, else at odd cells from left to right."""
    arriving: dict[AgentName, list[NetKey]] = {}
    for net, targets in placing.nets.items():
        for target in targets:
            arriving.setdefault(target, []).append(net)
    ports: dict[tuple[NetKey, AgentName], int] = {}
    places = placing.form.width // 2 - 1
    for target, nets in arriving.items():
        spot = placing.spots[target]
        left = placing.column_x[spot.column]
        tops = channels[spot.layer - 1].top
        bent: list[NetKey] = []
        for net in nets:
            if placing.spots[net.upper] == (spot.layer - 1, spot.column):
                ports[net, target] = tops[net]
            else:
                bent.append(net)
        bent.sort(key=lambda net: (tops[net], net))
        # As many side by side as fit; beyond that, the last share one.
        begin = max(0, (places - len(bent)) // 2)
        for number, net in enumerate(bent):
            ports[net, target] = left + 1 + 2 * min(begin + number, places - 1)
    return ports


def _drawn(
    dag: Dag, placing: Placing, channels: list[_Channel], ports: Mapping[tuple[NetKey, AgentName], int]
) -> Drawing:
    boxes: dict[AgentName, Box] = {}
    bands: list[tuple[int, int, tuple[Line, ...]]] = []
    starts: list[int] = []
    y = 0
    for layer, channel in zip(placing.layers, channels, strict=True):
        for name in layer:
            boxes[name] = Box(placing.column_x[placing.spots[name].column], y, *placing.form)
        top = y + placing.form.height
        y = top + (channel.assign() + 1 if channel.top else 0)
        starts.append(top)
        bands.append((top - placing.form.height, y, tuple(_lines(placing, channel, len(starts) - 1, top, y - 1))))
    ends = [after - 1 for _, after, _ in bands]
    paths = {edge.pair: _path(placing, channels, starts, ends, ports, edge) for edge in dag.edges}
    arrows = {
        path[-1].end: BACK_ARROW if path[-1].net.upward else ARROW for path in paths.values()
    }  # fmt: skip
    return Drawing(placing.form, boxes, placing.layers, placing.width, y, tuple(bands), arrows, paths)


def _lines(placing: Placing, channel: _Channel, number: int, top: int, bottom: int) -> Iterator[Line]:
    """Everything in the band of a layer and the channel below it."""
    for net, x in channel.top.items():
        first = placing.spots[net.upper].layer == number
        # A lane comes from beside the boxes above.
        begin = top if first else top - placing.form.height
        leaves = UP if first else 0
        if net not in channel.track:
            yield Line(Point(x, begin), Point(x, bottom), net, leaves)
            continue
        y = top + channel.track[net]
        left, right = channel.span(net)
        yield Line(Point(x, begin), Point(x, y), net, leaves)
        yield Line(Point(left, y), Point(right, y), net)
        for port in channel.bottom[net]:
            yield Line(Point(port, y), Point(port, bottom), net)


def _path(
    placing: Placing, channels: list[_Channel], starts: list[int], ends: list[int],
    ports: Mapping[tuple[NetKey, AgentName], int], edge: Edge,
) -> tuple[Line, ...]:  # fmt: skip
    net, lower = net_of(edge, placing.spots)
    first, last = placing.spots[net.upper].layer, placing.spots[lower].layer - 1
    points = [Point(channels[first].top[net], starts[first])]
    for number, x in ((first, None), (last, ports[net, lower])) if first < last else ((last, ports[net, lower]),):
        to = _lane_x(placing, net) if x is None else x
        if to != points[-1].x:
            y = starts[number] + channels[number].track[net]
            points += [Point(points[-1].x, y), Point(to, y)]
    points.append(Point(points[-1].x, ends[last]))
    lines = [Line(min(a, b), max(a, b), net) for a, b in pairwise(points) if a != b]
    return tuple(lines) or (Line(points[0], points[0], net),)
