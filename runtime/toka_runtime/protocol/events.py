"""Events: what happened, past tense, out. Each kind declares how it is delivered to a slow subscriber.

MUST: never dropped; a subscriber that cannot keep up is resynchronised with a snapshot. LATEST: only the newest per
(kind, agent) matters. APPEND: text that is merged and bounded, with what was dropped counted.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from toka_runtime.protocol.approval import ApprovalOutcome, ApprovalRequest, Grant, GrantEnd
from toka_runtime.protocol.budget import BudgetFigure, BudgetScope
from toka_runtime.protocol.capability import Denial, Rights
from toka_runtime.protocol.health import Health
from toka_runtime.protocol.ids import AgentName, ApprovalId, CallId, CommandId, GrantId, HostId, ProcessRef, RunId
from toka_runtime.protocol.limits import Culprit, LimitInForce, LimitName, LimitOutcome, figure_text
from toka_runtime.protocol.model import Model
from toka_runtime.protocol.protections import HostProtections, Protections
from toka_runtime.protocol.spec import AgentSpec
from toka_runtime.protocol.states import AgentState, StopReason, TaskState, Verdict
from toka_runtime.protocol.usage import Budget, HostUsage, TokenUsage, Usage


class Delivery(StrEnum):
    MUST = "must"
    LATEST = "latest"
    APPEND = "append"


class Event(Model):
    """Base of all events. Each has a `kind`, the discriminator on the wire."""

    delivery: ClassVar[Delivery] = Delivery.MUST
    durable: ClassVar[bool] = True
    """False: shown live but not kept in the log (samples)."""


# -- the runtime and its fleet ------------------------------------------------------------------------------------


class RuntimeStarted(Event):
    kind: Literal["runtime.started"] = "runtime.started"
    epoch: str
    version: str
    pid: int
    workspace: str
    provider: str
    """anthropic, rehearsal or replay."""
    provider_note: str = ""
    """Shown as a banner when not empty, e.g. that no model is used."""
    state_dir: str = ""
    boot_id: str = ""
    """Of the kernel: pids and start times of another boot name nobody of today."""


class ServiceStarted(Event):
    """A process of the runtime's own, so that the next runtime finds it when this one is killed."""

    kind: Literal["runtime.service_started"] = "runtime.service_started"
    service: Literal["fork server", "gateway"]
    process: ProcessRef


class RuntimeStopped(Event):
    kind: Literal["runtime.stopped"] = "runtime.stopped"
    reason: str = ""


