"""AgentSpec: the file, parsed, frozen. Shapes are normalised here; what was repaired is the loader's to say."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from toka_runtime.protocol.approval import ApprovalMode
from toka_runtime.protocol.health import HealthPolicy
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.limits import OnLimit
from toka_runtime.protocol.model import Model
from toka_runtime.protocol.usage import Budget, ResourceLimits


class Priority(StrEnum):
    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 is the most urgent."""
        return list(Priority).index(self)


class DependencyCondition(StrEnum):
    STARTED = "started"
    COMPLETED = "completed"
    VERIFIED = "verified"


class SandboxMode(StrEnum):
    REQUIRED = "required"
    """`sandbox: true`: the kernel enforces, or the agent does not start."""
    BEST_EFFORT = "best-effort"
    NONE = "none"


class RestartPolicy(StrEnum):
    NEVER = "never"
    ON_FAILURE = "on-failure"


class ReportFrequency(StrEnum):
    REAL_TIME = "real-time"
    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"
    ON_MILESTONE = "on-milestone"
    ON_COMPLETION = "on-completion"


class Verify(Model):
    """A command that the runtime runs, not the agent; exit 0 is proof."""

    argv: tuple[str, ...]
    """A string in the file is run by `sh -c`; a list is run as it is."""
    timeout_s: float = 600.0

    @property
    def text(self) -> str:
        return self.argv[2] if self.argv[:2] == ("sh", "-c") else " ".join(self.argv)


class Dependency(Model):
    agent: AgentName
    reason: str = ""
    required: bool = True
    condition: DependencyCondition = DependencyCondition.COMPLETED


class Objective(Model):
    description: str
    deliverable: str = ""
    validation: str = ""
    """Prose. Never a proof."""
    priority: Priority = Priority.MEDIUM
    verify: Verify | None = None


class TaskSpec(Model):
    description: str
    priority: Priority = Priority.MEDIUM
    condition: str = ""
    """Name of the condition that switches it on (`tasks.conditional`); "" for default tasks."""
    estimated_duration_s: float | None = None
    tools_required: tuple[str, ...] = ()
    dependencies: tuple[str, ...] = ()
    timeout_s: float | None = None
    verify: Verify | None = None
    inputs: tuple[str, ...] = ()


class Metric(Model):
    name: str
    description: str = ""
    type: str = ""
    unit: str = ""


class Reporting(Model):
    frequency: ReportFrequency = ReportFrequency.ON_COMPLETION
    channels: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()


class Security(Model):
    sandbox: SandboxMode = SandboxMode.REQUIRED
    capabilities_required: tuple[str, ...] = ()
    """Permission names as written; the catalogue gives them meaning."""
    limits: ResourceLimits = ResourceLimits()
    strict: bool = False
    """Refuse to start where a limit cannot be enforced exactly."""
    on_limit: OnLimit = OnLimit.KILL
    approvals: ApprovalMode = ApprovalMode.DENY
    """What happens when an operation lies beyond the declared rights."""


class Restart(Model):
    policy: RestartPolicy = RestartPolicy.NEVER
    max_restarts: int = 3
    backoff_s: float = 1.0
    """Ceiling of the first delay; doubles each time. The delay itself is drawn between nothing and the ceiling."""
    max_backoff_s: float = 60.0
    crash_limit: int = 5
    """Died so often within `crash_window_s`, it is not started again but by an operator."""
    crash_window_s: float = 600.0


class ProseSection(Model):
    """A titled list of prose lines, e.g. `operational_focus` or `phase_1`."""

    title: str
    lines: tuple[str, ...]


class ScopedGrant(Model):
    """One entry of `grants`: a capability narrowed to scopes, e.g. filesystem-write to `docs/**`."""

    capability: str
    scopes: tuple[str, ...]


class AgentSpec(Model):
    name: AgentName
    version: str = ""
    created: str = ""
    modified: str = ""
    schema_version: str = ""
    checksum: str = ""
    workstream: str = ""
    branch: str = ""
    """Git branch its worktree is on; "" means `agent/<name>`."""
    title: str = ""
    domain: str = ""
    description: str = ""
    priority: Priority = Priority.MEDIUM
    skills_primary: tuple[str, ...] = ()
    skills_secondary: tuple[str, ...] = ()
    objectives: tuple[Objective, ...] = ()
    tasks: tuple[TaskSpec, ...] = ()
    """Default tasks in file order, then the conditional ones, each with its `condition`."""
    dependencies: tuple[Dependency, ...] = ()
    reporting: Reporting = Reporting()
    security: Security = Security()
    directives: tuple[ProseSection, ...] = ()
    risks: tuple[ProseSection, ...] = ()
    success_criteria: tuple[ProseSection, ...] = ()
    inputs: tuple[str, ...] = ()
    model: str = ""
    budget: Budget = Budget()
    """Of a run."""
    task_budget: Budget = Budget()
    """Of each task of a run."""
    restart: Restart = Restart()
    health: HealthPolicy = HealthPolicy()
    grants: tuple[ScopedGrant, ...] = ()
    extensions: dict[str, Any] = Field(default_factory=dict)
    """Every top-level section that is not ours, unchanged (JSON-compatible values)."""
    file: str = ""
    digest: str = ""
    """SHA-256 of the file's bytes."""

    @property
    def git_branch(self) -> str:
        return self.branch or f"agent/{self.name}"

    def enabled_tasks(self, conditions: frozenset[str]) -> tuple[TaskSpec, ...]:
        """Default tasks and those whose condition is switched on."""
        return tuple(task for task in self.tasks if not task.condition or task.condition in conditions)
