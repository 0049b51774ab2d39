"""`toka-runtime plan`: what a run would do, before it does it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toka_runtime.cli.exit_codes import ExitCode
from toka_runtime.cli.render import Style, clean, counted, print_json
from toka_runtime.cli.validate import print_problems, with_rights
from toka_runtime.client.arguments import add_catalogue_argument
from toka_runtime.policy.catalogue import Catalogue, load_catalogue, operators_files
from toka_runtime.policy.rules import compile_rights
from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.spec import AgentSpec, Dependency, DependencyCondition
from toka_runtime.specs.findings import did_you_mean
from toka_runtime.specs.graph import Graph, build_graph
from toka_runtime.specs.loader import LoadReport, load_paths

_CONDITIONS = {
    DependencyCondition.STARTED: "to start",
    DependencyCondition.COMPLETED: "to complete",
    DependencyCondition.VERIFIED: "to complete and be verified",
}


@dataclass(frozen=True, slots=True)
class AgentPlan:
    name: AgentName
    spec: AgentSpec
    level: int
    waits: tuple[str, ...]
    """Why it would not start at once, one sentence each."""
    rights: Rights
    tasks: int
    """Enabled ones."""


@dataclass(frozen=True, slots=True)
class Plan:
    agents: tuple[AgentPlan, ...]
    """In start order."""
    graph: Graph
    left_out: dict[AgentName, str]
    """Good specs that cannot run, and why."""
    conditions: dict[str, tuple[AgentName, ...]]
    """Every condition of the fleet → the agents that have tasks for it."""
    enabled: frozenset[str]
    max_agents: int | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="spec files, or folders of them")
    add_catalogue_argument(parser)
    parser.add_argument("--format", choices=("text", "mermaid", "json"), default="text", help="default: text")
    parser.add_argument("--enable", action="append", default=[], metavar="NAME", help="switch on conditional tasks")
    parser.add_argument("--max-agents", type=_positive, metavar="N", help="how many agents would run at once")


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError("a whole number, at least 1")
    return int(text)


def execute(args: argparse.Namespace) -> int:
    catalogue = load_catalogue(operators_files(args.catalogue))
    report = with_rights(load_paths(args.paths), catalogue)
    print_problems(report, sys.stderr)
    plan = make_plan(report, catalogue, frozenset(args.enable), args.max_agents)
    for name in sorted(plan.enabled - set(plan.conditions)):
        hint = did_you_mean(name, plan.conditions)
        print(f"note: no spec has tasks for the condition {clean(name)!r} {hint}".rstrip(), file=sys.stderr)
    match args.format:
        case "mermaid":
            sys.stdout.write(plan.graph.to_mermaid())
        case "json":
            print_json(_as_json(plan, report))
        case _:
            _print_text(plan)
    return ExitCode.OK if report.ok else ExitCode.FAILED


def make_plan(report: LoadReport, catalogue: Catalogue, enabled: frozenset[str], max_agents: int | None = None) -> Plan:
    """A plan of the good specs; those that require one that is not good are left out."""
    specs = {spec.name: spec for spec in report.specs}
    left_out = _left_out(specs)
    graph = build_graph([spec for name, spec in specs.items() if name not in left_out], enabled)
    if max_agents is None and report.fleet is not None:
        max_agents = report.fleet.max_concurrent_agents
    agents = tuple(
        AgentPlan(
            name=name,
            spec=graph.specs[name],
            level=level,
            waits=tuple(_waits(graph, name, level, position, max_agents)),
            rights=compile_rights(graph.specs[name], catalogue),
            tasks=len(graph.specs[name].enabled_tasks(enabled)),
        )
        for level, names in enumerate(graph.levels, 1)
        for position, name in enumerate(names)
    )
    in_order = {name: number for number, name in enumerate(graph.order)}
    conditions: dict[str, tuple[AgentName, ...]] = {}
    for name in graph.order:
        for condition in dict.fromkeys(task.condition for task in graph.specs[name].tasks if task.condition):
            conditions[condition] = (*conditions.get(condition, ()), name)
    return Plan(
        agents=tuple(sorted(agents, key=lambda agent: in_order[agent.name])),
        graph=graph,
        left_out=left_out,
        conditions=conditions,
        enabled=enabled,
        max_agents=max_agents,
    )


def _left_out(specs: dict[AgentName, AgentSpec]) -> dict[AgentName, str]:
    found: dict[AgentName, str] = {}
    while True:
        more = {
            name: f"requires {dependency.agent}, which cannot run"
            for name, spec in specs.items()
            if name not in found
            for dependency in spec.dependencies
            if dependency.required and (dependency.agent not in specs or dependency.agent in found)
        }
        if not more:
            return found
        found |= more


def _waits(graph: Graph, name: AgentName, level: int, position: int, max_agents: int | None) -> Iterable[str]:
    for dependency in graph.dependencies(name):
        if dependency.agent in graph.specs:
            yield _wait(dependency)
    if max_agents is not None and position >= max_agents:
        yield f"for a free slot: {max_agents} run at once, {position} of its level go first"


def _wait(dependency: Dependency) -> str:
    reason = f": {dependency.reason}" if dependency.reason else ""
    if dependency.required:
        return f"for {dependency.agent} {_CONDITIONS[dependency.condition]}{reason}"
    return f"for {dependency.agent} {_CONDITIONS[dependency.condition]}, or to end (optional){reason}"


def _print_text(plan: Plan) -> None:
    style = Style(sys.stdout)
    slots = f", at most {plan.max_agents} at once" if plan.max_agents else ""
    size = f"{counted(len(plan.agents), 'agent')} in {counted(len(plan.graph.levels), 'level')}"
    print(style("bold", f"start order: {size}{slots}"))
    for number, agent in enumerate(plan.agents, 1):
        print(f"{number:>3}  {style('bold', agent.name)}  {agent.spec.priority.value}, {counted(agent.tasks, 'task')}")
        for wait in agent.waits:
            print(f"     waits {clean(wait)}")
    for name, why in plan.left_out.items():
        print(f"  {style('red', '✗')}  {style('bold', name)}  left out: {clean(why)}")
    print(f"\n{style('bold', 'dependency graph')}\n{plan.graph.to_text()}", end="")
    if plan.conditions:
        print(f"\n{style('bold', 'conditional tasks')}")
        for condition, names in plan.conditions.items():
            state = "on" if condition in plan.enabled else f"off; --enable {condition} switches them on"
            print(f"  {clean(condition)} ({', '.join(names)}): {clean(state)}")
    print(f"\n{style('bold', 'effective rights')}")
    for agent in plan.agents:
        print(f"  {style('bold', agent.name)}")
        for line in agent.rights.text:
            refused = line.startswith("not granted")
            print(f"    {style('yellow', clean(line)) if refused else clean(line)}")


def _as_json(plan: Plan, report: LoadReport) -> dict[str, Any]:
    return {
        "agents": [
            {
                "name": agent.name,
                "file": agent.spec.file,
                "priority": agent.spec.priority.value,
                "level": agent.level,
                "tasks": agent.tasks,
                "waits": list(agent.waits),
                "rights": {
                    "text": list(agent.rights.text),
                    "tools": list(agent.rights.tools),
                    "unknown": list(agent.rights.unknown),
                    "refused": list(agent.rights.refused),
                },
            }
            for agent in plan.agents
        ],
        "graph": plan.graph.to_json(),
        "left_out": plan.left_out,
        "conditions": {
            name: {"enabled": name in plan.enabled, "agents": list(agents)} for name, agents in plan.conditions.items()
        },
        "max_agents": plan.max_agents,
        "problems": [problem.model_dump() for problem in report.errors],
    }