class Level(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Noticed(Event):
    """Something an operator should know that is no state change. `code` is stable (see errors.py)."""

    kind: Literal["runtime.noticed"] = "runtime.noticed"
    level: Level
    code: str
    message: str
    hint: str = ""


class HostSampled(Event):
    kind: Literal["host.sampled"] = "host.sampled"
    delivery: ClassVar[Delivery] = Delivery.LATEST
    durable: ClassVar[bool] = False
    usage: HostUsage


class HostProbed(Event):
    """Every protection was tried on this host, once for the life of the runtime."""

    kind: Literal["host.probed"] = "host.probed"
    protections: HostProtections


class SpecLoaded(Event):
    """An agent is known; it has not been asked to start. `rights` is what its declared capabilities compile to."""

    kind: Literal["spec.loaded"] = "spec.loaded"
    spec: AgentSpec
    rights: Rights
    conditions: tuple[str, ...] = ()
    """Conditional task groups that are switched on."""
    kept: bool = False
    """The runtime before was killed, and the agent is where that left it."""


class ProblemView(Model):
    file: str
    line: int = 0
    column: int = 0
    code: str
    message: str
    hint: str = ""


class SpecRejected(Event):
    """A file that could not become an agent: a red row, never silently missing."""

    kind: Literal["spec.rejected"] = "spec.rejected"
    file: str
    name: str = ""
    problems: tuple[ProblemView, ...]


# -- one agent ----------------------------------------------------------------------------------------------------


class AgentStateChanged(Event):
    kind: Literal["agent.state_changed"] = "agent.state_changed"
    before: AgentState
    after: AgentState
    reason: StopReason = StopReason.NONE
    detail: str = ""
    """A sentence for people; for PAUSED how the stop was confirmed, for SKIPPED which dependency failed."""
    attempt: int = 1
    resumes: RunId | None = None
    """With PENDING: the next run goes on where this one of the agent was cut off; what is done stays done."""
    held: bool = False
    """With `resumes`: the next run waits until an operator resumes it."""
    frozen_ms: float | None = None
    """With PAUSED: after how many milliseconds the kernel confirmed that the whole tree stands still. None: it has not
    confirmed that, or nothing is frozen (a soft pause)."""


class AgentBlocked(Event):
    """Why a PENDING agent is not started yet; empty when nothing blocks it any more."""

    kind: Literal["agent.blocked"] = "agent.blocked"
    blockers: tuple[str, ...]


class ProcessStarted(Event):
    kind: Literal["agent.process_started"] = "agent.process_started"
    process: ProcessRef
    worker_pid: int = 0
    protections: tuple[str, ...] = ()
    """What confines it, one line each; empty: nothing but its user's rights."""


class ProtectionsInForce(Event):
    """Said once for each run that got a process."""

    kind: Literal["agent.protections_in_force"] = "agent.protections_in_force"
    protections: Protections


class ProcessEnded(Event):
    kind: Literal["agent.process_ended"] = "agent.process_ended"
    process: ProcessRef
    exit_code: int | None = None
    """Negative: ended by that signal."""
    survivors: tuple[int, ...] = ()


class LimitsInForce(Event):
    """Said before a run's processes are started: what is limited here, and what holds it."""

    kind: Literal["agent.limits_in_force"] = "agent.limits_in_force"
    limits: tuple[LimitInForce, ...]


class LimitReached(Event):
    """A breach of a limit. One that goes on is told again when its count has doubled."""

    kind: Literal["agent.limit_reached"] = "agent.limit_reached"
    limit: LimitName
    used: float
    """In the limit's unit. Held exactly at the limit (REFUSED, SLOWED): the limit."""
    allowed: float
    outcome: LimitOutcome
    mechanism: str
    culprit: Culprit | None = None
    """None: not known."""
    count: int = 1
    """How many times so far in this run."""

    @property
    def text(self) -> str:
        """One line for people; the culprit's command is as the agent wrote it."""
        allowed = figure_text(self.limit, self.allowed)
        above = f" ({figure_text(self.limit, self.used)} used)" if self.outcome is LimitOutcome.EXCEEDED else ""
        who = "" if self.culprit is None else f" by {self.culprit.command} (pid {self.culprit.pid})"
        times = f", {self.count} times" if self.count > 1 else ""
        return f"{self.limit} limit of {allowed} reached{who}{above}: {self.outcome} by {self.mechanism}{times}"


class HealthChanged(Event):
    """An agent stalls, is stuck, or is well again. What goes on is told again when its count has doubled."""

    kind: Literal["agent.health_changed"] = "agent.health_changed"
    health: Health


class AgentSampled(Event):
    kind: Literal["agent.sampled"] = "agent.sampled"
    delivery: ClassVar[Delivery] = Delivery.LATEST
    durable: ClassVar[bool] = False
    usage: Usage


class WorkspaceReady(Event):
    kind: Literal["agent.workspace_ready"] = "agent.workspace_ready"
    mode: Literal["worktree", "copy", "in-place"]
    path: str
    branch: str = ""
    base_commit: str = ""


class WorkCommitted(Event):
    kind: Literal["agent.work_committed"] = "agent.work_committed"
    task: int
    commit: str
    files: int
    insertions: int
    deletions: int


class ReportWritten(Event):
    kind: Literal["agent.report_written"] = "agent.report_written"
    channel: str
    path: str


# -- tasks --------------------------------------------------------------------------------------------------------


class TaskStateChanged(Event):
    kind: Literal["task.state_changed"] = "task.state_changed"
    task: int
    """Index into the enabled tasks of the run, from 0."""
    total: int
    after: TaskState
    verdict: Verdict = Verdict.NONE
    attempt: int = 1
    detail: str = ""
    """The agent's summary when done, the error when failed."""
    evidence: tuple[str, ...] = ()
    """When done: the agent's, as far as its later tasks are told of it."""


class Verified(Event):
    """A verify command was run by the runtime. `subject` is `task 3` or `objective 1`."""

    kind: Literal["task.verified"] = "task.verified"
    subject: str
    task: int | None = None
    objective: int | None = None
    command: str
    exit_code: int | None = None
    verdict: Verdict
    duration_s: float
    output_tail: str = ""


# -- model, tools, output -----------------------------------------------------------------------------------------


class ModelCallStarted(Event):
    kind: Literal["model.call_started"] = "model.call_started"
    call: CallId
    task: int
    turn: int
    provider: str
    model: str
    reserved_tokens: int = 0
    """What it may use at worst; a call that a dead runtime never saw the end of is counted so."""
    reserved_cost_usd: float | None = None


class ModelCallRetried(Event):
    """A try failed; the next comes after `delay_s`."""

    kind: Literal["model.call_retried"] = "model.call_retried"
    call: CallId
    attempt: int
    delay_s: float
    code: str
    message: str
    discard: bool = False
    """The text of this call shown so far is void: the answer begins anew."""
    shared: bool = False
    """The provider asked all calls to slow down: this one waits for quota."""


class ModelCallEnded(Event):
    kind: Literal["model.call_ended"] = "model.call_ended"
    call: CallId
    task: int
    turn: int
    provider: str
    model: str
    outcome: Literal["ok", "error", "cancelled"]
    stop_reason: str = ""
    request_id: str = ""
    request_digest: str = ""
    usage: TokenUsage = TokenUsage()
    cost_usd: float | None = None
    """None: unpriced."""
    duration_s: float
    first_token_s: float | None = None
    code: str = ""
    message: str = ""
    redactions: int = 0
    answer_digest: str = ""
    """Of what it said; "" for nothing."""
    tools_asked: int = 0


class BudgetSet(Event):
    """A new cap, by an operator or an option; both None: no cap any more."""

    kind: Literal["budget.set"] = "budget.set"
    scope: BudgetScope
    name: str = ""
    budget: Budget
    actor: str = ""


class BudgetWarned(Event):
    """A call has taken an account past a half, or past four fifths, of a cap."""

    kind: Literal["budget.warned"] = "budget.warned"
    figure: BudgetFigure


class BudgetExhausted(Event):
    """The next call does not fit under a cap: the agent waits for a new one."""

    kind: Literal["budget.exhausted"] = "budget.exhausted"
    figure: BudgetFigure
    wanted: float
    """Tokens or dollars that the call may take."""


class Stream(StrEnum):
    MODEL = "model"
    THINKING = "thinking"
    STDOUT = "stdout"
    STDERR = "stderr"
    RUNTIME = "runtime"


class OutputAppended(Event):
    """Text, merged over at most 50–100 ms. `call` is the model or tool call it belongs to."""

    kind: Literal["output.appended"] = "output.appended"
    delivery: ClassVar[Delivery] = Delivery.APPEND
    stream: Stream
    text: str
    task: int = -1
    turn: int = 0
    call: CallId = CallId("")
    dropped_bytes: int = 0
    """Bytes left out of this segment because a subscriber or a cap could not hold them."""
    merged: int = 0
    """How many earlier segments this one also stands for, because the subscriber was slow. Their sequence numbers are
    not delivered; they are counted here in the same batch, so that a reader can still prove that nothing is missing."""


class ToolCallStarted(Event):
    kind: Literal["tool.call_started"] = "tool.call_started"
    call: CallId
    task: int
    turn: int
    tool: str
    arguments: dict[str, Any]
    """As asked, long strings cut for show; the journal has the whole."""
    arguments_digest: str = ""
    """Of the whole, so that equal calls can be told from calls that look alike."""
    target: str = ""


class ToolCallEnded(Event):
    kind: Literal["tool.call_ended"] = "tool.call_ended"
    call: CallId
    tool: str
    outcome: Literal["ok", "error", "denied", "cancelled", "unknown"]
    duration_s: float
    summary: str = ""
    """First lines of the result, cut for show."""
    result_bytes: int = 0
    result_digest: str = ""


class OperationDenied(Event):
    kind: Literal["operation.denied"] = "operation.denied"
    denial: Denial
    task: int = -1
    count: int = 1
    """How many equal denials this one stands for (folded, never dropped)."""


class OperationAllowed(Event):
    kind: Literal["operation.allowed"] = "operation.allowed"
    operation: str
    target: str
    tool: str = ""
    call: CallId = CallId("")
    rule: str
    capability: str


# -- approvals and grants -----------------------------------------------------------------------------------------


class ApprovalRequested(Event):
    """A call waits for an operator. Told again, with the same id and a higher count, when an equal call joins it."""

    kind: Literal["approval.requested"] = "approval.requested"
    request: ApprovalRequest


class ApprovalDecided(Event):
    """The request waits no more."""

    kind: Literal["approval.decided"] = "approval.decided"
    approval: ApprovalId
    outcome: ApprovalOutcome
    actor: str = ""
    """Who answered and from where; empty when nobody did."""
    waited_s: float
    """From the request to its end, by the clock on the wall."""
    grant: GrantId | None = None
    reason: str = ""


class GrantIssued(Event):
    kind: Literal["grant.issued"] = "grant.issued"
    grant: Grant


class GrantUsed(Event):
    """A call is about to be carried out that only this grant allows."""

    kind: Literal["grant.used"] = "grant.used"
    grant: GrantId
    call: CallId
    tool: str
    targets: tuple[str, ...]


class GrantRevoked(Event):
    kind: Literal["grant.revoked"] = "grant.revoked"
    grant: GrantId
    actor: str


class CapabilityWithdrawn(Event):
    """Whatever the spec declares, the agent has it no more, in this run and in later ones, until it is restored."""

    kind: Literal["capability.withdrawn"] = "capability.withdrawn"
    capability: str
    actor: str


class CapabilityRestored(Event):
    """The agent's next run has it again."""

    kind: Literal["capability.restored"] = "capability.restored"
    capability: str
    actor: str


class GrantExpired(Event):
    kind: Literal["grant.expired"] = "grant.expired"
    grant: GrantId
    why: GrantEnd


# -- commands -----------------------------------------------------------------------------------------------------


class CommandHandled(Event):
    """An operator's command was carried out or refused. Recorded whatever the outcome."""

    kind: Literal["command.handled"] = "command.handled"
    command: CommandId
    actor: str
    name: str
    target: str = ""
    ok: bool
    message: str = ""
    reason: str = ""
    duration_ms: float = 0.0


class UnknownEvent(Event):
    """A kind that this version does not know: kept whole, shown raw."""

    kind: str
    body: dict[str, Any] = Field(default_factory=dict)


KnownEvent = Annotated[
    RuntimeStarted
    | RuntimeStopped
    | ServiceStarted
    | Noticed
    | HostSampled
    | HostProbed
    | SpecLoaded
    | SpecRejected
    | AgentStateChanged
    | AgentBlocked
    | ProcessStarted
    | ProtectionsInForce
    | ProcessEnded
    | LimitsInForce
    | LimitReached
    | HealthChanged
    | AgentSampled
    | WorkspaceReady
    | WorkCommitted
    | ReportWritten
    | TaskStateChanged
    | Verified
    | ModelCallStarted
    | ModelCallRetried
    | ModelCallEnded
    | BudgetSet
    | BudgetWarned
    | BudgetExhausted
    | OutputAppended
    | ToolCallStarted
    | ToolCallEnded
    | OperationDenied
    | OperationAllowed
    | ApprovalRequested
    | ApprovalDecided
    | GrantIssued
    | GrantUsed
    | GrantRevoked
    | GrantExpired
    | CapabilityWithdrawn
    | CapabilityRestored
    | CommandHandled,
    Field(discriminator="kind"),
]


class Envelope(Model):
    """One event with its place in history. `seq` grows by one within a state folder; samples that are not durable
    carry the seq of the newest durable event before them and `durable=False`."""

    seq: int
    at: datetime
    host: HostId
    agent: AgentName | None = None
    run: RunId | None = None
    durable: bool = True
    event: KnownEvent | UnknownEvent
