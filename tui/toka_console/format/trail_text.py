"""One event of the audit trail as people read it: its line, who acted, what a filter sees. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from toka_console.format.units import elapsed, plural, size
from toka_runtime.protocol import events as ev

FILTER_KEYS = ("agent", "host", "kind", "actor", "layer", "cap", "run", "text")
_GROUPS = {
    "tool": "operation", "operation.allowed": "operation", "operation.denied": "denial", "model": "model",
    "agent.limit_reached": "limit", "agent.limits_in_force": "limit", "agent.state_changed": "state",
    "task": "task", "approval": "approval", "grant": "grant", "capability": "grant", "budget": "budget",
    "command": "operator", "agent": "agent", "runtime": "runtime", "host": "runtime", "spec": "spec",
}  # fmt: skip
"""Kind, or what it begins with → the word in the table."""


class Line(NamedTuple):
    text: str
    role: str
    """Colour role of `themes.Palette`."""


def group(kind: str) -> str:
    """What sort of event it is, in a word."""
    return _GROUPS.get(kind) or _GROUPS.get(kind.split(".")[0], "other")


def line(envelope: ev.Envelope) -> Line:
    """What happened; every event has a line here."""
    from toka_console import record

    event = envelope.event
    match event:
        case ev.CommandHandled():
            return _command(event)
        case ev.ToolCallStarted():
            return Line(f"asked: {event.tool} {event.target}".rstrip(), "base")
        case ev.ToolCallEnded():
            return _outcome(event)
        case ev.OperationAllowed():
            return Line(f"allowed by {event.rule}: {event.operation} {event.target}", "muted")
        case ev.ModelCallStarted():
            return Line(f"asked {event.provider} {event.model}, task {event.task + 1} turn {event.turn}", "muted")
        case ev.ModelCallEnded(outcome="ok"):
            cost = "unpriced" if event.cost_usd is None else f"${event.cost_usd:.4f}"
            used = f"{event.usage.total_tokens:,} tokens, {cost}, {elapsed(event.duration_s)}"
            return Line(f"{event.model} answered: {used}", "muted")
        case ev.GrantUsed():
            return Line(f"grant {event.grant} used: {event.tool} {', '.join(event.targets)}", "info")
        case ev.SpecLoaded():
            return Line(f"spec loaded: {event.spec.file}", "muted")
        case ev.ProcessStarted():
            return Line(f"process {event.process.pid} started", "muted")
        case _:
            pass
    known = record.activity(envelope)
    return Line(known.text, known.role) if known is not None else _plain(event)


def _command(event: ev.CommandHandled) -> Line:
    why = f" · reason: {event.reason}" if event.reason else ""
    what = f"{event.name} {event.target}".rstrip()
    if event.ok:
        return Line(f"{what}: done{why}", "info")
    return Line(f"{what}: refused: {event.message}{why}", "warn")


def _outcome(event: ev.ToolCallEnded) -> Line:
    text = f"{event.outcome}: {event.tool}, {elapsed(event.duration_s)}, {size(event.result_bytes)}"
    role = {"ok": "muted", "cancelled": "muted", "denied": "bad", "error": "warn", "unknown": "warn"}[event.outcome]
    return Line(text, role)


def _plain(event: ev.Event) -> Line:
    """Kinds without words of their own: their figures and short texts by name."""
    parts: list[str] = []
    for name in type(event).model_fields:
        value: Any = getattr(event, name)
        if name != "kind" and isinstance(value, (str, int, float)) and value not in ("", 0):
            parts.append(f"{name.replace('_', ' ')} {value}")
        elif isinstance(value, tuple) and value:
            parts.append(f"{name.replace('_', ' ')} {plural(len(cast('tuple[Any, ...]', value)), 'item')}")
    kind = str(getattr(event, "kind", "")).split(".")[-1].replace("_", " ")
    return Line(f"{kind}: {', '.join(parts)}" if parts else kind, "muted")


def actor(envelope: ev.Envelope) -> str:
    """Who acted: the operator and from where, else the agent, else the runtime."""
    event = envelope.event
    match event:
        case (
            ev.CommandHandled()
            | ev.ApprovalDecided()
            | ev.GrantRevoked()
            | ev.CapabilityWithdrawn()
            | ev.CapabilityRestored()
            | ev.BudgetSet()
        ):
            by = event.actor
        case ev.GrantIssued():
            by = event.grant.actor
        case ev.ToolCallStarted() | ev.ModelCallStarted() | ev.OperationDenied() | ev.ApprovalRequested():
            by = envelope.agent or ""
        case _:
            by = ""
    return by or "runtime"


def fields(envelope: ev.Envelope, text: str) -> dict[str, str | float]:
    """What a filter looks in."""
    event = envelope.event
    layer = cap = ""
    match event:
        case ev.OperationDenied():
            layer, cap = event.denial.layer.value, event.denial.capability
        case ev.OperationAllowed():
            cap = event.capability
        case ev.ApprovalRequested():
            layer = " ".join(denial.layer.value for denial in event.request.denials)
            cap = " ".join(denial.capability for denial in event.request.denials)
        case _:
            pass
    agent, by = envelope.agent or "", actor(envelope)
    return {
        "agent": agent,
        "host": envelope.host,
        "kind": f"{event.kind} {group(event.kind)}",
        "actor": by,
        "layer": layer,
        "cap": cap,
        "run": envelope.run or "",
        "text": f"{agent} {event.kind} {by} {text}",
    }
