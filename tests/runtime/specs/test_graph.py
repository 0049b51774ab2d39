"""The dependency graph: order, levels, critical path, what is dropped, what is missing; drawn three ways."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toka_runtime.errors import GraphError
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.spec import AgentSpec, Dependency, DependencyCondition, Priority, TaskSpec
from toka_runtime.specs.cycles import cycle_through, strongly_connected
from toka_runtime.specs.graph import build_graph
from toka_runtime.specs.loader import load_paths


def agent(
    name: str, *requires: str, optional: tuple[str, ...] = (), priority: str = "medium", hours: float | None = None
) -> AgentSpec:
    return AgentSpec(
        name=AgentName(name),
        priority=Priority(priority),
        tasks=(TaskSpec(description="d", estimated_duration_s=None if hours is None else hours * 3600),),
        dependencies=tuple(
            [Dependency(agent=AgentName(other)) for other in requires]
            + [Dependency(agent=AgentName(other), required=False) for other in optional]
        ),
    )


def test_order_is_dependency_then_priority_then_name() -> None:
    graph = build_graph(
        [agent("z", priority="low"), agent("b"), agent("a"), agent("urgent", "z", priority="critical"), agent("c", "a")]
    )
    assert graph.order == ("a", "b", "c", "z", "urgent")
    assert graph.levels == (("a", "b", "z"), ("c", "urgent"))


def test_the_published_fleet(toka_specs: Path) -> None:
    graph = build_graph(load_paths([toka_specs]).specs)
    assert graph.levels[0] == ("build-system-stabilization",)
    assert len(graph.order) == 9
    assert graph.notes == ()
    assert graph.missing == {}
    assert graph.critical.agents[:3] == (
        "build-system-stabilization",
        "testing-infrastructure",
        "kernel-events-enhancement",
    )
    assert graph.critical.duration_s is None
    assert len(graph.dependants(AgentName("build-system-stabilization"))) == 8


def test_optional_dependencies_that_would_close_a_cycle_are_dropped_with_a_note() -> None:
    graph = build_graph([agent("a", optional=("b",)), agent("b", optional=("a",)), agent("c", "b", optional=("a",))])
    assert graph.order == ("b", "a", "c")
    assert graph.notes == ("b does not wait for a (optional): that would close a cycle",)
    assert graph.dependencies(AgentName("b")) == ()
    assert [d.agent for d in graph.dependencies(AgentName("c"))] == ["b", "a"]


def test_of_two_wishes_in_a_circle_the_more_urgent_agent_keeps_its_own() -> None:
    graph = build_graph([agent("a", optional=("b",)), agent("b", optional=("a",), priority="critical")])
    assert graph.order == ("a", "b")


def test_a_required_dependency_beats_an_optional_one() -> None:
    graph = build_graph([agent("a", optional=("b",), priority="critical"), agent("b", "a")])
    assert graph.order == ("a", "b")
    assert len(graph.notes) == 1


def test_an_agent_does_not_wait_for_itself() -> None:
    assert build_graph([agent("a", optional=("a",))]).dependencies(AgentName("a")) == ()


def test_required_cycles_and_twins_are_errors() -> None:
    with pytest.raises(GraphError, match="a → b → c → a"):
        build_graph([agent("a", "b"), agent("b", "c"), agent("c", "a"), agent("d", "a")])
    with pytest.raises(GraphError, match="a → a"):
        build_graph([agent("a", "a")])
    with pytest.raises(GraphError, match="two agents are named a"):
        build_graph([agent("a"), agent("a")])


def test_what_is_absent_has_no_edge_but_is_still_a_dependency() -> None:
    graph = build_graph([agent("a", "gone", optional=("also-gone",))])
    assert graph.edges == ()
    assert [d.agent for d in graph.missing[AgentName("a")]] == ["gone", "also-gone"]
    assert [d.agent for d in graph.dependencies(AgentName("a"))] == ["gone", "also-gone"]
    assert "gone (required), also-gone (optional)" in graph.to_text()


def test_the_critical_path_is_the_longest_chain_in_time() -> None:
    quick = [agent("a", hours=1), agent("b", "a", hours=1), agent("c", "b", hours=1)]
    graph = build_graph([*quick, agent("slow", "a", hours=9)])
    assert graph.critical.agents == ("a", "slow")
    assert graph.critical.duration_s == 10 * 3600
    assert "about 10h" in graph.to_text()


def test_without_an_estimate_the_mean_is_assumed_and_said() -> None:
    graph = build_graph([agent("a", hours=2), agent("b", "a"), agent("c", hours=3)])
    assert graph.critical.agents == ("a", "b")
    assert graph.critical.duration_s == (2 + 2.5) * 3600
    assert graph.critical.assumed == ("b",)
    assert "1 of them without an estimate" in graph.to_text()


def test_conditional_tasks_count_only_when_enabled() -> None:
    tasks = (
        TaskSpec(description="d", estimated_duration_s=60),
        TaskSpec(description="more", condition="extra", estimated_duration_s=600),
    )
    spec = AgentSpec(name=AgentName("a"), tasks=tasks)
    assert build_graph([spec]).critical.duration_s == 60
    assert build_graph([spec], frozenset({"extra"})).critical.duration_s == 660


def test_an_empty_fleet() -> None:
    graph = build_graph([])
    assert (graph.order, graph.levels, graph.critical.agents) == ((), (), ())
    assert graph.to_text() == ""
    assert graph.to_mermaid() == "flowchart LR\n"


def test_drawn_as_text_mermaid_and_json() -> None:
    verified = Dependency(agent=AgentName("a"), condition=DependencyCondition.VERIFIED, reason="why")
    last = AgentSpec(name=AgentName("c"), dependencies=(verified,))
    graph = build_graph([agent("a"), agent("b", optional=("a",)), last])
    assert graph.to_text().splitlines() == [
        "level 1",
        "  ★ a  medium",
        "level 2",
        "  ★ b  medium    ← a?",
        "  · c  medium    ← a (verified)",
        "",
        "★ critical path: a → b (2 in a row)",
    ]
    assert graph.to_mermaid().splitlines() == [
        "flowchart LR",
        '  n0["a"]',
        '  n1["b"]',
        '  n2["c"]',
        "  n0 -.-> n1",
        "  n0 -->|verified| n2",
        "  classDef critical stroke-width:3px",
        "  class n0,n1 critical",
    ]
    drawn = json.loads(json.dumps(graph.to_json()))
    assert drawn["order"] == ["a", "b", "c"]
    assert drawn["edges"][1] == {
        "before": "a",
        "after": "c",
        "required": True,
        "condition": "verified",
        "reason": "why",
    }
    assert drawn["critical_path"] == {"agents": ["a", "b"], "duration_s": None, "assumed": []}


def test_a_chain_of_thousands_is_no_deep_recursion() -> None:
    names = [f"a{n:04}" for n in range(3000)]
    chain = [agent(name, *([names[n - 1]] if n else [])) for n, name in enumerate(names)]
    assert build_graph(chain).order == tuple(names)
    ring = {name: [names[n - 1]] for n, name in enumerate(names)}
    assert [len(group) for group in strongly_connected(ring)] == [3000]
    assert len(cycle_through(names[0], ring, frozenset(names))) == 3001


names = st.sampled_from([f"n{k}" for k in range(8)])
edges = st.dictionaries(names, st.tuples(st.sets(names, max_size=3), st.sets(names, max_size=3)), max_size=8)


@given(edges, st.randoms())
def test_any_graph_is_ordered_or_has_a_required_cycle(shape: dict[str, tuple[set[str], set[str]]], random) -> None:
    specs = [agent(name, *sorted(r), optional=tuple(sorted(o - r))) for name, (r, o) in shape.items()]
    try:
        graph = build_graph(specs)
    except GraphError as error:
        path = error.message.removeprefix("dependency cycle: ").split(" → ")
        assert path[0] == path[-1]
        assert all(after in shape[before][0] for before, after in itertools.pairwise(path))
        return
    place = {name: number for number, name in enumerate(graph.order)}
    assert set(place) == set(shape)
    for edge in graph.edges:
        assert place[edge.before] < place[edge.after]
    for name, (required, optional) in shape.items():
        waits = {d.agent for d in graph.dependencies(AgentName(name))}
        assert required <= waits, "no required dependency is ever dropped"
        dropped = (optional - required) - waits
        assert len(dropped) <= len(graph.notes)
    random.shuffle(specs)
    assert build_graph(specs).order == graph.order, "the order does not depend on how files are named or listed"
