"""How a run ends, and whether it is the last of its life."""

from __future__ import annotations

import random
from dataclasses import dataclass

from toka_runtime.errors import (
    LimitUnenforceable,
    ModelError,
    ProcessError,
    SandboxUnavailable,
    StoreError,
    TokaError,
    WorkspaceError,
)
from toka_runtime.protocol.spec import Restart
from toka_runtime.protocol.states import AgentState, StopReason
from toka_runtime.supervisor.crash_loop import restart_delay_s
from toka_runtime.supervisor.session import WorkerDied

JITTER = random.Random()  # noqa: S311 - spreads waits, guards nothing
FINAL = frozenset({StopReason.STORE_FAILED, StopReason.CRASH_LOOP})
"""Failures that starting again by itself would not mend."""
MOST_LOSSES = 3
"""How often a run may be cut off in a row, without a task done between, before it has failed."""


@dataclass(frozen=True, slots=True)
class Ending:
    state: AgentState
    reason: StopReason
    detail: str


@dataclass(slots=True)
class Losses:
    """Runs whose processes were taken away."""

    total: int = 0
    _row: int = 0
    _tasks_done: int = 0

    def bearable(self, tasks_done: int) -> bool:
        """Count one more. False: too many in a row."""
        if tasks_done > self._tasks_done:
            self._row = 0
        if self._row >= MOST_LOSSES:
            return False
        self._row, self._tasks_done, self.total = self._row + 1, tasks_done, self.total + 1
        return True

    def delay_s(self, restart: Restart) -> float:
        """Before the run goes on: nothing the first time, then as before any restart."""
        return restart_delay_s(restart, self._row - 1, JITTER) if self._row > 1 else 0.0


def reason_of(error: TokaError) -> StopReason:
    match error:
        case SandboxUnavailable() | LimitUnenforceable():
            return StopReason.SANDBOX_UNAVAILABLE
        case WorkerDied():
            return StopReason.WORKER_DIED
        case ProcessError():
            return StopReason.SPAWN_FAILED
        case WorkspaceError():
            return StopReason.WORKSPACE
        case StoreError():
            return StopReason.STORE_FAILED
        case ModelError():
            return StopReason.LLM_FAILED
        case _:
            return StopReason.INTERNAL
