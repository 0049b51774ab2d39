"""What the actions of Logs do: scope and range, how lines are drawn, searching, going from trouble to trouble."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toka_console.actions import Context
from toka_console.handling import HANDLERS, Handler, handles
from toka_console.panes.logs import SINCE, TIMES

if TYPE_CHECKING:
    from toka_console.app import ConsoleApp
    from toka_console.panes.logs import LogsPane


def _pane(app: ConsoleApp) -> LogsPane:
    from toka_console.screens.logs import LogsScreen

    if not isinstance(app.current, LogsScreen):
        app.navigator.go("logs")
    if not isinstance(screen := app.current, LogsScreen):
        raise TypeError("Logs is not on screen: the registry allows this action elsewhere")
    return screen.logs


@handles("screen.logs")
def logs(app: ConsoleApp, context: Context, argument: str) -> None:
    """Of all agents; with a name, of that one."""
    pane = _pane(app)
    pane.scope = context.focus if argument else None
    app.repaint()


@handles("agent.logs")
def agent_logs(app: ConsoleApp, context: Context, argument: str) -> None:
    focus = context.focus
    pane = _pane(app)
    pane.scope, pane.following = focus, True
    app.repaint()


@handles("logs.scope")
def scope(app: ConsoleApp, context: Context, argument: str) -> None:
    """Between all agents and that of the line under the cursor."""
    pane = _pane(app)
    if pane.scope is not None:
        pane.scope = None
    elif (line := pane.selected()) is not None and line.agent:
        here = (pane.selected_host(), line.agent)
        pane.scope = next((key for key in app.session.known.agents if tuple(key) == here), None)
    app.repaint()


@handles("logs.follow")
def follow(app: ConsoleApp, context: Context, argument: str) -> None:
    pane = _pane(app)
    pane.following = not pane.following
    app.repaint()


@handles("logs.wrap")
def wrap(app: ConsoleApp, context: Context, argument: str) -> None:
    pane = _pane(app)
    pane.wraps, pane.skipped = not pane.wraps, 0
    app.repaint()


@handles("logs.times")
def times(app: ConsoleApp, context: Context, argument: str) -> None:
    pane = _pane(app)
    pane.times = TIMES[(TIMES.index(pane.times) + 1) % len(TIMES)]
    app.repaint()


@handles("logs.mark")
def mark(app: ConsoleApp, context: Context, argument: str) -> None:
    _pane(app).toggle_mark()


@handles("logs.left")
def left(app: ConsoleApp, context: Context, argument: str) -> None:
    _pane(app).sideways(-1)


@handles("logs.right")
def right(app: ConsoleApp, context: Context, argument: str) -> None:
    pane = _pane(app)
    pane.wraps = False
    pane.sideways(1)


def _since(number: int) -> Handler:
    def handler(app: ConsoleApp, context: Context, argument: str) -> None:
        pane = _pane(app)
        pane.since, pane.following = number, True
        app.repaint()

    return handler


for _number in range(len(SINCE)):
    HANDLERS[f"logs.since{_number}"] = _since(_number)


@handles("logs.search")
def search(app: ConsoleApp, context: Context, argument: str) -> None:
    """Without a text: the line, begun; the search before is taken up again by n and N."""
    if not argument:
        app.current.open_line("command", "search ")
        return
    pane = _pane(app)
    pane.search = argument
    if not pane.to_match(-1) and not pane.to_match(1):
        app.say(f"{argument} is not in the lines that are shown", "warn")
    app.repaint()


def _match(step: int, where: str) -> Handler:
    def handler(app: ConsoleApp, context: Context, argument: str) -> None:
        pane = _pane(app)
        if not pane.search:
            app.say("nothing is searched for: :search TEXT, or ctrl-f", "warn")
        elif not pane.to_match(step):
            app.say(f"{pane.search} is not {where}", "info")

    return handler


HANDLERS["logs.next_match"] = _match(1, "further down")
HANDLERS["logs.previous_match"] = _match(-1, "further up, as far as the log has been read")


@handles("logs.next_problem")
def next_problem(app: ConsoleApp, context: Context, argument: str) -> None:
    if not _pane(app).to_problem(1):
        app.say("no error or denial further down", "info")


@handles("logs.previous_problem")
def previous_problem(app: ConsoleApp, context: Context, argument: str) -> None:
    if not _pane(app).to_problem(-1):
        app.say("no error or denial further up, as far as the log has been read", "info")
