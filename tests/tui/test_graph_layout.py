"""The graph as a picture: properties of every drawing, whatever depends on what."""

from __future__ import annotations

from collections.abc import Container
from itertools import combinations, pairwise
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import fleet
from fakes.client import FakeRuntimeClient
from toka_console.graph import critical, dag, drawing
from toka_console.graph.dag import Dag, Pair
from toka_console.graph.drawing import DOWN, LEFT, RIGHT, UP, Drawing, Point
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.spec import AgentSpec, Dependency, Priority, TaskSpec
from toka_runtime.protocol.states import AgentState
from toka_runtime.specs.loader import load_paths


def spec(number: int, wishes: list[tuple[int, bool]]) -> AgentSpec:
    return AgentSpec(
        name=AgentName(f"agent-{number}"),
        priority=list(Priority)[number % 4],
        dependencies=tuple(Dependency(agent=AgentName(f"agent-{to}"), required=must) for to, must in wishes),
    )


wish = st.tuples(st.integers(0, 16), st.booleans())
"""An agent beyond the fleet is missing; cycles and agents that wait for themselves come by themselves."""
graphs = st.lists(st.lists(wish, max_size=4), min_size=1, max_size=14).map(
    lambda wishes: dag.build(spec(number, found) for number, found in enumerate(wishes))
)
sizes = st.tuples(st.integers(20, 220), st.integers(5, 60))


def inside(made: Drawing, point: Point) -> bool:
    return any(
        box.x <= point.x < box.x + box.width and box.y <= point.y < box.y + box.height for box in made.boxes.values()
    )


@settings(max_examples=150)
@given(graphs, sizes)
def test_every_drawing_is_sound(graph: Dag, size: tuple[int, int]) -> None:
    made = drawing.draw(graph, *size)
    assert made.boxes.keys() == set(graph.names)
    for one, two in combinations(made.boxes.values(), 2):
        apart_x = one.x + one.width <= two.x or two.x + two.width <= one.x
        assert apart_x or one.y + one.height <= two.y or two.y + two.height <= one.y, "boxes overlap"
    for box in made.boxes.values():
        assert box.x >= 0
        assert box.x + box.width <= made.width
        assert box.y + box.height <= made.height
    cells = made.cells(0, 0, made.width, made.height)
    assert not [point for point in cells if inside(made, point)], "a line runs through a box"
    for edge in graph.edges:
        assert_connects(made, edge.pair, cells)


def assert_connects(made: Drawing, pair: Pair, cells: Container[Point]) -> None:
    path = made.paths[pair]
    upper, lower = sorted((made.boxes[name] for name in pair), key=lambda box: box.y)
    last = path[-1].end
    begins = [end for end in (path[0].start, path[0].end) if end.y == upper.y + upper.height]
    assert any(upper.x < end.x < upper.x + upper.width - 1 for end in begins), "it leaves the box"
    assert last.y == lower.y - 1
    assert lower.x < last.x < lower.x + lower.width - 1, "it arrives at the box"
    assert last in made.arrows
    for one, two in pairwise(path):
        assert {one.start, one.end} & {two.start, two.end}, "the way has a hole"
    for line in path:
        for point, _ in line.cells(0, 0, made.width, made.height):
            assert point in cells, "a stretch of the way is not drawn"


@settings(max_examples=150)
@given(graphs, sizes)
def test_lines_of_different_agents_meet_in_crossings_only(graph: Dag, size: tuple[int, int]) -> None:
    made = drawing.draw(graph, *size)
    seen: dict[Point, dict[object, int]] = {}
    for _, _, lines in made.bands:
        for line in lines:
            for point, mask in line.cells(0, 0, made.width, made.height):
                nets = seen.setdefault(point, {})
                nets[line.net] = nets.get(line.net, 0) | mask
    for point, nets in seen.items():
        if len(nets) > 1:
            assert sorted(nets.values()) == [UP | DOWN, LEFT | RIGHT], f"{nets} at {point}"


