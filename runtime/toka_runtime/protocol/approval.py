"""Asking an operator for more than was declared: the request, what may be answered, and the grant that comes of it.

A request is answered by a command of an operator and by nothing else. A grant never outlives its run.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from enum import StrEnum
from typing import Any

from toka_runtime.protocol.capability import Denial, Operation
from toka_runtime.protocol.ids import AgentName, ApprovalId, CallId, GrantId, RunId
from toka_runtime.protocol.model import Model


class ApprovalMode(StrEnum):
    """What happens when an operation lies beyond the declared rights (`security.approvals`)."""

    DENY = "deny"
    ASK = "ask"


class GrantScope(StrEnum):
    """How long a grant holds, narrowest first. Each also ends with its run."""

    ONCE = "once"
    """This one call, with exactly these arguments."""
    TASK = "task"
    TTL = "ttl"
    """For a number of seconds. Time in which the agent is frozen does not count."""
    RUN = "run"


class Offer(Model):
    """One way to say yes."""

    scope: GrantScope
    wide: bool = False
    """It opens the folder around the exact target too."""
    ttl_s: float | None = None
    """Of TTL: what is meant when the operator names no other time."""
    text: str
    """Exactly what it opens and until when, in words."""


class ApprovalRequest(Model):
    """What an operator is shown. All text of the agent's is redacted, and characters that could mislead the eye
    (look-alikes, direction marks, controls) are written as `\\u202e`."""

    id: ApprovalId
    agent: AgentName
    run: RunId
    task: int
    turn: int
    call: CallId
    tool: str
    arguments: dict[str, Any]
    operations: tuple[Operation, ...]
    """Everything that the call would do."""
    denials: tuple[Denial, ...]
    """Those of the operations that nothing covers, each with the missing capability. Never empty."""
    warnings: tuple[str, ...] = ()
    """What in the request could mislead the eye, one sentence each."""
    digest: str
    """Of the request as asked (see `request_digest`); an answer has to repeat it."""
    offers: tuple[Offer, ...]
    """Narrowest first."""
    wait_s: float
    """Time to answer, in seconds in which the agent is not frozen; after it the request is denied."""
    count: int = 1
    """Equal calls that wait for the same answer."""


class ApprovalOutcome(StrEnum):
    ALLOWED = "allowed"
    DENIED = "denied"
    EXPIRED = "expired"
    """Nobody answered in time."""
    WITHDRAWN = "withdrawn"
    """The call or its run ended first."""


class Grant(Model):
    """Authority beyond the spec, given by an operator."""

    id: GrantId
    approval: ApprovalId
    agent: AgentName
    run: RunId
    task: int
    tool: str
    digest: str
    """Of the request that it answers. A grant for ONCE covers a call of this digest only."""
    scope: GrantScope
    opens: tuple[Operation, ...]
    """A path that ends in `/` is the tree below it."""
    text: str
    """Exactly what it opens and until when, in words."""
    ttl_s: float | None = None
    actor: str
    issued_at: datetime

    @property
    def rule(self) -> str:
        """The rule that decisions carry which rest on this grant."""
        return f"grant:{self.id}"


class GrantEnd(StrEnum):
    USED = "used"
    """It was for one call."""
    TIME = "time"
    TASK = "task"
    RUN = "run"


def request_digest(agent: AgentName, run: RunId, tool: str, arguments: dict[str, Any]) -> str:
    """SHA-256 in hex over the canonical JSON: another agent, run, tool or argument is another digest."""
    asked = json.dumps([agent, run, tool, arguments], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(asked.encode()).hexdigest()
