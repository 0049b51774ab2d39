"""What TAB offers on the `:` and `/` lines: a source of words for each kind of argument and each key of a filter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from toka_console import themes

if TYPE_CHECKING:
    from toka_console.screens.base import ConsoleScreen
    from toka_console.state import ConsoleState

Completed = tuple[str, list[str]]
"""(the line as far as it is certain, candidates for its last word)."""
Source = Callable[["ConsoleScreen"], Iterable[str]]


def _agents(screen: ConsoleScreen) -> Iterable[str]:
    state = screen.session.state
    return dict.fromkeys(key.name for key in state.agents) if state is not None else ()


def _hosts(screen: ConsoleScreen) -> Iterable[str]:
    state = screen.session.state
    return dict.fromkeys([*(state.hosts if state is not None else ()), *screen.session.settings.hosts])


ARGUMENTS: dict[str, Source] = {
    "agent": _agents,
    "host": _hosts,
    "hosts": _hosts,
    "theme": lambda screen: themes.THEMES,
    "column": lambda screen: screen.sort_columns(),
}
"""`Action.takes` → the words that may follow; a kind that is not here takes anything."""
CLOSED = {"agent", "host", "theme"}
"""Kinds of which nothing but these words is taken."""


def arguments(screen: ConsoleScreen, takes: str) -> list[str]:
    source = ARGUMENTS.get(takes)
    return sorted(source(screen)) if source is not None else []


def _states(state: ConsoleState) -> Iterable[str]:
    from toka_runtime.protocol.states import AgentState

    return [*(each.value.lower() for each in AgentState), "rejected"]


def _layers(state: ConsoleState) -> Iterable[str]:
    from toka_runtime.protocol.capability import Layer

    return [each.value for each in Layer]


def _operations(state: ConsoleState) -> Iterable[str]:
    from toka_runtime.protocol.capability import OperationKind

    return [each.value for each in OperationKind]


def _capabilities(state: ConsoleState) -> Iterable[str]:
    return {cap for entry in state.agents.values() for cap in entry.view.spec.security.capabilities_required}


VALUES: dict[str, Callable[[ConsoleState], Iterable[str]]] = {
    "state": _states,
    "layer": _layers,
    "operation": _operations,
    "cap": _capabilities,
    "agent": lambda state: {key.name for key in state.agents},
    "name": lambda state: {key.name for key in state.agents},
    "host": lambda state: state.hosts,
    "priority": lambda state: {entry.view.spec.priority.value for entry in state.agents.values()},
    "workstream": lambda state: {entry.view.spec.workstream for entry in state.agents.values()},
}
"""Key of a filter → values it may have, the same on every screen. A screen adds its own by `filter_values`."""


def filter_word(line: str, keys: Iterable[str], values: Callable[[str], Iterable[str]]) -> Completed:
    """Complete the last word of a filter: a key, or one of the values of a key."""
    head, word = _last_word(line)
    bare = word.removeprefix("!")
    mark = word[: len(word) - len(bare)]
    key, colon, value = bare.partition(":")
    if not colon:
        found = sorted(f"{each}:" for each in keys if bare and each.startswith(bare.lower()))
        return head + mark + (longest(found) or bare), found
    before, comma, part = value.rpartition(",")
    sign = "=" if part.startswith("=") and not comma else ""
    part = part.removeprefix(sign)
    found = sorted(_quoted(each) for each in values(key) if each and each.startswith(part.lower()))
    return f"{head}{mark}{key}:{before}{comma}{sign}{longest(found) or part}", found


def _last_word(line: str) -> tuple[str, str]:
    at = line.rfind(" ") + 1
    return line[:at], line[at:]


def _quoted(value: str) -> str:
    return f'"{value}"' if " " in value else value


def longest(found: Sequence[str]) -> str:
    """What all of them begin with; "" when there are none."""
    if not found:
        return ""
    first, last = min(found), max(found)
    return first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
