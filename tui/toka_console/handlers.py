"""What each action of the registry does. A handler runs at the key press, with the context taken then.

Those that change state freeze the target first; whatever a dialog shows later, the command goes to that target.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from toka_console import themes
from toka_console.actions import Context
from toka_console.dialogs.confirm import Question
from toka_console.handling import HANDLERS, Handler, handles
from toka_console.panes.base import Move
from toka_console.panes.output import OutputPane

if TYPE_CHECKING:
    from toka_console.app import ConsoleApp

PARTS = (
    "answering",
    "auditing",
    "budgeting",
    "choosing",
    "controlling",
    "copying",
    "finding",
    "graphing",
    "hosting",
    "logging_keys",
    "measuring",
    "preserving",
    "responding",
)
"""Other modules of handlers: they register when they are imported."""

for _part in PARTS:
    importlib.import_module(f"toka_console.{_part}")

# -- moving -------------------------------------------------------------------------------------------------------

_MOVES: dict[str, Move] = {
    "cursor.down": "down", "cursor.up": "up", "cursor.top": "top", "cursor.bottom": "bottom",
    "cursor.half_down": "half_down", "cursor.half_up": "half_up", "cursor.page_down": "page_down",
    "cursor.page_up": "page_up",
}  # fmt: skip


def _move(how: Move) -> Handler:
    return lambda app, context, argument: app.current.active_pane().move(how)


for _action, _how in _MOVES.items():
    HANDLERS[_action] = _move(_how)


@handles("pane.next")
def next_pane(app: ConsoleApp, context: Context, argument: str) -> None:
    app.current.next_pane(1)


@handles("pane.previous")
def previous_pane(app: ConsoleApp, context: Context, argument: str) -> None:
    app.current.next_pane(-1)


def _output_pane(app: ConsoleApp) -> OutputPane | None:
    pane = app.current.active_pane()
    if isinstance(pane, OutputPane):
        return pane
    return next((pane for pane in app.current.query(OutputPane) if pane.display), None)


@handles("turn.previous")
def previous_turn(app: ConsoleApp, context: Context, argument: str) -> None:
    if (pane := _output_pane(app)) is not None:
        pane.turn(-1)


@handles("turn.next")
def next_turn(app: ConsoleApp, context: Context, argument: str) -> None:
    if (pane := _output_pane(app)) is not None:
        pane.turn(1)


@handles("output.follow")
def follow(app: ConsoleApp, context: Context, argument: str) -> None:
    if (pane := _output_pane(app)) is not None:
        pane.follow()


# -- screens ------------------------------------------------------------------------------------------------------


_SCREENS = ("fleet", "denials", "approvals", "specs", "diagnostics")
"""Those that are about no single agent."""


def _show(screen: str) -> Handler:
    return lambda app, context, argument: app.navigator.go(screen)


for _screen in _SCREENS:
    HANDLERS[f"screen.{_screen}"] = _show(_screen)


@handles("screen.agent")
def agent(app: ConsoleApp, context: Context, argument: str) -> None:
    app.navigator.go("agent", context.focus)


@handles("screen.output")
def output(app: ConsoleApp, context: Context, argument: str) -> None:
    app.navigator.go("output", context.focus)


@handles("screen.help")
def help_page(app: ConsoleApp, context: Context, argument: str) -> None:
    if context.screen != "help":
        app.session.helped = context.screen
    app.navigator.go("help")


@handles("row.open")
def open_row(app: ConsoleApp, context: Context, argument: str) -> None:
    if (place := app.current.place_below()) is not None:
        app.navigator.visit(place)


@handles("history.back")
def history_back(app: ConsoleApp, context: Context, argument: str) -> None:
    app.navigator.step(-1)


@handles("history.forward")
def history_forward(app: ConsoleApp, context: Context, argument: str) -> None:
    app.navigator.step(1)


@handles("screen.back")
def back(app: ConsoleApp, context: Context, argument: str) -> None:
    if app.current.zoomed is not None:
        app.current.zoom(app.current.zoomed)
        return
    if app.session.filters.pop(context.screen, None) or context.screen == "fleet":
        app.repaint()
        return
    app.navigator.up()
    app.repaint()


# -- looking ------------------------------------------------------------------------------------------------------


@handles("view.command")
def command(app: ConsoleApp, context: Context, argument: str) -> None:
    app.current.open_line("command")


@handles("view.filter")
def filter_rows(app: ConsoleApp, context: Context, argument: str) -> None:
    if argument:
        app.entered("filter", argument)
        return
    app.current.open_line("filter", app.session.filter(context.screen).source)


@handles("view.palette")
def palette(app: ConsoleApp, context: Context, argument: str) -> None:
    app.action_command_palette()


@handles("view.redraw")
def redraw(app: ConsoleApp, context: Context, argument: str) -> None:
    app.redraw()


@handles("settings.reload")
def reload(app: ConsoleApp, context: Context, argument: str) -> None:
    app.spawn(app.preferences.reload(), "settings")


@handles("view.theme")
def theme(app: ConsoleApp, context: Context, argument: str) -> None:
    if not argument:
        names = list(themes.THEMES)
        argument = names[(names.index(app.session.theme) + 1) % len(names)]
    if argument not in themes.THEMES:
        app.say(f"no theme {argument}; there are {', '.join(themes.THEMES)}", "warn")
        return
    app.use_theme(argument)


# -- leaving ------------------------------------------------------------------------------------------------------


@handles("app.quit")
def leave(app: ConsoleApp, context: Context, argument: str) -> None:
    state = context.state
    # What a runtime of its own does goes on when the console leaves.
    live = [entry for entry in state.live() if state.hosts[entry.key.host].link.embedded] if state is not None else []
    if not live or context.stopping:
        app.stop()
        return
    question = Question(
        title="Quit",
        facts=lambda: [("live", f"{len(live)}: {', '.join(entry.key.name for entry in live)}")],
        accept="Stop them and quit",
        note="Each is asked to end, then its process tree is ended. The next start resumes from the log.",
    )

    def answered(accepted: bool | None) -> None:
        if accepted:
            app.stop()

    app.ask(question, answered)
