"""The rows of the Fleet: which there are, in what order, and what a filter and a sort see in each. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from toka_console import selectors
from toka_console.identity import AgentKey, RowKey
from toka_runtime.protocol.states import LIVE, TERMINAL

if TYPE_CHECKING:
    from datetime import datetime

    from toka_console.entries import AgentEntry
    from toka_console.filters import Filter, NumberKeys
    from toka_console.state import ConsoleState
    from toka_runtime.protocol.ids import RunId
    from toka_runtime.protocol.snapshot import AgentView

Run = tuple[AgentKey, "RunId | None"]
Look = Callable[["AgentEntry", "datetime"], "str | float"]

_WORDS: Mapping[str, Look] = {
    "name": lambda entry, now: entry.view.name,
    "state": lambda entry, now: _state_words(entry.view),
    "reason": lambda entry, now: entry.view.reason.value,
    "host": lambda entry, now: entry.view.host,
    "priority": lambda entry, now: entry.view.spec.priority.value,
    "domain": lambda entry, now: entry.view.spec.domain,
    "workstream": lambda entry, now: entry.view.spec.workstream,
    "branch": lambda entry, now: entry.view.branch or entry.view.spec.git_branch,
    "cap": lambda entry, now: " ".join(entry.view.spec.security.capabilities_required),
    "pid": lambda entry, now: str(entry.view.process.pid) if entry.view.process else "",
    "run": lambda entry, now: entry.view.run or "",
    "text": lambda entry, now: _text(entry),
}
FIGURES: Mapping[str, Look] = {
    "cpu": lambda entry, now: _measured(entry, entry.view.usage.cpu_fraction),
    "mem": lambda entry, now: _measured(entry, entry.view.usage.memory_bytes),
    "procs": lambda entry, now: _measured(entry, entry.view.usage.processes),
    "tokens": lambda entry, now: entry.view.tokens.total_tokens,
    "cost": lambda entry, now: entry.view.cost_usd,
    "denials": lambda entry, now: entry.view.denials,
    "age": lambda entry, now: _age(entry, now),
}
FILTER_KEYS = tuple(_WORDS)
NUMBER_KEYS: NumberKeys = {
    "cpu": "percent", "mem": "size", "procs": "count", "tokens": "count", "cost": "money", "denials": "count",
    "age": "time",
}  # fmt: skip


def _state_words(view: AgentView) -> str:
    """What is frozen is paused, too."""
    word = selectors.badge(view).word.lower()
    return word if view.frozen_ms is None else f"{word} {view.state.value}"


def _text(entry: AgentEntry) -> str:
    view = entry.view
    word, spec = selectors.badge(view).word, view.spec
    return f"{view.name} {word} {view.reason.value} {spec.title} {spec.domain} {spec.workstream} {view.branch}"


def _measured(entry: AgentEntry, figure: float) -> str | float:
    """What a tree that has ended used last says nothing about now."""
    return figure if entry.view.state in LIVE else ""


def _age(entry: AgentEntry, now: datetime) -> str | float:
    view = entry.view
    return "" if view.started_at is None else ((view.ended_at or now) - view.started_at).total_seconds()


class AgentFields(Mapping[str, "str | float"]):
    """What a filter or a sort can look at in one agent; "" where a figure is not known. Made when asked for: most
    filters name one field, and there may be ten thousand agents."""

    def __init__(self, entry: AgentEntry, now: datetime) -> None:
        self._entry, self._now = entry, now

    def __getitem__(self, key: str) -> str | float:
        return (_WORDS.get(key) or FIGURES[key])(self._entry, self._now)

    def __iter__(self) -> Iterator[str]:
        return iter((*_WORDS, *FIGURES))

    def __len__(self) -> int:
        return len(_WORDS) + len(FIGURES)


def fields(state: ConsoleState, key: RowKey, now: datetime) -> Mapping[str, str | float]:
    """Of one row, an agent's or a rejected spec's."""
    if key.agent is not None:
        return AgentFields(state.agents[key.agent], now)
    rejected = state.hosts[key.host].fleet.rejected[key.name]
    problems = " ".join(f"{problem.code} {problem.message}" for problem in rejected.problems)
    return {
        "name": rejected.name or key.name,
        "state": "rejected",
        "host": key.host,
        "text": f"{key.name} {rejected.name} rejected {problems}",
    }


def run_of(entry: AgentEntry) -> Run:
    return entry.key, entry.view.run


def is_finished(entry: AgentEntry) -> bool:
    """Nothing of it is left to look after."""
    return entry.view.state in TERMINAL and not entry.view.survivors


def is_trouble(entry: AgentEntry) -> bool:
    """Failed, killed, paused, asking, ending, unwell, or with a reached limit or a denial."""
    view = entry.view
    return (
        selectors.rank(view) < selectors.WELL
        or view.health is not None
        or view.limits_reached > 0
        or (view.denials > 0 and view.state in LIVE)
    )


def rows(
    state: ConsoleState, now: datetime, chosen: Filter | None = None, *, trouble: bool = False,
    removed: Collection[Run] = (),
) -> list[RowKey]:  # fmt: skip
    """Identities of all rows that the filter lets through, trouble first; with `trouble`, nothing else. `removed`:
    finished runs that the operator does not want to see."""
    ranked = [
        (selectors.rank(entry.view), key.host, key.name, RowKey("agent", key.host, key.name))
        for key, entry in state.agents.items()
        if not (trouble and not is_trouble(entry))
        and not (removed and is_finished(entry) and run_of(entry) in removed)
        and (not chosen or chosen.matches(AgentFields(entry, now)))
    ]
    rejected = [RowKey("rejected", name, file) for name, host in state.hosts.items() for file in host.fleet.rejected]
    ranked += [
        (selectors.FIRST, key.host, key.name, key)
        for key in rejected
        if not chosen or chosen.matches(fields(state, key, now))
    ]
    ranked.sort()
    return [row[3] for row in ranked]
