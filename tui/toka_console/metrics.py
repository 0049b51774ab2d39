"""What of an agent or a host is plotted: figures, their limits, how they are written. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from toka_console.format import units
from toka_console.history import Figure, Span, resample
from toka_console.identity import AgentKey

if TYPE_CHECKING:
    from datetime import datetime

    from toka_console.entries import AgentEntry, HostEntry
    from toka_console.state import ConsoleState
    from toka_runtime.protocol.ids import HostId

WINDOWS: dict[str, float] = {"2m": 120.0, "15m": 900.0, "1h": 3600.0}
"""How far back a plot may look, in seconds."""


class HostRow(NamedTuple):
    """A host among the agents."""

    host: HostId


Subject = AgentKey | HostRow


class Metric(NamedTuple):
    title: str
    figure: Figure
    show: Callable[[float], str]
    limit: float | None = None


def per_second(count: float) -> str:
    return f"{units.size(count)}/s"


def tokens_per_second(rate: float) -> str:
    return f"{rate:.1f}/s" if rate < 100 else f"{units.count(round(rate))}/s"


def dollars_per_hour(rate: float) -> str:
    return f"${units.money(rate)}/h"


def whole(count: float) -> str:
    return f"{count:.0f}"


def of_agent(entry: AgentEntry) -> tuple[Metric, ...]:
    limits = entry.view.spec.security.limits
    return (
        Metric("CPU", Figure.CPU, units.percent, limits.cpu_fraction),
        Metric("MEMORY", Figure.MEMORY, units.size, limits.memory_bytes),
        Metric("PROCESSES", Figure.PROCESSES, whole, limits.processes),
        Metric("I/O", Figure.IO, per_second),
        Metric("TOKENS", Figure.TOKENS, tokens_per_second),
        Metric("COST", Figure.COST, dollars_per_hour),
    )


def of_host(entry: HostEntry) -> tuple[Metric, ...]:
    """Its limits are what it has. What it reads and writes itself is not known."""
    total = entry.fleet.host_usage.memory_total_bytes
    return (
        Metric("CPU", Figure.CPU, units.percent, 1.0),
        Metric("MEMORY", Figure.MEMORY, units.size, total or None),
        Metric("PROCESSES of agents", Figure.PROCESSES, whole),
        Metric("TOKENS", Figure.TOKENS, tokens_per_second),
        Metric("COST", Figure.COST, dollars_per_hour),
    )


def entry_of(state: ConsoleState, subject: Subject) -> AgentEntry | HostEntry | None:
    return state.agents.get(subject) if isinstance(subject, AgentKey) else state.hosts.get(subject.host)


def metrics(state: ConsoleState, subject: Subject) -> tuple[Metric, ...]:
    if isinstance(subject, AgentKey):
        entry = state.agents.get(subject)
        return () if entry is None else of_agent(entry)
    host = state.hosts.get(subject.host)
    return () if host is None else of_host(host)


def spans(state: ConsoleState, subject: Subject) -> list[Span]:
    entry = entry_of(state, subject)
    return [] if entry is None else entry.history.spans()


def time_of(state: ConsoleState, subject: Subject, now: datetime) -> float:
    """What the clock of its host shows now, in Unix seconds: samples carry that time."""
    host = state.hosts.get(subject.host)
    return now.timestamp() + ((host.link.skew_s or 0.0) if host is not None else 0.0)


def values(found: list[Span], figure: Figure, now: float, window_s: float, columns: int) -> list[float | None]:
    """A value a column up to now. Columns begin at full multiples of their width, so that a plot that moves on keeps
    its shape."""
    step = window_s / max(1, columns)
    return resample(found, figure, -(-now // step) * step, window_s, columns)


def newest(drawn: list[float | None]) -> float | None:
    """The value of now: of the last column, or of the one before while that is still empty."""
    return next((value for value in reversed(drawn[-2:]) if value is not None), None)
