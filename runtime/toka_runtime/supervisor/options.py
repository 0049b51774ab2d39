"""What a runtime is started with. Times in seconds, sizes in the unit of their name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from toka_runtime.llm.base import GatewaySettings
from toka_runtime.protocol.ids import HostId
from toka_runtime.protocol.model import Model
from toka_runtime.protocol.usage import Budget


class LoopLimits(Model):
    """Bounds of one agent's loop, and of its patience."""

    max_turns: int = 80
    """Model turns a task attempt may take."""
    context_tokens: int = 150_000
    """The conversation is compacted before it grows past this."""
    max_tokens: int = 8192
    """Of one model answer."""
    task_attempts: int = 3
    retry_backoff_s: float = 1.0
    """First delay between task attempts; doubles, jittered, capped at `retry_backoff_cap_s`."""
    retry_backoff_cap_s: float = 30.0
    tool_timeout_s: float = 120.0
    ready_timeout_s: float = 20.0
    """From fork to the worker's first frame."""
    cancel_timeout_s: float = 5.0
    """A worker that does not answer a cancelled task within this is ended."""


class RuntimeOptions(Model):
    workspace: Path
    state_dir: Path
    host: HostId = HostId(os.uname().nodename)
    gateway: GatewaySettings
    provider_note: str = ""
    """Shown as a banner when not empty."""
    max_agents: int | None = None
    enable: frozenset[str] = frozenset()
    """Conditions of `tasks.conditional` that are switched on."""
    workspace_mode: Literal["auto", "in-place"] = "auto"
    catalogues: tuple[Path, ...] = ()
    """Operator's capability files; none: the one in the configuration folder, when there is one."""
    allow_unconfined: bool = False
    """The operator's word that agents whose spec says `sandbox: false` may run without walls."""
    ask: bool = False
    """Every agent may ask for approval, also where its spec does not say `approvals: ask`."""
    approval_wait_s: float = 300.0
    """How long a request for approval waits for an operator; 0: nobody is there, so it is denied at once."""
    fleet_budget: Budget | None = None
    """Of everything in this state folder; None: as it was set before, at first none."""
    day_budget: Budget | None = None
    """Of a day in UTC."""
    loop: LoopLimits = LoopLimits()
    resume: bool = True
    """Runs that a killed runtime left go on; False: they have failed, and the fleet starts afresh."""
    go_on_unknown: bool = False
    """Also agents of which nobody knows whether their last call with an effect was done: they are told, nobody asks."""
    sample_interval_s: float = 0.5

    @property
    def slots(self) -> int:
        """How many agents run at once when the operator and the fleet file say nothing: model calls wait, they do
        not compute, so several a core."""
        return self.max_agents or 8 * (os.cpu_count() or 1)
