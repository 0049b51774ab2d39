"""A place in the console: a screen, and what it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from toka_console.entries import DenialEntry
    from toka_console.identity import AgentKey


class Place(NamedTuple):
    screen: str
    focus: AgentKey | None = None
    call: DenialEntry | None = None
