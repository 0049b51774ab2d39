"""What every run needs of its surroundings, handed over as one value."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from toka_runtime.aio import OnFailure
from toka_runtime.clock import Clock
from toka_runtime.llm.base import ModelGateway
from toka_runtime.llm.redact import Redactor
from toka_runtime.policy.catalogue import Catalogue
from toka_runtime.protocol.events import Event
from toka_runtime.protocol.ids import AgentName, RunId
from toka_runtime.protocol.protections import HostProtections
from toka_runtime.protocol.snapshot import FleetState
from toka_runtime.sandbox.plan import Launcher
from toka_runtime.store.events import EventStore
from toka_runtime.store.transcripts import Transcripts
from toka_runtime.supervisor.budgets import Budgets
from toka_runtime.supervisor.health import HealthMonitor
from toka_runtime.supervisor.limits_watch import LimitGuard
from toka_runtime.supervisor.options import RuntimeOptions
from toka_runtime.supervisor.output import OutputMerger
from toka_runtime.supervisor.workspace import Workspaces


@dataclass(frozen=True, slots=True)
class Services:
    options: RuntimeOptions
    clock: Clock
    store: EventStore
    transcripts: Transcripts
    output: OutputMerger
    launcher: Launcher
    gateway: ModelGateway
    budgets: Budgets
    workspaces: Workspaces
    redactor: Redactor
    catalogue: Catalogue
    guard: LimitGuard
    health: HealthMonitor
    host: asyncio.Future[HostProtections | None]
    """What this host offers; not done while it is being tried, None where that failed."""
    state: Callable[[], FleetState]
    """As of the newest event in the log."""
    on_failure: OnFailure
    """Told of a task of ours that failed: always a defect."""
    wake: Callable[[], None]
    """Ask the scheduler to look again: a state has changed."""


@dataclass(frozen=True, slots=True)
class RunVoice:
    """Speaks for one run: events carry its agent and run id."""

    services: Services
    agent: AgentName
    run: RunId

    async def emit(self, event: Event) -> None:
        """Returns when the event is durable. Text still being merged for this agent goes first, so that the log reads
        in order. Raises StoreError when it cannot be written."""
        self.services.output.flush(self.agent)
        await self.services.store.append(event, agent=self.agent, run=self.run)
