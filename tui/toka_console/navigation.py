"""Where the operator is and was: places in a history, and the way up from each screen. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from toka_console.identity import AgentKey
    from toka_console.state import DenialEntry


class Place(NamedTuple):
    screen: str
    focus: AgentKey | None = None
    call: DenialEntry | None = None


_UP = {"agent": "fleet", "output": "agent", "denials": "fleet", "call": "denials"}


@dataclass
class History:
    places: list[Place] = field(default_factory=lambda: [Place("fleet")])
    at: int = 0

    @property
    def here(self) -> Place:
        return self.places[self.at]

    def visit(self, place: Place) -> None:
        """Go on from here; what lay ahead is forgotten."""
        if place != self.here:
            self.places = [*self.places[: self.at + 1], place][-100:]
            self.at = len(self.places) - 1

    def step(self, by: int) -> Place | None:
        if not 0 <= self.at + by < len(self.places):
            return None
        self.at += by
        return self.here

    def up(self) -> Place:
        """Where `back` leads: the place this one was opened from, else the screen above it."""
        here = self.here
        above = _UP.get(here.screen)
        if self.at > 0 and (above is None or self.places[self.at - 1].screen in ("fleet", "denials", above)):
            return self.places[self.at - 1]
        return Place(above or "fleet", here.focus)
