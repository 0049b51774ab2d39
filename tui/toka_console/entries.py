"""What the console's state is made of: one entry a host, agent, denial, line of activity, and command that was sent."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from toka_console.identity import AgentKey
from toka_console.ring import OutputRing
from toka_runtime.client.base import Link
from toka_runtime.protocol.capability import Denial
from toka_runtime.protocol.ids import CommandId, RunId
from toka_runtime.protocol.snapshot import AgentView, FleetState

HISTORY = 240
"""Samples kept for sparklines and graphs."""


@dataclass(slots=True)
class AgentEntry:
    key: AgentKey
    view: AgentView
    output: OutputRing
    version: int = 0
    """Grows with everything but samples."""
    samples: int = 0
    cpu: deque[float] = field(default_factory=lambda: deque[float](maxlen=HISTORY))
    memory: deque[float] = field(default_factory=lambda: deque[float](maxlen=HISTORY))


@dataclass(slots=True)
class HostEntry:
    fleet: FleetState
    link: Link
    cpu: deque[float] = field(default_factory=lambda: deque[float](maxlen=HISTORY))
    memory: deque[float] = field(default_factory=lambda: deque[float](maxlen=HISTORY))
    samples: int = 0
    last_event_at: datetime | None = None
    missed: int = 0
    """Durable events that the stream could not deliver (they may still be in the runtime's log)."""


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
