"""Handlers that start, pause, resume, kill and restart: the agent under the cursor, or all that are marked.

Who is meant is frozen at the key press. Each gets a request of its own; of several, one message sums the
answers up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toka_console import actions, selectors
from toka_console.actions import Context
from toka_console.dialogs.confirm import Question
from toka_console.format.units import plural
from toka_console.handling import handles
from toka_runtime.protocol.states import AgentState

if TYPE_CHECKING:
    from toka_console.app import ConsoleApp
    from toka_console.dialogs.base import Fact
    from toka_console.entries import AgentEntry
    from toka_console.selectors import Target
    from toka_runtime.protocol.commands import Command, CommandResult

LISTED = 1_000
"""Targets that a dialog names at most, one a line."""


@dataclass(frozen=True)
class Act:
    doing: str
    done: str
    command: Callable[[Target], Command]


def _pause(target: Target) -> Command:
    from toka_runtime.protocol.commands import PauseAgent

    return PauseAgent(target=target.ref)


def _resume(target: Target) -> Command:
    from toka_runtime.protocol.commands import ResumeAgent

    return ResumeAgent(target=target.ref)


def _start(target: Target) -> Command:
    from toka_runtime.protocol.commands import StartAgent

    return StartAgent(agent=target.key.name)


def _kill(target: Target) -> Command:
    from toka_runtime.protocol.commands import KillAgent

    return KillAgent(target=target.ref)


def _restart(target: Target) -> Command:
    from toka_runtime.protocol.commands import RestartAgent

    return RestartAgent(target=target.ref)


PAUSE = Act("pausing", "paused", _pause)
RESUME = Act("resuming", "resumed", _resume)
START = Act("starting", "asked to start", _start)
KILL = Act("killing", "killed", _kill)
RESTART = Act("restarting", "restarted", _restart)


# -- who is meant -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chosen:
    """Whom an act goes to, frozen, and who is marked but left alone."""

    targets: tuple[Target, ...]
    left: tuple[tuple[str, str], ...] = ()
    """(name, why)."""

    def and_left(self) -> str:
        if not self.left:
            return ""
        name, why = self.left[0]
        return f"; {len(self.left)} left alone ({name}: {why})"


def choose(context: Context, check: actions.AgentCheck) -> Chosen:
    """Of the targets of the key press, those that pass the check."""
    found: list[Target] = []
    left: list[tuple[str, str]] = []
    for entry in context.targets:
        if why := actions.why_not(context, entry, check):
            left.append((entry.key.name, why))
        else:
            found.append(selectors.freeze(entry))
    return Chosen(tuple(found), tuple(left))


class _Tally:
    """Answers to several requests, until all are in."""

    def __init__(self, app: ConsoleApp, act: Act, chosen: Chosen) -> None:
        self._app, self._act, self._chosen = app, act, chosen
        self._done = 0
        self._refused: list[str] = []

    def of(self, target: Target) -> Callable[[CommandResult], None]:
        def told(result: CommandResult) -> None:
            if result.ok:
                self._done += 1
            else:
                self._refused.append(f"{target.key.name}: {result.message or result.code}")
            if self._done + len(self._refused) == len(self._chosen.targets):
                self._sum_up()

        return told

    def _sum_up(self) -> None:
        text = f"{self._done} {self._act.done}"
        if self._refused:
            more = f" (+{len(self._refused) - 2} more)" if len(self._refused) > 2 else ""
            text += f", {len(self._refused)} refused: {'; '.join(self._refused[:2])}{more}"
        self._app.say(text + self._chosen.and_left(), "bad" if self._refused else "info")


def perform(app: ConsoleApp, act: Act, chosen: Chosen) -> None:
    """Send the act to each target."""
    if len(chosen.targets) == 1 and not chosen.left:
        (target,) = chosen.targets
        app.send(act.command(target), act.doing, (target.key,))
        return
    if not chosen.targets:
        app.say(f"{act.doing} nothing{chosen.and_left()}", "warn")
        return
    tally = _Tally(app, act, chosen)
    app.say(f"{act.doing} {plural(len(chosen.targets), 'agent')}{chosen.and_left()}")
    for target in chosen.targets:
        app.send(act.command(target), act.doing, (target.key,), told=tally.of(target))


# -- questions ----------------------------------------------------------------------------------------------------


def _facts(app: ConsoleApp, chosen: Chosen) -> list[Fact]:
    """Names the frozen targets, and says which are no longer what they were."""
    if len(chosen.targets) == 1:
        facts = _of_one(app, chosen.targets[0])
    else:
        hosts = {target.key.host for target in chosen.targets}
        facts = [("agents", f"{len(chosen.targets)} on {plural(len(hosts), 'host')}")]
        facts += [(target.key.host, _in_a_line(app, target)) for target in chosen.targets[:LISTED]]
        if len(chosen.targets) > LISTED:
            facts.append(("…", f"and {len(chosen.targets) - LISTED:,} more"))
    return facts + [("not", f"{name}: {why}") for name, why in chosen.left]


def _of_one(app: ConsoleApp, target: Target) -> list[Fact]:
    facts = [
        ("agent", target.key.name),
        ("host", target.key.host),
        ("run", target.run),
        ("pid", f"{target.pid}, {plural(target.processes, 'process')} in its tree"),
        ("state", target.state.value),
    ]
    now = _now(app, target)
    return [*facts, ("now", now)] if now else facts


def _in_a_line(app: ConsoleApp, target: Target) -> str:
    now = _now(app, target)
    text = f"{target.key.name}  {target.run}  pid {target.pid}  {target.state.value}"
    return f"{text}; now {now}" if now else text


def _now(app: ConsoleApp, target: Target) -> str:
    """What has changed since the key press; "" when nothing has."""
    state = app.session.state
    entry = state.agents.get(target.key) if state is not None else None
    if entry is None or entry.view.run != target.ref.run:
        return "another run: this command will be refused"
    return "" if entry.view.state is target.state else entry.view.state.value


def _ask(app: ConsoleApp, act: Act, chosen: Chosen, title: str, note: str) -> None:
    many = len(chosen.targets) > 1
    word = f"{title} {len(chosen.targets)}" if many else title
    question = Question(title=word, facts=lambda: _facts(app, chosen), accept=word, note=note)

    def answered(accepted: bool | None) -> None:
        if accepted:
            perform(app, act, chosen)

    app.ask(question, answered)


# -- acts ---------------------------------------------------------------------------------------------------------


@handles("agent.toggle")
def toggle(app: ConsoleApp, context: Context, argument: str) -> None:
    """Of several, those that run are paused: nothing is resumed as long as one of them runs."""
    (resume if actions.all_paused(context.targets) else pause)(app, context, argument)


@handles("agent.pause")
def pause(app: ConsoleApp, context: Context, argument: str) -> None:
    perform(app, PAUSE, choose(context, actions.pausable))


@handles("agent.resume")
def resume(app: ConsoleApp, context: Context, argument: str) -> None:
    perform(app, RESUME, choose(context, actions.resumable))


@handles("agent.start")
def start(app: ConsoleApp, context: Context, argument: str) -> None:
    chosen = choose(context, actions.startable)
    if not context.marked:
        perform(app, START, chosen)
        return
    _ask(app, START, chosen, "Start", "Each begins a run as its spec says.")


@handles("agent.kill")
def kill(app: ConsoleApp, context: Context, argument: str) -> None:
    note = "The whole process tree ends now, without saving. Its worktree stays."
    _ask(app, KILL, choose(context, actions.killable), "Kill", note)


@handles("agent.restart")
def restart(app: ConsoleApp, context: Context, argument: str) -> None:
    note = "This run ends and a new one begins with the first task. Its worktree stays."
    _ask(app, RESTART, choose(context, actions.restartable), "Restart", note)


@handles("fleet.start")
def start_fleet(app: ConsoleApp, context: Context, argument: str) -> None:
    from toka_runtime.protocol.commands import StartFleet

    host = app.bridge.host if app.bridge is not None else ""
    app.send(StartFleet(), f"starting all on {host}", ())


# -- everything in scope ------------------------------------------------------------------------------------------


@handles("fleet.freeze")
def freeze(app: ConsoleApp, context: Context, argument: str) -> None:
    """`!` then enter. With nothing left to freeze, the same key thaws."""
    scope = app.current.scope()
    entries = [entry for entry in app.session.known.agents.values() if scope is None or entry.key in scope]
    able = [entry for entry in entries if not actions.why_not(context, entry, lambda state, entry: "")]
    running = [entry for entry in able if entry.view.state in (AgentState.RUNNING, AgentState.STARTING)]
    paused = [entry for entry in able if entry.view.state is AgentState.PAUSED]
    waiting = [entry for entry in able if entry.view.state is AgentState.PENDING and entry.view.requested]
    freezing = bool(running) or not paused
    chosen = running if freezing else paused
    if not chosen and not waiting:
        where = " in what the filter shows" if scope is not None else ""
        app.say(f"nothing runs and nothing is paused{where}", "warn")
        return
    word = "Freeze" if freezing else "Thaw"
    facts = _scope_facts(app, chosen, waiting, len(entries) - len(able), scoped=scope is not None)
    question = Question(
        title=word,
        facts=lambda: facts,
        accept=word,
        note="Nothing is lost; ! again thaws." if freezing else "They go on where they stopped.",
        dangerous=False,
    )

    def answered(accepted: bool | None) -> None:
        if accepted:
            _send_to_hosts(app, [*chosen, *waiting], freezing=freezing)

    app.ask(question, answered)


def _scope_facts(
    app: ConsoleApp, chosen: Sequence[AgentEntry], waiting: Sequence[AgentEntry], unreachable: int, *, scoped: bool
) -> list[Fact]:
    facts: list[Fact] = [("agents", f"{len(chosen)}: {_names(chosen)}" if chosen else "none")]
    if waiting:
        facts.append(("waiting", f"{len(waiting)} to start: {_names(waiting)}"))
    facts.append(("on", ", ".join(sorted({entry.key.host for entry in (*chosen, *waiting)}))))
    others = len(app.session.known.live()) - len(chosen)
    source = app.session.filter(app.current.ID).source
    if scoped:
        facts.append(("scope", f"what /{source} shows; {plural(others, 'other live agent')} left as they are"))
    else:
        facts.append(("scope", "the whole fleet"))
    if unreachable:
        facts.append(("not", f"{plural(unreachable, 'agent')} on hosts that take no commands from here now"))
    return facts


def _names(entries: Sequence[AgentEntry]) -> str:
    return ", ".join(entry.key.name for entry in entries)


def _send_to_hosts(app: ConsoleApp, entries: Sequence[AgentEntry], *, freezing: bool) -> None:
    """A command to each host."""
    from toka_runtime.protocol.commands import PauseFleet, ResumeFleet

    for host in sorted({entry.key.host for entry in entries}):
        keys = tuple(entry.key for entry in entries if entry.key.host == host)
        names = tuple(key.name for key in keys)
        command = PauseFleet(agents=names) if freezing else ResumeFleet(agents=names)
        app.send(command, "freezing" if freezing else "thawing", keys)