@given(graphs, sizes)
def test_the_same_graph_gives_the_same_picture(graph: Dag, size: tuple[int, int]) -> None:
    assert drawing.draw(graph, *size) == drawing.draw(graph, *size)


@given(graphs)
def test_order_holds_and_only_what_closes_a_cycle_runs_upward(graph: Dag) -> None:
    place = {name: number for number, name in enumerate(graph.names)}
    made = drawing.draw(graph, 100, 30)
    for edge in graph.edges:
        upward = place[edge.before] > place[edge.after]
        assert upward <= edge.closes_cycle
        arrow = made.arrows[made.paths[edge.pair][-1].end]
        above = made.boxes[edge.before].y < made.boxes[edge.after].y
        assert (arrow == drawing.ARROW) == above or edge.closes_cycle


@given(graphs)
def test_a_window_shows_the_same_lines_as_the_whole(graph: Dag) -> None:
    made = drawing.draw(graph, 80, 20)
    whole = made.cells(0, 0, made.width, made.height)
    window = made.cells(5, 3, 30, 10)
    assert window == {point: cell for point, cell in whole.items() if 5 <= point.x < 35 and 3 <= point.y < 13}


def test_a_cycle_is_opened_at_an_optional_dependency() -> None:
    graph = dag.build([spec(0, [(1, True)]), spec(1, [(2, True)]), spec(2, [(0, False), (2, True), (99, True)])])
    assert [edge.pair for edge in graph.edges if edge.closes_cycle] == [("agent-0", "agent-2")]
    assert (graph.own, graph.missing) == ({"agent-2"}, {"agent-99"})
    assert graph.names == ("agent-99", "agent-2", "agent-1", "agent-0")
    assert graph.subtree(AgentName("agent-1")) == ("agent-1", "agent-0")


def test_the_published_specs_fit_a_common_terminal(toka_specs: Path) -> None:
    graph = dag.build(load_paths([toka_specs]).specs)
    made = drawing.draw(graph, 118, 34)
    assert (len(made.boxes), len(made.paths)) == (9, 19)
    assert made.width <= 118
    assert made.height <= 34
    assert drawing.draw(graph, 58, 9).width <= 58, "at 60 columns there is nothing to the side"


def test_a_thousand_agents_are_drawn_in_bounded_width() -> None:
    graph = dag.build(spec(number, [(number // 2, True), (number // 3, False)]) for number in range(1, 1000))
    made = drawing.draw(graph, 196, 44)
    assert len(made.boxes) == 1000
    assert made.width < 2000
    assert len(made.cells(0, made.height // 2, 196, 44)) > 0
    alone = drawing.draw(dag.build(spec(number, []) for number in range(1000)), 196, 44)
    assert alone.width <= 196, "agents without dependencies stand side by side"


def test_the_critical_path_is_what_is_left() -> None:
    client = FakeRuntimeClient()
    chain: dict[int, tuple[list[tuple[int, bool]], float | None]] = {
        0: ([], 60.0),
        1: ([(0, True)], 600.0),
        2: ([(0, True)], None),
        3: ([(2, True)], 30.0),
    }
    for number, (wishes, seconds) in chain.items():
        task = TaskSpec(description="work", estimated_duration_s=seconds)
        made = spec(number, wishes).model_copy(update={"tasks": (task,)})
        client.emit(ev.SpecLoaded(spec=made, rights=fleet.rights()))
    views = client.state.agents
    graph = dag.build(view.spec for view in views.values())
    found = critical.critical_path(graph, views)
    assert (found.agents, found.duration_s) == (("agent-0", "agent-1"), 660.0)
    fleet.start(client, "agent-1", 1)
    fleet.change(client, "agent-1", AgentState.FAILED)
    found = critical.critical_path(graph, client.state.agents)
    assert found.agents == ("agent-0", "agent-2", "agent-3"), "what has ended takes no more time"
    assert found.duration_s == 60 + 45 + 30, "without an estimate: the mean of the others"
    assert found.pairs == {("agent-0", "agent-2"), ("agent-2", "agent-3")}
