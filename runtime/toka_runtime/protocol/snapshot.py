"""The fleet as of one sequence number: what a late joiner gets. `protocol.fold` carries it forward."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from toka_runtime.protocol import events as ev
from toka_runtime.protocol.approval import ApprovalRequest, Grant
from toka_runtime.protocol.budget import Account, BudgetScope
from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.health import Health
from toka_runtime.protocol.ids import AgentName, HostId, ProcessRef, RunId
from toka_runtime.protocol.limits import LimitInForce
from toka_runtime.protocol.model import Model
from toka_runtime.protocol.protections import HostProtections, Protections
from toka_runtime.protocol.spec import AgentSpec
from toka_runtime.protocol.spending import Ledgers
from toka_runtime.protocol.states import AgentState, StopReason, TaskState, Verdict
from toka_runtime.protocol.usage import Budget, HostUsage, TokenUsage, Usage

RECENT_ACTIONS = 20


class TaskView(Model):
    description: str
    state: TaskState = TaskState.WAITING
    verdict: Verdict = Verdict.NONE
    attempt: int = 0
    detail: str = ""
    evidence: tuple[str, ...] = ()
    since: datetime | None = None
    started_at: datetime | None = None


class ActionView(Model):
    """One tool call as it stands."""

    call: str
    tool: str
    target: str
    started_at: datetime
    outcome: str = ""
    """"" while it runs."""
    duration_s: float = 0.0
    summary: str = ""


class Countdown(Model):
    """Time that runs out, but not while the agent is frozen."""

    left_s: float
    """As of `since`."""
    since: datetime | None
    """None: it stands still."""

    def left(self, now: datetime) -> float:
        """Seconds left, 0 at least."""
        spent = (now - self.since).total_seconds() if self.since is not None else 0.0
        return max(0.0, self.left_s - max(0.0, spent))

    def frozen(self, at: datetime) -> Countdown:
        return Countdown(left_s=self.left(at), since=None)

    def thawed(self, at: datetime) -> Countdown:
        return self if self.since is not None else Countdown(left_s=self.left_s, since=at)


class ApprovalView(Model):
    """A request that waits for an operator."""

    request: ApprovalRequest
    requested_at: datetime
    countdown: Countdown


class GrantView(Model):
    """A grant that holds."""

    grant: Grant
    countdown: Countdown | None = None
    """Of a grant for a time."""
    uses: int = 0
    last_used_at: datetime | None = None


class AgentView(Model):
    """Everything a row or the Agent screen shows of one agent, folded from events."""

    host: HostId
    name: AgentName
    spec: AgentSpec
    rights: Rights
    state: AgentState = AgentState.PENDING
    reason: StopReason = StopReason.NONE
    detail: str = ""
    since: datetime
    run: RunId | None = None
    attempt: int = 0
    resumes: RunId | None = None
    """The run that was cut off and that its newest run goes on with."""
    held: bool = False
    """An operator has to resume it before that run goes on."""
    frozen_ms: float | None = None
    """While PAUSED: after how many milliseconds the kernel confirmed that its whole tree stands still; else None."""
    requested: bool = False
    """It was asked to start (it waits or ran); False: only loaded."""
    blockers: tuple[str, ...] = ()
    process: ProcessRef | None = None
    worker_pid: int = 0
    protections: tuple[str, ...] = ()
    in_force: Protections | None = None
    """Of its newest process; None until it is known."""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    usage: Usage = Usage()
    tasks: tuple[TaskView, ...] = ()
    objectives: tuple[Verdict, ...] = ()
    actions: tuple[ActionView, ...] = ()
    """The last `RECENT_ACTIONS` tool calls, oldest first."""
    model_call_since: datetime | None = None
    """Set while a model call is open."""
    quota_at: datetime | None = None
    """Set when the open model call waits because the provider asked all calls to slow down: when it is tried next."""
    tokens: TokenUsage = TokenUsage()
    cost_usd: float = 0.0
    unpriced_calls: int = 0
    model_calls: int = 0
    denials: int = 0
    last_activity: str = ""
    last_activity_at: datetime | None = None
    workspace_mode: str = ""
    workspace_path: str = ""
    branch: str = ""
    commits: int = 0
    survivors: tuple[int, ...] = ()
    limits: tuple[LimitInForce, ...] = ()
    """What holds the limits of its newest run. Empty before the first."""
    limits_reached: int = 0
    """Breaches told of."""
    health: Health | None = None
    """Set while something is wrong with it: it stalls, is stuck, or was given up after too many deaths."""
    approvals: tuple[ApprovalView, ...] = ()
    """What waits for an operator, oldest first. While there is one, the agent is pending approval: RUNNING or PAUSED
    as before, but its call waits and its time limit stands still."""
    grants: tuple[GrantView, ...] = ()
    """What operators have opened beyond the spec and still holds, oldest first."""
    withdrawn: tuple[str, ...] = ()
    """Capabilities that operators have taken away, whatever the spec declares; runs keep it."""

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Those that its rights rest on and that can be withdrawn."""
        rights = self.rights
        rules = (*rights.read, *rights.write, *rights.execute, *rights.network)
        return tuple(name for name in dict.fromkeys(rule.capability for rule in rules) if name not in self.withdrawn)

    @property
    def tasks_done(self) -> int:
        return sum(task.state is TaskState.DONE for task in self.tasks)

    @property
    def tasks_verified(self) -> int:
        return sum(task.verdict is Verdict.VERIFIED for task in self.tasks)

    @property
    def current_task(self) -> int | None:
        """Index of the task in work, None when none is."""
        active = (TaskState.RUNNING, TaskState.VERIFYING, TaskState.RETRYING)
        return next((i for i, task in enumerate(self.tasks) if task.state in active), None)


class RejectedSpec(Model):
    file: str
    name: str
    problems: tuple[ev.ProblemView, ...]


class FleetState(Model):
    """State of one host. `seq` is the last event folded in."""

    host: HostId = HostId("")
    seq: int = 0
    at: datetime | None = None
    runtime: ev.RuntimeStarted | None = None
    stopped: bool = False
    host_usage: HostUsage = HostUsage()
    protections: HostProtections | None = None
    """None until this runtime has probed its host."""
    agents: dict[AgentName, AgentView] = Field(default_factory=dict[AgentName, AgentView])
    rejected: dict[str, RejectedSpec] = Field(default_factory=dict[str, RejectedSpec])
    notices: tuple[ev.Noticed, ...] = ()
    """The last 50."""
    books: Ledgers = Ledgers()
    """What was spent, by whom, and the caps."""

    def cap(self, account: Account) -> Budget:
        """The cap that holds for an account: its own, as it was set; else that of its spec; else its scope's."""
        if (found := self.books.caps.get(account.key)) is not None:
            return found
        view = self.agents.get(AgentName(account.name.partition("/")[0]))
        if view is not None and account.scope in (BudgetScope.AGENT, BudgetScope.TASK):
            declared = view.spec.budget if account.scope is BudgetScope.AGENT else view.spec.task_budget
            if declared != Budget():
                return declared
        return self.books.caps.get(account.scope.value, Budget())
