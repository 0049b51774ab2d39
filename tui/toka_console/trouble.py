"""Which agents somebody should look at, the worst first. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from toka_console import fleet_list, selectors
from toka_runtime.protocol.states import LIVE

if TYPE_CHECKING:
    from datetime import datetime

    from toka_console.entries import AgentEntry
    from toka_console.identity import AgentKey
    from toka_console.state import ConsoleState

NEWS_S = 300.0
"""How long a denial is in the alert line."""
_SURVIVED, _DENIED, _UNWELL, _OTHER = range(4)


class Denied(NamedTuple):
    """A live agent that keeps asking for what it may not have."""

    entry: AgentEntry
    at: datetime
    """Of its newest denial."""


def denied(state: ConsoleState) -> list[Denied]:
    """Live agents of whom something was refused, the newest denial first."""
    newest: dict[AgentKey, datetime] = {}
    for denial in state.denials:
        entry = state.agents.get(denial.key)
        if entry is not None and entry.view.state in LIVE and denial.run == entry.view.run:
            newest[denial.key] = max(denial.at, newest.get(denial.key, denial.at))
    found = [Denied(state.agents[key], at) for key, at in newest.items()]
    return sorted(found, key=lambda each: each.at, reverse=True)


def news(state: ConsoleState, now: datetime) -> list[Denied]:
    """Of those, whom the operator should hear about."""
    return [each for each in denied(state) if (now - each.at).total_seconds() < NEWS_S]


def worst_first(state: ConsoleState) -> list[AgentKey]:
    """Agents in trouble: what survived a kill, what is refused something, what is unwell or at a limit, the rest as
    the Fleet ranks it."""
    refused = {each.entry.key: number for number, each in enumerate(denied(state))}
    return sorted(
        (entry.key for entry in state.agents.values() if fleet_list.is_trouble(entry)),
        key=lambda key: _order(state.agents[key], refused),
    )


def _order(entry: AgentEntry, refused: dict[AgentKey, int]) -> tuple[int, int, AgentKey]:
    view = entry.view
    if view.survivors:
        return (_SURVIVED, 0, entry.key)
    if entry.key in refused:
        return (_DENIED, refused[entry.key], entry.key)
    if view.state in LIVE and (view.health is not None or view.limits_reached):
        return (_UNWELL, 0, entry.key)
    return (_OTHER, selectors.rank(view), entry.key)
