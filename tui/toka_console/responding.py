"""What the actions of an incident do: opening one about what is selected, pinning, writing down, closing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toka_console.actions import Context
from toka_console.format.units import plural
from toka_console.handling import handles
from toka_console.preserving import chosen

if TYPE_CHECKING:
    from toka_console.app import ConsoleApp
    from toka_console.incidents import Incidents


@handles("screen.incident")
def incident(app: ConsoleApp, context: Context, argument: str) -> None:
    """`open [TITLE]`, `pin`, `close`; nothing: the screen."""
    word, _, rest = argument.strip().partition(" ")
    known = app.session.incidents
    if word and known is not None:
        act = _WORDS.get(word)
        if act is None:
            app.say(f"incident {word}? there are {', '.join(_WORDS)}; nothing was done", "warn")
            return
        act(app, known, context, rest.strip())
    app.navigator.go("incident")


@handles("incident.note")
def note(app: ConsoleApp, context: Context, argument: str) -> None:
    """Without a text: the line, begun."""
    known = _open_one(app)
    if known is None:
        return
    if not argument.strip():
        app.current.open_line("command", "note ")
        return
    known.note(argument.strip())
    app.say("noted")


def _open(app: ConsoleApp, known: Incidents, context: Context, title: str) -> None:
    if known.current is not None:
        app.say(f"one is open already: {known.current.title or known.current.id}; :incident close ends it", "warn")
        return
    keys = chosen(app, context, named=False)
    by = app.bridge.actor if app.bridge is not None else ""
    known.begin(title, keys, by)
    app.say(f"incident opened about {plural(len(keys), 'agent')}; its clock runs")


def _pin(app: ConsoleApp, known: Incidents, context: Context, argument: str) -> None:
    if _open_one(app) is not None:
        keys = chosen(app, context, named=False)
        known.pin(keys)
        app.say(f"pinned {', '.join(key.name for key in keys)}" if keys else "no agent is selected", "info")


def _close(app: ConsoleApp, known: Incidents, context: Context, argument: str) -> None:
    from toka_runtime.client.incident import Step

    current = known.current
    if _open_one(app) is None or current is None:
        return
    known.close()
    left = ", ".join(step.value for step in Step if step not in current.steps)
    app.say(f"incident closed; not done: {left}" if left else "incident closed; every step was done")


_WORDS = {"open": _open, "pin": _pin, "close": _close}


def _open_one(app: ConsoleApp) -> Incidents | None:
    known = app.session.incidents
    if known is None or known.current is None:
        app.say("no incident is open; :incident open TITLE opens one", "warn")
        return None
    return known
