"""The graphs of all hosts, one below the other, and where each box of them is. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from toka_console.graph import dag, drawing
from toka_console.graph.dag import Dag
from toka_console.graph.drawing import Box, Drawing
from toka_console.identity import AgentKey
from toka_runtime.protocol.ids import AgentName, HostId
from toka_runtime.protocol.spec import AgentSpec


class Fleet(NamedTuple):
    """What one graph is made of."""

    host: HostId
    specs: Sequence[AgentSpec]
    chosen: Collection[AgentName] | None
    """None: all."""


class Part(NamedTuple):
    host: HostId
    dag: Dag
    drawing: Drawing
    top: int
    """Its first row; the row above it names the host where there are several."""


@dataclass(frozen=True)
class Scene:
    parts: tuple[Part, ...] = ()
    too_many: str = ""
    """Why nothing is drawn."""

    @property
    def width(self) -> int:
        return max((part.drawing.width for part in self.parts), default=0)

    @property
    def height(self) -> int:
        return self.parts[-1].top + self.parts[-1].drawing.height if self.parts else 0

    def part(self, host: HostId) -> Part | None:
        return next((part for part in self.parts if part.host == host), None)

    @cached_property
    def boxes(self) -> list[tuple[AgentKey, Box]]:
        """In rows from top to bottom, each from left to right."""
        found = [
            (AgentKey(part.host, name), box._replace(y=box.y + part.top))
            for part in self.parts
            for name, box in part.drawing.boxes.items()
        ]
        return sorted(found, key=lambda item: (item[1].y, item[1].x))

    def beside(self, here: Box, how: str, page: int) -> AgentKey | None:
        """Whose box a move from `here` leads to: the nearest in that direction; None when there is none."""
        boxes = self.boxes
        rows = {"up": -1, "down": 1, "page_up": -page, "page_down": page, "half_up": -page // 2, "half_down": page // 2}
        match how:
            case "left":
                near = [(here.x - box.x, key) for key, box in boxes if box.y == here.y and box.x < here.x]
            case "right":
                near = [(box.x - here.x, key) for key, box in boxes if box.y == here.y and box.x > here.x]
            case "top" | "bottom":
                return boxes[0 if how == "top" else -1][0]
            case _:
                step = rows[how]
                wished = here.y + step
                ahead = [(key, box) for key, box in boxes if (box.y - here.y) * step > 0]
                found = [(abs(box.y - wished), abs(box.x - here.x), key) for key, box in ahead]
                return min(found)[-1] if found else None
        return min(near)[-1] if near else None


def compose(fleets: Sequence[Fleet], width: int, height: int) -> Scene:
    """The picture for a window of `width` × `height` cells."""
    graphs = [(fleet.host, dag.build(fleet.specs, fleet.chosen)) for fleet in fleets]
    nodes, edges = sum(len(graph.names) for _, graph in graphs), sum(len(graph.edges) for _, graph in graphs)
    if nodes > drawing.MOST_NODES or edges > drawing.MOST_EDGES:
        return Scene(too_many=f"{nodes:,} agents and {edges:,} dependencies are too many to draw")
    parts: list[Part] = []
    top = 0
    for host, graph in graphs:
        top += len(graphs) > 1
        made = drawing.draw(graph, width, height)
        parts.append(Part(host, graph, made, top))
        top += made.height + 1
    return Scene(tuple(parts))
