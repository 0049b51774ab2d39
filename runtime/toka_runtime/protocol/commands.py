"""Commands: imperative, in. What a front end may ask a runtime; every one is answered by a `CommandResult`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from toka_runtime.protocol.approval import GrantScope
from toka_runtime.protocol.budget import BudgetScope
from toka_runtime.protocol.ids import AgentName, ApprovalId, CommandId, GrantId, RunId, RunRef
from toka_runtime.protocol.model import Model
from toka_runtime.protocol.roles import Role
from toka_runtime.protocol.usage import Budget


class StartAgent(Model):
    op: Literal["agent.start"] = "agent.start"
    agent: AgentName


class StartFleet(Model):
    """Start every loaded agent in dependency order."""

    op: Literal["fleet.start"] = "fleet.start"


class PauseKind(StrEnum):
    HARD = "hard"
    """The whole tree is frozen, now."""
    SOFT = "soft"
    """It goes on to its next step (model call or tool call) and waits there; nothing is frozen."""
    INTERRUPT = "interrupt"
    """What it does is broken off: the answer of the model is kept as far as it came, open tool calls are answered as
    cancelled. Then as soft."""


class PauseAgent(Model):
    op: Literal["agent.pause"] = "agent.pause"
    target: RunRef
    kind: PauseKind = PauseKind.HARD


class ResumeAgent(Model):
    op: Literal["agent.resume"] = "agent.resume"
    target: RunRef


class StopAgent(Model):
    """TERM, grace, then kill."""

    op: Literal["agent.stop"] = "agent.stop"
    target: RunRef
    grace_s: float = 5.0


class KillAgent(Model):
    """The whole tree, now."""

    op: Literal["agent.kill"] = "agent.kill"
    target: RunRef


class RestartAgent(Model):
    op: Literal["agent.restart"] = "agent.restart"
    target: RunRef


class PauseFleet(Model):
    """Pause everything in scope at once, also what is starting or is to start. `agents` empty: all."""

    op: Literal["fleet.pause"] = "fleet.pause"
    agents: tuple[AgentName, ...] = ()
    kind: PauseKind = PauseKind.HARD


class ResumeFleet(Model):
    op: Literal["fleet.resume"] = "fleet.resume"
    agents: tuple[AgentName, ...] = ()


class DecideApproval(Model):
    """Answer a request. Refused when it waits no more, when the digest is not the one that was shown, and when the
    answer is none of its offers."""

    op: Literal["approval.decide"] = "approval.decide"
    target: RunRef
    approval: ApprovalId
    digest: str
    allow: bool
    scope: GrantScope = GrantScope.ONCE
    wide: bool = False
    """The folder around the target too, where an offer says so."""
    ttl_s: float | None = None
    """With scope TTL: how long, at most one day; None: as offered."""


class RevokeGrant(Model):
    """No operation after this is allowed by the grant; its open connections are closed."""

    op: Literal["grant.revoke"] = "grant.revoke"
    target: RunRef
    grant: GrantId


class WithdrawCapability(Model):
    """From the answer on nothing that begins rests on the capability, whatever the spec declares; calls in progress and
    open connections are ended (of a frozen agent: when it goes on). It holds for later runs, too, until restored."""

    op: Literal["capability.withdraw"] = "capability.withdraw"
    target: RunRef
    capability: str


class RestoreCapability(Model):
    """The agent's next run has the capability again."""

    op: Literal["capability.restore"] = "capability.restore"
    target: RunRef
    capability: str


class SetBudget(Model):
    """A new cap for one account, or, without a name, for each account of the scope; both None: none any more. Agents
    that wait for it go on. `name`: an agent, `agent/0` for its first task, an ISO date."""

    op: Literal["budget.set"] = "budget.set"
    scope: BudgetScope
    name: str = ""
    budget: Budget


class ReadEvents(Model):
    """Query: durable envelopes of the log. Answer data: {"events": [...], "more": bool}."""

    op: Literal["events.read"] = "events.read"
    after_seq: int = 0
    before_seq: int | None = None
    agent: AgentName | None = None
    kinds: tuple[str, ...] = ()
    limit: int = 1000
    newest_first: bool = False


class ReadDiff(Model):
    """Query: the git diff of an agent's worktree against its base. Answer data: {"diff": str, "truncated": bool}."""

    op: Literal["agent.diff"] = "agent.diff"
    agent: AgentName
    max_bytes: int = 1_000_000


class ReadTranscript(Model):
    """Query: a page of a run's journal, as its runtime has it, without secrets: what the model was told and said
    (`turns`), the tool calls in full (`calls`), or how its tasks ended (`results`). Answer data: {"records": [...],
    "next": int | None, "redactions": int}; `next` is what to ask for with `after`, None at the end."""

    op: Literal["transcript.read"] = "transcript.read"
    run: RunId
    part: Literal["turns", "calls", "results"] = "turns"
    after: int = 0
    limit: int = 500


Command = Annotated[
    StartAgent
    | StartFleet
    | PauseAgent
    | ResumeAgent
    | StopAgent
    | KillAgent
    | RestartAgent
    | PauseFleet
    | ResumeFleet
    | DecideApproval
    | RevokeGrant
    | WithdrawCapability
    | RestoreCapability
    | SetBudget
    | ReadEvents
    | ReadDiff
    | ReadTranscript,
    Field(discriminator="op"),
]

QUERIES = frozenset({"events.read", "agent.diff", "transcript.read"})
"""They change nothing and are not recorded."""


_OPERATORS = frozenset(
    {"agent.pause", "agent.resume", "fleet.pause", "fleet.resume", "approval.decide", "capability.withdraw"}
)


def may(role: Role, op: str) -> bool:
    """Whether the role covers a command. One that is not listed takes an admin."""
    return op in QUERIES or role is Role.ADMIN or (role is Role.OPERATOR and op in _OPERATORS)


class CommandRequest(Model):
    id: CommandId
    actor: str
    """Who asks: `user@host (console)`, `cli`."""
    role: Role = Role.ADMIN
    """Set by whoever knows it: the runtime's end of the socket, whatever the other end says."""
    command: Command
    reason: str = ""


class CommandResult(Model):
    id: CommandId
    ok: bool
    code: str = ""
    """Error code when not ok."""
    message: str = ""
    seq: int = 0
    """Head of the log when it was carried out: the events up to here show its effect."""
    data: dict[str, Any] = Field(default_factory=dict)
