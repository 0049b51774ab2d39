"""The graph drawn: as text for a terminal, as a Mermaid flowchart for documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toka_runtime.protocol.spec import DependencyCondition
from toka_runtime.specs.units import format_duration

if TYPE_CHECKING:
    from toka_runtime.specs.graph import CriticalPath, Edge, Graph


def to_text(graph: Graph) -> str:
    """One block a level, one line an agent: `● name  priority  ← dependencies`; `?` marks an optional one, `★` the
    critical path. Ends with a newline; "" for an empty fleet."""
    width = max((len(name) for name in graph.order), default=0)
    lines: list[str] = []
    for number, level in enumerate(graph.levels, 1):
        lines.append(f"level {number}")
        for name in level:
            star = "★" if name in graph.critical.agents else "·"
            after = ", ".join(_arrow_text(edge) for edge in graph.into[name])
            line = f"  {star} {name:<{width}}  {graph.specs[name].priority.value:<8}"
            lines.append((line + (f"  ← {after}" if after else "")).rstrip())
    if graph.critical.agents:
        lines += ["", f"★ critical path: {critical_text(graph.critical)}"]
    lines += [f"note: {note}" for note in graph.notes]
    for name, absent in graph.missing.items():
        kinds = ", ".join(f"{d.agent} ({'required' if d.required else 'optional'})" for d in absent)
        lines.append(f"note: {name} depends on what is not there: {kinds}")
    return "".join(line + "\n" for line in lines)


def critical_text(critical: CriticalPath) -> str:
    """`a → b → c (3 agents in a row)` or `… (about 2h30m)`."""
    if critical.duration_s is None:
        length = f"{len(critical.agents)} in a row"
    else:
        length = f"about {format_duration(round(critical.duration_s))}"
        if critical.assumed:
            length += f"; {len(critical.assumed)} of them without an estimate count as the mean"
    return f"{' → '.join(critical.agents)} ({length})"


def to_mermaid(graph: Graph) -> str:
    """A flowchart: solid arrows are required, dotted ones optional; the critical path is outlined."""
    ids = {name: f"n{number}" for number, name in enumerate(graph.order)}
    lines = ["flowchart LR"]
    lines += [f'  {ids[name]}["{name}"]' for name in graph.order]
    for name in graph.order:
        for edge in graph.into[name]:
            label = "" if edge.condition is DependencyCondition.COMPLETED else f"|{edge.condition.value}|"
            lines.append(f"  {ids[edge.before]} {'-->' if edge.required else '-.->'}{label} {ids[edge.after]}")
    if len(graph.critical.agents) > 1:
        lines.append("  classDef critical stroke-width:3px")
        lines.append(f"  class {','.join(ids[name] for name in graph.critical.agents)} critical")
    return "".join(line + "\n" for line in lines)


def _arrow_text(edge: Edge) -> str:
    condition = "" if edge.condition is DependencyCondition.COMPLETED else f" ({edge.condition.value})"
    return f"{edge.before}{'' if edge.required else '?'}{condition}"
