"""What the actions about resources do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toka_console.actions import Context
from toka_console.handling import handles
from toka_console.metrics import WINDOWS

if TYPE_CHECKING:
    from toka_console.app import ConsoleApp


@handles("screen.resources")
def resources(app: ConsoleApp, context: Context, argument: str) -> None:
    from toka_console.screens.resources import ResourcesScreen

    app.navigator.go("resources", context.focus)
    if isinstance(app.current, ResourcesScreen):
        app.current.show(context.focus)


@handles("resources.window")
def window(app: ConsoleApp, context: Context, argument: str) -> None:
    """How far back the plots look; without an argument the next of those there are."""
    from toka_console.panes.plots import PlotsPane

    if argument and argument not in WINDOWS:
        app.say(f"no window {argument}; there are {', '.join(WINDOWS)}", "warn")
        return
    for pane in app.current.query(PlotsPane):
        pane.next_window(argument)
