"""What the console's state is made of: one entry a host, agent, denial, line of activity, and command that was sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from toka_console.history import FULL, Column, Figure, History, Scale
from toka_console.identity import AgentKey
from toka_console.log_window import LogWindow
from toka_console.ring import OutputRing
from toka_console.trail import Trail
from toka_runtime.client.base import Link
from toka_runtime.protocol.capability import Denial
from toka_runtime.protocol.ids import CommandId, RunId
from toka_runtime.protocol.snapshot import AgentView, FleetState
from toka_runtime.protocol.states import LIVE

if TYPE_CHECKING:
    from toka_runtime.protocol.usage import HostUsage, Usage


@dataclass(slots=True)
class AgentEntry:
    key: AgentKey
    view: AgentView
    output: OutputRing
    version: int = 0
    """Grows with everything but samples."""
    samples: int = 0
    history: History = field(default_factory=History)

    @property
    def cpu(self) -> Column:
        return self.history.column(Figure.CPU)

    @property
    def memory(self) -> Column:
        return self.history.column(Figure.MEMORY)

    def sampled(self, at: datetime, usage: Usage, scale: Scale) -> None:
        io = usage.read_bytes + usage.written_bytes
        self.history.add(at.timestamp(), usage.cpu_fraction, usage.memory_bytes, usage.processes, io, scale)
        self.samples += 1


@dataclass(slots=True)
class HostEntry:
    fleet: FleetState
    link: Link
    history: History = field(default_factory=History)
    samples: int = 0
    last_event_at: datetime | None = None
    missed: int = 0
    """Durable events that the stream could not deliver (they may still be in the runtime's log)."""
    trail: Trail = field(default_factory=Trail)
    log: LogWindow = field(default_factory=LogWindow)

    @property
    def last_seen(self) -> datetime:
        """While its link is down: when something was known of it last."""
        return self.last_event_at or self.link.since

    @property
    def cpu(self) -> Column:
        return self.history.column(Figure.CPU)

    @property
    def memory(self) -> Column:
        return self.history.column(Figure.MEMORY)

    def sampled(self, at: datetime, usage: HostUsage) -> None:
        """The processes are those of its agents; what the host itself reads and writes is not known."""
        processes = sum(view.usage.processes for view in self.fleet.agents.values() if view.state in LIVE)
        self.history.add(at.timestamp(), usage.cpu_fraction, usage.memory_used_bytes, processes, 0.0, FULL)
        self.samples += 1


@dataclass(slots=True)
class DenialEntry:
    """Equal denials of one agent fold into one row with a count."""

    serial: int
    key: AgentKey
    run: RunId | None
    first_at: datetime
    at: datetime
    seq: int
    denial: Denial
    task: int
    count: int
    version: int = 0


@dataclass(slots=True)
class Activity:
    at: datetime
    seq: int
    key: AgentKey | None
    kind: str
    text: str
    role: str


@dataclass(slots=True)
class Pending:
    """A command that was sent and has not come back as an event."""

    id: CommandId
    text: str
    """`pausing`, `killing` …"""
    keys: tuple[AgentKey, ...]
    sent_at: datetime
    subject: str = ""
    """The approval or grant that it is about; "": the agents themselves."""
    answered_seq: int | None = None
    unknown: str = ""
    """Why the outcome is not known ("" while an answer is awaited)."""


FoldKey = tuple[AgentKey, RunId | None, str, str, str, str, str]


def fold_key(key: AgentKey, run: RunId | None, denial: Denial) -> FoldKey:
    """Denials with the same key are one row."""
    operation = denial.operation
    return (key, run, operation.kind, operation.target, denial.layer, denial.rule, denial.capability)
