"""What the report tells of one agent, gathered while its events go by: bounded however many there are. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from toka_runtime.protocol import events as ev
from toka_runtime.protocol.ids import RunId

MOST = 500
"""Lines of one kind that a report has; the rest is counted, and whole in the bundle."""

_ACTS = (
    ev.CommandHandled,
    ev.BudgetSet,
    ev.ApprovalDecided,
    ev.GrantIssued,
    ev.GrantRevoked,
    ev.CapabilityWithdrawn,
    ev.CapabilityRestored,
    ev.RuntimeStarted,
    ev.RuntimeStopped,
)
_EVERYBODY = frozenset({"", "all", "fleet", "day"})
"""Targets of commands that are about every agent."""


@dataclass(slots=True)
class Lines:
    """The first `MOST` lines, and how many there are."""

    kept: list[str] = field(default_factory=list[str])
    count: int = 0

    def add(self, at: datetime, text: str) -> None:
        self.count += 1
        if len(self.kept) < MOST:
            self.kept.append(f"{stamp(at)}  {text}")


@dataclass(slots=True)
class Story:
    first: datetime | None = None
    last: datetime | None = None
    kinds: Counter[str] = field(default_factory=Counter[str])
    runs: dict[RunId, None] = field(default_factory=dict[RunId, None])
    """In the order in which they began."""
    states: Lines = field(default_factory=Lines)
    denials: Lines = field(default_factory=Lines)
    acts: Lines = field(default_factory=Lines)
    """Of operators, as far as they are in the agent's own slice."""
    redactions: int = 0
    """In requests to the model, when they were made."""

    def add(self, envelopes: Iterable[ev.Envelope]) -> None:
        for envelope in envelopes:
            self.first = self.first or envelope.at
            self.last = envelope.at
            self.kinds[envelope.event.kind] += 1
            if envelope.run is not None:
                self.runs.setdefault(envelope.run)
            self._tell(envelope)

    def _tell(self, envelope: ev.Envelope) -> None:
        at = envelope.at
        match envelope.event:
            case ev.AgentStateChanged() as event:
                why = f": {shown(event.detail)}" if event.detail else ""
                self.states.add(at, f"{event.before} → {event.after}, {event.reason or 'no reason given'}{why}")
            case ev.OperationDenied(denial=denial, count=count):
                what = f"{denial.operation.kind} {shown(denial.operation.target)}"
                times = f" ({count} times)" if count > 1 else ""
                self.denials.add(at, f"{what}: refused by {denial.layer}, rule {shown(denial.rule)}{times}")
            case ev.ModelCallEnded(redactions=redactions):
                self.redactions += redactions
            case event if act := act_text(event):
                self.acts.add(at, act)
            case _:
                pass


def act_text(event: ev.Event) -> str:
    """What an operator did, in one line; "" for what no operator does."""
    if not isinstance(event, _ACTS):
        return ""
    match event:
        case ev.CommandHandled():
            end = "done" if event.ok else f"refused: {event.message}"
            why = f", because: {event.reason}" if event.reason else ""
            text = f"{event.actor}: {event.name} {event.target}: {end}{why}"
        case ev.BudgetSet():
            text = f"{event.actor}: new budget of {event.scope} {event.name}".rstrip()
        case ev.ApprovalDecided():
            text = f"{event.actor or 'nobody'}: request {event.approval}: {event.outcome}"
        case ev.GrantIssued(grant=grant):
            text = f"{grant.actor}: grant {grant.id}: {grant.text}"
        case ev.GrantRevoked():
            text = f"{event.actor}: grant {event.grant} revoked"
        case ev.CapabilityWithdrawn():
            text = f"{event.actor}: capability {event.capability} withdrawn"
        case ev.CapabilityRestored():
            text = f"{event.actor}: capability {event.capability} restored"
        case ev.RuntimeStarted():
            text = f"the runtime {event.version} was started"
        case ev.RuntimeStopped():
            text = f"the runtime was stopped: {event.reason}"
    return shown(text)


def concerns(event: ev.Event, names: Collection[str]) -> bool:
    """Whether an event that is no agent's own is about one of these agents, or about all."""
    match event:
        case ev.CommandHandled(target=target):
            words = {word for piece in target.split(",") for word in piece.replace(":", "/").split("/")}
            return target in _EVERYBODY or not words.isdisjoint((*names, *_EVERYBODY))
        case ev.BudgetSet(name=name):
            return not name or name.partition("/")[0] in names
        case _:
            return True


def stamp(at: datetime) -> str:
    at = at.astimezone(UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"


def shown(text: str, keep: str = "") -> str:
    """Text that acts on no terminal: what is not printable, but the characters in `keep`, is written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)
