"""Nine states, reasons apart, and the one table of legal transitions (after supervisor's states.py)."""

from __future__ import annotations

from enum import StrEnum

from toka_runtime.errors import IllegalTransition


class AgentState(StrEnum):
    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    COMPLETED = "completed"
    FAILED = "failed"
    KILLED = "killed"
    SKIPPED = "skipped"


class StopReason(StrEnum):
    """Why an agent is in a state other than the plain way forward."""

    NONE = ""
    OPERATOR = "operator"
    TIMEOUT = "timeout"
    MEMORY_LIMIT = "memory_limit"
    CPU_LIMIT = "cpu_limit"
    DISK_LIMIT = "disk_limit"
    PROCESS_LIMIT = "process_limit"
    BUDGET = "budget"
    DEPENDENCY_FAILED = "dependency_failed"
    SPAWN_FAILED = "spawn_failed"
    SANDBOX_UNAVAILABLE = "sandbox_unavailable"
    LLM_FAILED = "llm_failed"
    TASK_FAILED = "task_failed"
    WORKER_DIED = "worker_died"
    CRASH_LOOP = "crash_loop"
    """It died so often that it is not started again by itself."""
    STUCK = "stuck"
    """It went round in circles."""
    WORKSPACE = "workspace"
    STORE_FAILED = "store_failed"
    SHUTDOWN = "shutdown"
    HOST_LOST = "host_lost"
    UNKNOWN_OUTCOME = "unknown_outcome"
    """It waits for an operator: nobody knows whether a call with an effect was done."""
    INTERNAL = "internal"


_S = AgentState

TERMINAL = frozenset({_S.COMPLETED, _S.FAILED, _S.KILLED, _S.SKIPPED})
LIVE = frozenset({_S.STARTING, _S.RUNNING, _S.PAUSED, _S.STOPPING})
"""States in which processes of the agent may exist."""
TROUBLE = frozenset({_S.FAILED, _S.KILLED, _S.PAUSED, _S.STOPPING})
"""Shown first."""

TRANSITIONS: dict[AgentState, frozenset[AgentState]] = {
    _S.PENDING: frozenset({_S.STARTING, _S.SKIPPED, _S.KILLED, _S.FAILED}),
    _S.STARTING: frozenset({_S.RUNNING, _S.STOPPING, _S.FAILED, _S.KILLED, _S.PENDING}),
    _S.RUNNING: frozenset({_S.PAUSED, _S.STOPPING, _S.COMPLETED, _S.FAILED, _S.KILLED, _S.PENDING}),
    _S.PAUSED: frozenset({_S.RUNNING, _S.STOPPING, _S.FAILED, _S.KILLED, _S.PENDING}),
    _S.STOPPING: frozenset({_S.COMPLETED, _S.FAILED, _S.KILLED}),
    # A new run of a finished agent starts over.
    _S.COMPLETED: frozenset({_S.PENDING}),
    _S.FAILED: frozenset({_S.PENDING}),
    _S.KILLED: frozenset({_S.PENDING}),
    _S.SKIPPED: frozenset({_S.PENDING}),
}


def check_transition(before: AgentState, after: AgentState) -> None:
    """Raise `IllegalTransition` unless the table has `before → after`."""
    if after not in TRANSITIONS[before]:
        raise IllegalTransition(f"agent state {before} → {after} is not in the table of transitions")


class TaskState(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    VERIFYING = "verifying"
    DONE = "done"
    FAILED = "failed"
    RETRYING = "retrying"
    SKIPPED = "skipped"
    """Its condition was not switched on, or its agent ended first."""


class Verdict(StrEnum):
    """How a result is known. `claimed` is the agent's own word; only the runtime's own check makes `verified`."""

    NONE = ""
    VERIFIED = "verified"
    CLAIMED = "claimed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    """The check itself could not be run (missing program, timeout)."""
