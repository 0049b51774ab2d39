"""Sums over the fleet, carried forward view by view: ten thousand agents are not counted for each picture. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from toka_console.identity import AgentKey
from toka_runtime.protocol.snapshot import AgentView
from toka_runtime.protocol.states import LIVE, AgentState

Keys = set[AgentKey]


def _none() -> dict[AgentState, Keys]:
    return {state: set() for state in AgentState}


@dataclass(slots=True)
class Tally:
    """What `ConsoleState.agents` add up to."""

    in_state: dict[AgentState, Keys] = field(default_factory=_none)
    survived: Keys = field(default_factory=set[AgentKey])
    """A process of theirs outlived its kill."""
    unwell: Keys = field(default_factory=set[AgentKey])
    unconfined: Keys = field(default_factory=set[AgentKey])
    """They run, or what survived of them does, with all rights of their user."""
    spenders: Keys = field(default_factory=set[AgentKey])
    """Live ones that have called a model."""
    tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    unpriced_calls: int = 0
    model_calls: int = 0
    denials: int = 0

    def carry(self, key: AgentKey, before: AgentView | None, after: AgentView | None) -> None:
        """The view of an agent was `before` (None: it is new) and is `after` (None: it has gone)."""
        if before is not None:
            self.in_state[before.state].discard(key)
            for keys in (self.survived, self.unwell, self.unconfined, self.spenders):
                keys.discard(key)
            self._add(before, -1)
        if after is None:
            return
        live = after.state in LIVE
        self.in_state[after.state].add(key)
        if after.survivors:
            self.survived.add(key)
        if after.health is not None:
            self.unwell.add(key)
        if after.in_force is not None and after.in_force.unconfined and (live or after.survivors):
            self.unconfined.add(key)
        if live and after.model_calls:
            self.spenders.add(key)
        self._add(after, 1)

    def _add(self, view: AgentView, sign: int) -> None:
        self.tokens += sign * view.tokens.total_tokens
        self.output_tokens += sign * view.tokens.output_tokens
        self.cost_usd += sign * view.cost_usd
        self.unpriced_calls += sign * view.unpriced_calls
        self.model_calls += sign * view.model_calls
        self.denials += sign * view.denials
