"""What the actions about dependencies do: the Graph, pausing an agent with all that waits for it, exporting."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from toka_console.actions import Context
from toka_console.dialogs.confirm import Question
from toka_console.exporting import told
from toka_console.format.units import plural, size
from toka_console.handling import handles
from toka_runtime.errors import UsageError
from toka_runtime.protocol.states import AgentState

if TYPE_CHECKING:
    from pathlib import Path

    from toka_console.app import ConsoleApp
    from toka_console.graph.export import Graphs
    from toka_console.panes.graph import GraphPane
    from toka_console.state import ConsoleState
    from toka_runtime.protocol.ids import AgentName


@handles("screen.graph")
def graph(app: ConsoleApp, context: Context, argument: str) -> None:
    app.navigator.go("graph", context.focus)
    if (pane := _pane(app)) is not None:
        pane.select(context.focus)


def _pane(app: ConsoleApp) -> GraphPane | None:
    from toka_console.panes.graph import GraphPane

    pane = app.current.main_pane()
    return pane if isinstance(pane, GraphPane) else None


@handles("graph.left")
def left(app: ConsoleApp, context: Context, argument: str) -> None:
    if (pane := _pane(app)) is not None:
        pane.step("left")


@handles("graph.right")
def right(app: ConsoleApp, context: Context, argument: str) -> None:
    if (pane := _pane(app)) is not None:
        pane.step("right")


@handles("agent.pause_subtree")
def pause_subtree(app: ConsoleApp, context: Context, argument: str) -> None:
    """The focused agent and all that depends on it, directly or not: those of them that run or are about to."""
    from toka_runtime.protocol.commands import PauseFleet

    state, focus = app.session.known, context.focus
    if focus is None:
        raise LookupError("no agent: the action's own check comes first")
    names = subtree(state, context)
    views = state.hosts[focus.host].fleet.agents
    running = tuple(name for name in names if views[name].state in (AgentState.RUNNING, AgentState.STARTING))
    if not running:
        app.say(f"nothing runs of {focus.name} and the {plural(len(names) - 1, 'agent')} that depend on it", "warn")
        return
    keys = tuple(focus._replace(name=name) for name in running)
    waiting = len(names) - len(running)
    question = Question(
        title="Pause subtree",
        facts=lambda: [
            ("below", focus.name),
            ("on", focus.host),
            ("agents", f"{len(running)}: {', '.join(running)}"),
            ("not running", f"{waiting}: they start only after what they wait for"),
        ],
        accept="Pause",
        note="Nothing is lost; p resumes each of them, ! all that are paused.",
        dangerous=False,
    )

    def answered(accepted: bool | None) -> None:
        if accepted:
            app.send(PauseFleet(agents=running), "pausing", keys)

    app.ask(question, answered)


def subtree(state: ConsoleState, context: Context) -> tuple[AgentName, ...]:
    """The focused agent first, then what depends on it, that is loaded."""
    from toka_console.graph.dag import build

    if context.focus is None or context.focus.host not in state.hosts:
        return ()
    agents = state.hosts[context.focus.host].fleet.agents
    found = build(view.spec for view in agents.values()).subtree(context.focus.name)
    return tuple(name for name in found if name in agents)


@handles("graph.export")
def export(app: ConsoleApp, context: Context, argument: str) -> None:
    """Without a file: the line, begun."""
    from toka_console.graph import export as files

    if not argument:
        app.current.open_line("command", "export-graph ")
        return
    try:
        path = files.target(argument)
    except UsageError as error:
        app.say(f"{error.message}; {error.hint}", "warn")
        return
    if app.bridge is not None:
        state = app.session.known
        fleets = {host: dict(entry.fleet.agents) for host, entry in state.hosts.items()}
        app.bridge.spawn(told(app, path, _write(path, fleets)), "export of the graph")


async def _write(path: Path, fleets: Graphs) -> tuple[str, str]:
    from toka_console.graph import export as files

    done = await asyncio.to_thread(files.export, path, fleets)
    counts = f"{plural(done.agents, 'agent')}, {plural(done.edges, 'edge')}, {size(done.bytes)}"
    return f"wrote {path}: {counts}, sha256 {done.digest[:16]}…", "info"
