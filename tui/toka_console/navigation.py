"""Where the operator is and was: the history of places, and the screens that show them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from toka_console.place import Place
from toka_console.screens.fleet import FleetScreen

if TYPE_CHECKING:
    from toka_console.app import ConsoleApp
    from toka_console.identity import AgentKey
    from toka_console.screens.base import ConsoleScreen

_SCREENS = {
    "agent": "AgentScreen",
    "output": "OutputScreen",
    "denials": "DenialsScreen",
    "approvals": "ApprovalsScreen",
    "call": "CallScreen",
    "specs": "SpecsScreen",
    "help": "HelpScreen",
    "diagnostics": "DiagnosticsScreen",
    "graph": "GraphScreen",
    "resources": "ResourcesScreen",
    "timeline": "TimelineScreen",
    "incident": "IncidentScreen",
    "logs": "LogsScreen",
    "hosts": "HostsScreen",
}
"""Classes in the module of the same name, imported when first shown."""
_UP = {"agent": "fleet", "output": "agent", "denials": "fleet", "call": "denials"}


@dataclass
class History:
    """Pure."""

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
        """Go where `back` leads: the place this one was opened from, else the screen above it."""
        if self.at > 0:
            self.at -= 1
        else:
            self.visit(Place(_UP.get(self.here.screen, "fleet"), self.here.focus))
        return self.here


class Navigator:
    """Shows places. Screens are made once and kept: the Fleet at the bottom of the stack, at most one above it."""

    def __init__(self, app: ConsoleApp) -> None:
        self._app = app
        self.history = History()
        self.fleet = FleetScreen(app.session, app)
        self._made: dict[str, ConsoleScreen] = {"fleet": self.fleet}

    def go(self, screen: str, focus: AgentKey | None = None) -> None:
        self.visit(Place(screen, focus))

    def visit(self, place: Place) -> None:
        self.history.visit(place)
        self._show(self.history.here)

    def up(self) -> None:
        self._show(self.history.up())

    def step(self, by: int) -> None:
        """Back or forward in the history of screens."""
        if (place := self.history.step(by)) is not None:
            self._show(place)

    def invalidate(self) -> None:
        for screen in self._made.values():
            screen.invalidate()

    def _show(self, place: Place) -> None:
        app, screen = self._app, self._screen(place.screen)
        app.session.focus = place.focus or app.session.focus
        app.session.call = place.call or app.session.call
        if screen is app.current:
            app.repaint()
        elif screen is self.fleet:
            app.pop_screen()  # pyright: ignore[reportUnknownMemberType] # open in Textual
        elif app.current is self.fleet:
            app.push_screen(place.screen)
        else:
            app.switch_screen(place.screen)  # pyright: ignore[reportUnknownMemberType] # open in Textual

    def _screen(self, name: str) -> ConsoleScreen:
        if (screen := self._made.get(name)) is None:
            module = importlib.import_module(f"toka_console.screens.{name}")
            make = cast("type[ConsoleScreen]", getattr(module, _SCREENS[name]))
            screen = self._made[name] = make(self._app.session, self._app)
            self._app.install_screen(screen, name)  # pyright: ignore[reportUnknownMemberType] # open in Textual
        return screen
