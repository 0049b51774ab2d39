"""Every key that a spec file may have: its JSON schema and the other names it is met under. The one list of keys: the
loader reads by it and the published schema is made from it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from toka_runtime.protocol.approval import ApprovalMode
from toka_runtime.protocol.health import OnStuck
from toka_runtime.protocol.limits import OnLimit
from toka_runtime.protocol.spec import DependencyCondition, Priority, ReportFrequency, RestartPolicy
from toka_runtime.specs.reading import MAX_DESCRIPTION, MAX_NAME, Field, Fields

Schema = dict[str, Any]

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


def ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


def choice(kind: type[StrEnum], description: str) -> Schema:
    return {"enum": [member.value for member in kind], "description": description}


def texts(description: str) -> Schema:
    return {"type": "array", "items": {"type": "string"}, "description": description}


def quantity(description: str, *examples: str) -> Schema:
    return {"type": ["string", "number"], "description": description, "examples": list(examples)}


def count(description: str) -> Schema:
    return {"type": "integer", "minimum": 1, "description": description}


def items(name: str, description: str) -> Schema:
    return {"type": "array", "items": ref(name), "description": description}


def optional(schema: Schema, description: str) -> Schema:
    """A section that may also be left empty."""
    return {"anyOf": [schema, {"type": "null"}], "description": description}


METADATA: Fields = {
    "name": Field(
        text(
            "The agent's identity: unique in a fleet; other agents name it in their dependencies.",
            maxLength=MAX_NAME,
            pattern=NAME_PATTERN,
        )
    ),
    "version": Field(text("Version of the spec, for people.", examples=["v0.3.0"])),
    "created": Field(text("Date of creation (ISO 8601).", examples=["2025-07-04"])),
    "modified": Field(text("Time of the last change (ISO 8601).")),
    "workstream": Field(text("The stream of work that the agent belongs to.")),
    "branch": Field(text("Git branch that its worktree is on. Default: agent/<name>.")),
    "schema_version": Field(text("Version of the spec format that the file was written for.")),
    "checksum": Field(text("Checksum that another tool wrote. Kept, not checked.")),
}

SPEC: Fields = {
    "name": Field(text("Title for people.", maxLength=MAX_NAME)),
    "domain": Field(text("Field of work, free text.")),
    "priority": Field(choice(Priority, "Who starts first when several agents may. Default: medium.")),
    "description": Field(text("What the agent is for.", maxLength=MAX_DESCRIPTION)),
}

CAPABILITIES: Fields = {
    "primary": Field(texts("Skills, for the agent's prompt. They grant nothing: see security.capabilities_required.")),
    "secondary": Field(texts("Further skills.")),
}

OBJECTIVE: Fields = {
    "description": Field(text("What is to be reached.", maxLength=MAX_DESCRIPTION)),
    "deliverable": Field(text("What will be there when it is reached.")),
    "validation": Field(text("How a person would tell. Prose, never a proof: see verify.")),
    "priority": Field(choice(Priority, "Default: medium.")),
    "verify": Field(ref("verify")),
}

TASK: Fields = {
    "description": Field(text("What is to be done.", maxLength=MAX_DESCRIPTION)),
    "priority": Field(choice(Priority, "Default: medium.")),
    "estimated_duration": Field(
        quantity("How long it may take; used for plans only.", "4h", "1d", "2-4h"), aliases=("estimated_time",)
    ),
    "tools_required": Field(texts("Tools it will need, for the agent's prompt."), aliases=("tools",)),
    "dependencies": Field(texts("What must come first. The name of another agent makes this agent wait for it.")),
    "timeout": Field(quantity("Time limit of this task.", "30m", "2h")),
    "verify": Field(ref("verify")),
    "inputs": Field(texts("Files or globs that the task starts from.")),
}

TASKS: Fields = {
    "default": Field(items("task", "Tasks in order.")),
    "conditional": Field(
        {
            "type": "object",
            "additionalProperties": {"anyOf": [{"type": "array", "items": ref("task")}, {"type": "null"}]},
            "description": "Name of a condition → tasks that run only when it is switched on (--enable NAME).",
        }
    ),
}

DEPENDENCIES: Fields = {
    "required": Field(ref("dependencyList")),
    "optional": Field(ref("dependencyList")),
}

DEPENDENCY: Fields = {
    "agent": Field(text("Name of the other agent, in a list of dependencies."), aliases=("name",)),
    "reason": Field(text("Why, for people.")),
    "condition": Field(choice(DependencyCondition, "What the other agent must have reached. Default: completed.")),
}

METRIC: Fields = {
    "name": Field(text("Name of the metric.")),
    "description": Field(text("What it measures.")),
    "type": Field(text("counter, gauge …")),
    "unit": Field(text("Unit of its values.")),
}

REPORTING: Fields = {
    "frequency": Field(choice(ReportFrequency, "When reports are written. Default: on-completion.")),
    "channels": Field(texts("A report is written for each.")),
    "metrics": Field(ref("metrics")),
}

LIMITS: Fields = {
    "max_memory": Field(quantity("Memory of the whole process tree.", "512MB", "1GiB"), aliases=("memory",)),
    "max_cpu": Field(quantity("Share of one core.", "75%", "0.5", "2 cores"), aliases=("cpu",)),
    "timeout": Field(quantity("Time limit of a run, pauses not counted.", "30m", "2h", "1d")),
    "max_disk_usage": Field(quantity("Size of the agent's workspace.", "1GB"), aliases=("disk", "max_disk")),
    "max_network_bandwidth": Field(quantity("Network traffic.", "100Mbps"), aliases=("bandwidth",)),
    "max_processes": Field(count("Processes and threads at once."), aliases=("processes",)),
}

SECURITY: Fields = {
    "sandbox": Field(
        {
            "enum": [True, False, "required", "best-effort", "none"],
            "description": "true or required (default): the kernel enforces the rights or the agent does not start; "
            "best-effort: with what this host offers; false or none: no confinement, the operator must agree.",
        }
    ),
    "capabilities_required": Field(texts("Permissions. A name that the catalogue does not define grants nothing.")),
    "resource_limits": Field(ref("limits")),
    "strict": Field({"type": "boolean", "description": "Refuse to start where a limit cannot be enforced exactly."}),
    "on_limit": Field(
        choice(OnLimit, "What happens at a limit that the agent cannot stay within (memory, disk). Default: kill.")
    ),
    "approvals": Field(
        choice(ApprovalMode, "What happens beyond the declared rights: refuse, or ask the operator. Default: deny.")
    ),
    "grants": Field(ref("grants")),
}

VERIFY: Fields = {
    "command": Field(
        {
            "anyOf": [text("Run by sh -c.", minLength=1), texts("Run as it is.") | {"minItems": 1}],
            "description": "Text is run by sh -c, a list as it is.",
        }
    ),
    "timeout": Field(quantity("Time limit. Default: 10m.", "2m")),
}

BUDGET: Fields = {
    "max_tokens": Field(count("Tokens of a run, cached ones too.")),
    "max_cost_usd": Field({"type": "number", "exclusiveMinimum": 0, "description": "Cost of a run."}),
    "max_tokens_per_task": Field(count("Tokens of each task.")),
    "max_cost_usd_per_task": Field({"type": "number", "exclusiveMinimum": 0, "description": "Cost of each task."}),
}

RESTART: Fields = {
    "policy": Field(choice(RestartPolicy, "Whether a failed run is started again. Default: never.")),
    "max_restarts": Field({"type": "integer", "minimum": 0, "description": "Default: 3."}),
    "backoff": Field(quantity("Ceiling of the first, random delay; doubles each time. Default: 1s.", "1s", "500ms")),
    "max_backoff": Field(quantity("The ceiling grows no higher. Default: 1m.", "1m", "30s")),
    "crash_limit": Field(
        {
            "type": "integer",
            "minimum": 1,
            "description": "So many deaths within crash_window: it stays down. Default: 5.",
        }
    ),
    "crash_window": Field(quantity("Default: 10m.", "10m", "1h")),
}

HEALTH: Fields = {
    "stall_after": Field(quantity("So long without a sign of progress is a stall. Default: 3m.", "3m", "90s")),
    "repeats": Field(
        {"type": "integer", "minimum": 2, "description": "So often the same step and result: stuck. Default: 4."}
    ),
    "on_stuck": Field(choice(OnStuck, "When it goes on so after it was told. Default: warn.")),
}

ROOT: Fields = {
    "metadata": Field(ref("metadata")),
    "spec": Field(ref("spec")),
    "capabilities": Field(optional(ref("capabilities"), "Skills.")),
    "objectives": Field(optional(items("objective", "What the work is for."), "What the work is for.")),
    "tasks": Field(optional(ref("tasks"), "The work.")),
    "dependencies": Field(optional(ref("dependencies"), "Agents that come first.")),
    "reporting": Field(optional(ref("reporting"), "Reports.")),
    "security": Field(optional(ref("security"), "Confinement, permissions and limits.")),
    "behavioral_directives": Field(ref("prose")),
    "risk_mitigation": Field(ref("prose")),
    "success_criteria": Field(ref("prose")),
    "inputs": Field(texts("Files or globs that the work starts from.")),
    "model": Field(text("Model for this agent. Default: the runtime's setting.")),
    "budget": Field(ref("budget")),
    "restart": Field(ref("restart")),
    "health": Field(optional(ref("health"), "What is watched while it runs.")),
    "grants": Field(ref("grants")),
}

BODY: Fields = {key: known for key, known in ROOT.items() if key not in ("metadata", "spec")}

FLAT: Fields = METADATA | {key: SPEC[key] for key in ("domain", "priority", "description")}
"""Identity as a fleet file's `[[agents]]` gives it: metadata and spec in one."""

ORCHESTRATION: Fields = {
    "max_concurrent_agents": Field(count("How many agents run at once.")),
    "agent_spawn_timeout": Field(quantity("Time limit for starting an agent.", "30")),
    "workstream_timeout": Field(quantity("Time limit of a run, where no limit of its own is given.", "3600")),
}

FLEET_SECURITY: Fields = {
    "sandbox_enabled": Field({"type": "boolean"}, aliases=("sandbox",)),
    "resource_limits": Field(ref("limits")),
}

FLEET_LLM: Fields = {"provider": Field(text("")), "model": Field(text(""))}
