"""Handlers that lead to what is wrong: on the Fleet from agent to agent, in an agent's output from denial to denial."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toka_console.actions import Context
from toka_console.handling import HANDLERS, Handler

if TYPE_CHECKING:
    from toka_console.app import ConsoleApp


def _trouble(step: int) -> Handler:
    def handler(app: ConsoleApp, context: Context, argument: str) -> None:
        """The worst one first, also from another screen (a click on the alert line)."""
        from toka_console import trouble

        fleet = app.navigator.fleet
        if app.current is not fleet:
            app.navigator.go("fleet")
        fleet.table.sync()
        shown = {row.agent for row in fleet.table.order}
        worst = trouble.worst_first(app.session.known)
        keys = [key for key in worst if key in shown]
        if not keys:
            hidden = " among those that the filter shows" if worst else ""
            app.say(f"no agent is in trouble{hidden}")
            return
        focus = context.focus if context.screen == "fleet" else None
        here = keys.index(focus) if focus is not None and focus in keys else None
        first = 0 if step > 0 else -1
        fleet.show(keys[first if here is None else (here + step) % len(keys)])

    return handler


HANDLERS["trouble.next"] = _trouble(1)
HANDLERS["trouble.previous"] = _trouble(-1)


def _problem(step: int) -> Handler:
    def handler(app: ConsoleApp, context: Context, argument: str) -> None:
        from toka_console.screens.output import OutputScreen

        if not isinstance(app.current, OutputScreen):
            app.navigator.go("output", context.focus)
        screen = app.current
        if isinstance(screen, OutputScreen) and not screen.output.to_problem(step):
            app.say("no denial or failure further on, as far as the output is held here (5 lists denials)")
        app.repaint()

    return handler


HANDLERS["output.next_problem"] = _problem(1)
HANDLERS["output.previous_problem"] = _problem(-1)
