"""The graph of a host as a file: Mermaid for documents, JSON for programs. Pure, but for `export`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from toka_console.graph.critical import Critical, critical_path
from toka_console.graph.dag import Dag, build
from toka_runtime.errors import UsageError
from toka_runtime.protocol.ids import AgentName, HostId
from toka_runtime.protocol.snapshot import AgentView
from toka_runtime.whole_file import write_new

SUFFIXES = (".mmd", ".json")
Graphs = Mapping[HostId, Mapping[AgentName, AgentView]]
"""The agents of each host."""


class Drawn(NamedTuple):
    dag: Dag
    critical: Critical
    views: Mapping[AgentName, AgentView]


Hosts = Mapping[HostId, Drawn]


class Written(NamedTuple):
    agents: int
    edges: int
    bytes: int
    digest: str
    """SHA-256 of the file, in hex."""


def export(path: Path, fleets: Graphs) -> Written:
    """Write the graphs to a file that must not be there yet, as its suffix says. Raises OSError."""
    hosts: dict[HostId, Drawn] = {}
    for host, views in fleets.items():
        dag = build(view.spec for view in views.values())
        hosts[host] = Drawn(dag, critical_path(dag, views), views)
    data = (mermaid(hosts) if path.suffix == ".mmd" else to_json(hosts)).encode()
    write_new(path, data)
    agents = sum(len(drawn.dag.names) for drawn in hosts.values())
    edges = sum(len(drawn.dag.edges) for drawn in hosts.values())
    return Written(agents, edges, len(data), hashlib.sha256(data).hexdigest())


def mermaid(graphs: Hosts) -> str:
    """One flowchart, a subgraph for each host: dotted arrows are optional, the critical path is outlined."""
    lines = ["flowchart TB"]
    for number, (host, (dag, critical, views)) in enumerate(graphs.items()):
        lines.append(f'  subgraph h{number}["{_quoted(host)}"]')
        ids = {name: f"n{number}_{place}" for place, name in enumerate(dag.names)}
        for name in dag.names:
            state = views[name].state.value if name in views else "not loaded"
            lines.append(f'    {ids[name]}["{_quoted(name)}<br/>{state}"]')
        for edge in dag.edges:
            arrow = "-.->" if edge.closes_cycle or not edge.required else "-->"
            label = "" if edge.condition == "completed" else f"|{edge.condition}|"
            lines.append(f"    {ids[edge.before]} {arrow}{label} {ids[edge.after]}")
        lines.append("  end")
        if len(critical.agents) > 1:
            lines.append(f"  class {','.join(ids[name] for name in critical.agents)} critical")
    lines.append("  classDef critical stroke-width:3px")
    return "".join(line + "\n" for line in lines)


def to_json(graphs: Hosts) -> str:
    """{hosts: [{host, agents, edges, critical_path}]}"""
    hosts: list[dict[str, Any]] = [
        {
            "host": host,
            "agents": [
                {
                    "name": name,
                    "loaded": name not in dag.missing,
                    "state": views[name].state.value if name in views else None,
                    "blockers": list(views[name].blockers) if name in views else [],
                }
                for name in dag.names
            ],
            "edges": [
                {
                    "before": edge.before,
                    "after": edge.after,
                    "required": edge.required,
                    "condition": edge.condition,
                    "closes_cycle": edge.closes_cycle,
                }
                for edge in dag.edges
            ],
            "critical_path": {"agents": list(critical.agents), "duration_s": critical.duration_s},
        }
        for host, (dag, critical, views) in graphs.items()
    ]
    return json.dumps({"hosts": hosts}, indent=2, ensure_ascii=False) + "\n"


def _quoted(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def target(text: str) -> Path:
    """The file that the operator named. Raises UsageError for another suffix."""
    path = Path(text).expanduser()
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path.name}: what is it to be?", hint="end its name in .mmd (Mermaid) or .json")
    return path
