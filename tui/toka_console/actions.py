"""The registry of actions: the one source of keys, footer, help, palette and `:` forms.

An action is data; what it does is the handler of the same id (`handlers.py`), and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from toka_console.identity import AgentKey, ApprovalKey, GrantKey
from toka_runtime.protocol.states import LIVE, TERMINAL, AgentState

if TYPE_CHECKING:
    from toka_console.entries import AgentEntry, DenialEntry
    from toka_console.state import ConsoleState

Group = Literal["Move", "Look", "Contain", "Destroy", "Approve", "Start", "Console"]
Takes = Literal["", "agent", "hosts", "text", "theme"]
"""What may follow the `:` form; each kind but text has its completions (`completion.py`)."""


@dataclass(frozen=True)
class Context:
    """What an action is judged by, taken at the key press."""

    screen: str
    state: ConsoleState | None
    focus: AgentKey | None
    stopping: bool = False
    subject: ApprovalKey | GrantKey | None = None
    """The request or grant under the cursor."""
    marked: tuple[AgentKey, ...] = ()
    """Agents that the operator has marked: what is done to agents is done to them, not to the focused one."""
    denial: DenialEntry | None = None
    """What was refused, where that is what the screen is about."""

    @property
    def entry(self) -> AgentEntry | None:
        if self.state is None or self.focus is None:
            return None
        return self.state.agents.get(self.focus)

    @property
    def targets(self) -> tuple[AgentEntry, ...]:
        """Whom an act on agents is for: all that are marked, else the focused one."""
        if self.state is None or not self.marked:
            return (self.entry,) if self.entry is not None else ()
        return tuple(self.state.agents[key] for key in self.marked if key in self.state.agents)


def always(context: Context) -> str:
    return ""


def needs_state(context: Context) -> str:
    return "" if context.state is not None else "the runtime is not open yet"


def needs_agent(context: Context) -> str:
    return needs_state(context) or ("" if context.entry is not None else "no agent is selected")


Check = Callable[[Context], str]
AgentCheck = Callable[["ConsoleState", "AgentEntry"], str]


def why_not(context: Context, entry: AgentEntry, check: AgentCheck) -> str:
    """Why an agent cannot be told something now: what holds for every command to it, then the check."""
    state = context.state
    if state is None:
        return needs_state(context)
    if context.stopping:
        return "the console is stopping"
    link = state.link_of(entry.key)
    if link is None or not state.is_up(entry.key.host):
        return f"host {entry.key.host} is not reachable"
    return link.read_only or check(state, entry)


def _on_agent(check: AgentCheck) -> Check:
    """Whether any of the targets passes: of several, the others are left alone, and named."""

    def disabled(context: Context) -> str:
        reasons = [why_not(context, entry, check) for entry in context.targets]
        if not reasons:
            return needs_agent(context)
        return "" if "" in reasons else reasons[0]

    return disabled


def _unconfirmed(state: ConsoleState, entry: AgentEntry) -> str:
    pending = state.pending_of(entry.key)
    if pending is None or pending.unknown:
        return ""
    return f"{pending.text} {entry.key.name} is not confirmed yet"


def pausable(state: ConsoleState, entry: AgentEntry) -> str:
    now = entry.view.state
    wrong = "" if now is AgentState.RUNNING else f"only a running agent can be paused; it is {now.value}"
    return _unconfirmed(state, entry) or wrong


def resumable(state: ConsoleState, entry: AgentEntry) -> str:
    now = entry.view.state
    wrong = "" if now is AgentState.PAUSED else f"only a paused agent can be resumed; it is {now.value}"
    return _unconfirmed(state, entry) or wrong


def all_paused(entries: Sequence[AgentEntry]) -> bool:
    return all(entry.view.state is AgentState.PAUSED for entry in entries)


def toggleable(state: ConsoleState, entry: AgentEntry) -> str:
    now = entry.view.state
    able = now in (AgentState.RUNNING, AgentState.PAUSED)
    return _unconfirmed(state, entry) or ("" if able else f"it is {now.value}: nothing to pause or resume")


def killable(state: ConsoleState, entry: AgentEntry) -> str:
    view = entry.view
    if view.state in LIVE or view.survivors or (view.state is AgentState.PENDING and view.requested):
        return ""
    return f"nothing of it runs; it is {view.state.value}"


def restartable(state: ConsoleState, entry: AgentEntry) -> str:
    return _unconfirmed(state, entry) or ("" if entry.view.run is not None else "it has not run yet: S starts it")


def startable(state: ConsoleState, entry: AgentEntry) -> str:
    view = entry.view
    if view.state in LIVE:
        return f"it is {view.state.value} already"
    asked = view.state is AgentState.PENDING and view.requested
    return _unconfirmed(state, entry) or ("it is asked to start already" if asked else "")


def refusable(state: ConsoleState, entry: AgentEntry) -> str:
    return "" if entry.view.approvals or entry.view.grants else "it asks for nothing, and nothing was granted to it"


def can_remove(context: Context) -> str:
    """It is about the list alone: no host has to be reached."""
    if any(entry.view.state in TERMINAL and not entry.view.survivors for entry in context.targets):
        return ""
    entry = next(iter(context.targets), None)
    return f"only a finished run can be removed; it is {entry.view.state.value}" if entry else needs_agent(context)


_can_refuse_all = _on_agent(refusable)
can_reach = _on_agent(lambda state, entry: "")


def can_answer(context: Context) -> str:
    """A request that waits has to be under the cursor."""
    if context.state is not None and not isinstance(context.subject, ApprovalKey):
        return "no request is selected: 6 shows those that wait"
    return can_refuse(context)


def can_refuse(context: Context) -> str:
    """A request, a grant or a denial has to be under the cursor; on the Fleet, agents that have some."""
    if context.screen == "fleet":
        return _can_refuse_all(context)
    if context.screen in ("denials", "call"):
        return needs_state(context) or ("" if context.denial is not None else "no denial is selected")
    state, subject = context.state, context.subject
    if state is None or subject is None:
        return needs_state(context) or "no request and no grant is selected: 6 shows them"
    pending = state.pending_on(subject.id)
    if pending is not None and not pending.unknown:
        return f"{pending.text} is not confirmed yet"
    return can_reach(context)


def _fleet(context: Context) -> str:
    state = context.state
    if state is None:
        return needs_state(context)
    if context.stopping:
        return "the console is stopping"
    if not any(state.is_up(host) for host in state.hosts):
        return "no host is reachable"
    return next((host.link.read_only for host in state.hosts.values() if host.link.read_only), "")


@dataclass(frozen=True)
class Action:
    id: str
    title: str
    """A word or two, for the footer and the palette."""
    help: str
    group: Group
    form: str
    """Word after `:`."""
    keys: tuple[str, ...] = ()
    """Default keys: a printable character, or a Textual key name."""
    screens: frozenset[str] | None = None
    """Where it can be used; None: everywhere."""
    also: tuple[tuple[str, str], ...] = ()
    """More default keys, each on one screen: (screen, key)."""
    aliases: tuple[str, ...] = ()
    takes: Takes = ""
    tab: str = ""
    """Title of the screen in the header, for a screen that has its place there."""
    wins: bool = False
    """On its screens its keys win over those of actions that have them, too (the digits of Logs)."""
    dangerous: bool = False
    changes_state: bool = False
    footer: int = 0
    """Order in the footer, the lowest first; 0: not there."""
    disabled: Check = always
    """Why it cannot be done now; "" when it can."""

    def title_in(self, context: Context) -> str:
        """The title now: one key pauses and resumes, and with marks it is about so many."""
        title = self.title
        if self.id == "agent.toggle" and context.targets:
            title = "resume" if all_paused(context.targets) else "pause"
        many = context.marked and self.takes == "agent" and self.group in ("Contain", "Destroy", "Start")
        return f"{title} {len(context.marked)}" if many else title

    def on(self, screen: str) -> bool:
        return self.screens is None or screen in self.screens


def _on(*screens: str) -> frozenset[str]:
    return frozenset(screens)


_AGENTS = _on("fleet", "agent", "output")
_DEEPER = ("agent", "output", "denials", "approvals", "call", "specs", "help", "diagnostics", "graph", "resources",
           "incident", "timeline", "logs", "hosts")  # fmt: skip
_FLEET = _on("fleet")
_LISTS = _on("fleet", "denials", "graph", "resources", "help", "timeline", "logs")
_LOGS = _on("logs")
_APPROVALS = _on("approvals")
_HOSTS = _on("hosts")
_CONTAINED = _AGENTS | _APPROVALS | _on("graph", "resources")

ACTIONS: tuple[Action, ...] = (
    Action("cursor.down", "down", "next row", "Move", "down", ("j", "down")),
    Action("cursor.up", "up", "row before", "Move", "up", ("k", "up")),
    Action("cursor.top", "top", "first row", "Move", "top", ("g", "home")),
    Action("cursor.bottom", "bottom", "last row; output follows again", "Move", "bottom", ("G", "end")),
    Action("cursor.half_down", "half down", "half a page down", "Move", "half-down", ("ctrl+d",)),
    Action("cursor.half_up", "half up", "half a page up", "Move", "half-up", ("ctrl+u",)),
    Action("cursor.page_down", "page down", "a page down", "Move", "page-down", ("pagedown",)),
    Action("cursor.page_up", "page up", "a page up", "Move", "page-up", ("pageup",)),
    Action("pane.next", "pane", "next pane", "Move", "next-pane", ("tab",)),
    Action("pane.previous", "pane back", "pane before", "Move", "previous-pane", ("shift+tab",)),
    Action("turn.previous", "turn before", "turn or task before", "Move", "previous-turn", ("{",),
           screens=_on("output", "agent")),
    Action("turn.next", "next turn", "next turn or task", "Move", "next-turn", ("}",), screens=_on("output", "agent")),
    Action("row.open", "open", "open what is under the cursor", "Look", "open", ("enter",), footer=1,
           screens=_on("fleet", "denials", "approvals", "agent", "output", "graph", "resources", "timeline", "logs",
                       "hosts"),
           disabled=needs_state),
    Action("screen.fleet", "fleet", "all agents, trouble first", "Look", "fleet", ("1",), aliases=("agents",),
           tab="Fleet"),
    Action("screen.agent", "agent", "one agent: identity, gauges, tasks, actions", "Look", "agent", ("2",),
           also=(("fleet", "d"),), takes="agent", tab="Agent", aliases=("describe",), disabled=needs_agent),
    Action("screen.output", "output", "what the agent's model and tools say", "Look", "output", ("o", "3"),
           takes="agent", tab="Output", footer=2, disabled=needs_agent),
    Action("screen.logs", "logs", "what tools and the runtime printed, and what happened, by time", "Look", "logs",
           ("4",), takes="agent", tab="Logs", disabled=needs_state),
    Action("agent.logs", "logs", "the log of this agent", "Look", "agent-logs", ("l",),
           screens=_AGENTS | _on("denials", "graph", "resources", "timeline"), disabled=needs_agent),
    Action("screen.denials", "denials", "what was refused, by which layer and rule", "Look", "denials", ("5",),
           tab="Denials"),
    Action("screen.approvals", "approvals", "what agents ask for, and what was granted", "Look", "approvals", ("6",),
           tab="Approvals"),
    Action("screen.resources", "resources", "what hosts and agents use, over time, against limits", "Look", "resources",
           ("7",), aliases=("pulse",), tab="Resources"),
    Action("screen.graph", "graph", "who waits for whom, and the chain that takes longest", "Look", "graph", ("8",),
           tab="Graph"),
    Action("screen.timeline", "timeline", "all that agents and operators did, from the log", "Look", "timeline", ("9",),
           tab="Timeline"),
    Action("agent.audit", "audit", "the timeline of this agent", "Look", "audit", ("e",), takes="agent",
           screens=_AGENTS | _on("denials", "graph", "resources"), disabled=needs_agent),
    Action("timeline.next_problem", "next problem", "next denial or failure", "Move", "next-problem", (".",),
           screens=_on("timeline"), footer=2),
    Action("timeline.previous_problem", "problem before", "denial or failure before", "Move", "previous-problem",
           (",",), screens=_on("timeline")),
    Action("timeline.follow", "follow", "stay with what is newest, or not any more", "Look", "follow-timeline", ("s",),
           screens=_on("timeline"), footer=3),
    Action("timeline.export", "export", "write the records that the filter shows, from the log, to FILE as JSON lines",
           "Look", "export-timeline", takes="text", disabled=needs_state),
    Action("logs.follow", "follow", "stay with the newest line, or not any more", "Look", "follow-logs", ("s",),
           screens=_LOGS, footer=2),
    Action("logs.next_problem", "next problem", "next error or denial", "Move", "next-error", (".",), screens=_LOGS,
           footer=3),
    Action("logs.previous_problem", "problem before", "error or denial before", "Move", "previous-error", (",",),
           screens=_LOGS),
    Action("logs.search", "search", "search for TEXT; n and N go on", "Look", "search", ("ctrl+f",), screens=_LOGS,
           takes="text", footer=4),
    Action("logs.next_match", "next match", "next line with what is searched for", "Move", "next-match", ("n",),
           screens=_LOGS),
    Action("logs.previous_match", "match before", "line before with what is searched for", "Move", "previous-match",
           ("N",), screens=_LOGS),
    Action("logs.wrap", "wrap", "break long lines, or scroll sideways", "Look", "wrap", ("w",), screens=_LOGS,
           footer=5),
    Action("logs.times", "times", "the clock, how long ago, or no times", "Look", "times", ("t",), screens=_LOGS),
    Action("logs.mark", "mark", "mark this line, or not any more", "Look", "mark-line", ("m",), screens=_LOGS),
    Action("logs.scope", "all/one", "all agents, or that of this line", "Look", "scope", ("*",), screens=_LOGS,
           footer=6),
    Action("logs.copy", "copy", "copy this line", "Look", "copy", ("c",), screens=_LOGS),
    Action("logs.copy_all", "copy all", "copy every line that is shown", "Look", "copy-all", ("C",), screens=_LOGS),
    Action("logs.export", "export", "write the complete log to FILE: .txt what was printed, else JSON lines", "Look",
           "export", screens=_LOGS | _on("output", "agent"), takes="text", disabled=needs_state),
    Action("logs.left", "left", "scroll to the left", "Move", "scroll-left", ("left",), screens=_LOGS),
    Action("logs.right", "right", "scroll to the right", "Move", "scroll-right", ("right",), screens=_LOGS),
    *(Action(f"logs.since{number}", f"since {number}", f"lines of {name}", "Look", f"since-{number}", (str(number),),
             screens=_LOGS, wins=True)
      for number, name in enumerate(("all times", "the last minute", "the last 5 minutes", "the last 15 minutes",
                                     "the last hour", "the last 6 hours", "the last day"))),
    Action("screen.hosts", "hosts", "each host: link, round trip, versions, clock, agents", "Look", "hosts"),
    Action("host.attach", "attach", "attach HOST, USER@HOST, a name or a group of console.yaml, over SSH", "Console",
           "attach", takes="hosts", disabled=needs_state),
    Action("host.detach", "detach", "leave a host; its agents go on", "Console", "detach", takes="hosts",
           disabled=needs_state),
    Action("host.reconnect", "reconnect", "attach a host anew, also one that refused", "Console", "reconnect", ("r",),
           screens=_HOSTS, takes="hosts", footer=2, disabled=needs_state),
    Action("host.answer", "answer", "answer what a host asks: its key, a passphrase, a code", "Console", "answer"),
    Action("screen.specs", "specs", "spec files: what is wrong with those that were rejected", "Look", "specs"),
    Action("resources.window", "window", "look back 2m, 15m or 1h", "Look", "window", ("t",), screens=_on("resources"),
           takes="text", footer=2),
    Action("graph.left", "left", "box to the left", "Move", "left", ("left",), screens=_on("graph")),
    Action("graph.right", "right", "box to the right", "Move", "right", ("right",), screens=_on("graph")),
    Action("graph.export", "export graph", "write the graph to FILE.mmd or FILE.json", "Look", "export-graph",
           takes="text", disabled=needs_state),
    Action("trouble.next", "next trouble", "the agent in the worst trouble, then the next", "Move", "next-trouble",
           (".",), screens=_FLEET, disabled=needs_state),
    Action("trouble.previous", "trouble before", "the agent in trouble before", "Move", "previous-trouble", (",",),
           screens=_FLEET, disabled=needs_state),
    Action("output.next_problem", "next denial", "the first denial or failure of the agent, then the next", "Move",
           "next-denial", (".",), screens=_on("agent", "output"), takes="agent", disabled=needs_agent),
    Action("output.previous_problem", "denial before", "the denial or failure before", "Move", "previous-denial",
           (",",), screens=_on("agent", "output"), takes="agent", disabled=needs_agent),
    Action("output.follow", "follow", "follow the output again", "Look", "follow", ("F",),
           screens=_on("agent", "output")),
    Action("history.back", "last screen", "the screen before", "Look", "history-back", ("-", "[")),
    Action("history.forward", "forward", "forward again in the history of screens", "Look", "history-forward", ("]",)),
    Action("view.filter", "filter", "text, !not, -f fuzzy, key:value", "Look", "filter", ("/",), screens=_LISTS,
           takes="text", footer=7),
    Action("view.command", "command", "type a command; TAB completes", "Console", "command", (":",), footer=8),
    Action("view.palette", "palette", "all actions, searchable", "Console", "palette", ("ctrl+p",)),
    Action("screen.help", "help", "keys and commands", "Console", "help", ("?",), footer=9, aliases=("keys",)),
    Action("screen.diagnostics", "diagnostics", "event rate, stalls, memory, dropped counters", "Console",
           "diagnostics", ("f12",)),
    Action("view.redraw", "redraw", "draw everything again", "Console", "redraw", ("ctrl+l",)),
    Action("view.theme", "theme", "change the theme", "Console", "theme", takes="theme"),
    Action("settings.reload", "reload", "read console.yaml again", "Console", "reload"),
    Action("screen.back", "back", "one screen back; on the Fleet: clear the filter", "Look", "back", ("escape",),
           also=tuple((screen, "q") for screen in _DEEPER),
           footer=10),
    Action("agent.toggle", "pause/resume", "pause a running agent, resume a paused one", "Contain", "toggle", ("p",),
           takes="agent", screens=_CONTAINED, changes_state=True, footer=3, disabled=_on_agent(toggleable)),
    Action("agent.pause", "pause", "pause a running agent", "Contain", "pause", takes="agent", changes_state=True,
           disabled=_on_agent(pausable)),
    Action("agent.pause_subtree", "pause subtree", "pause an agent and all that depends on it (then enter)", "Contain",
           "pause-subtree", takes="agent", changes_state=True, disabled=can_reach),
    Action("agent.resume", "resume", "resume a paused agent", "Contain", "resume", takes="agent", changes_state=True,
           disabled=_on_agent(resumable)),
    Action("fleet.freeze", "freeze all", "pause all that run (then enter); again: thaw", "Contain", "freeze",
           ("!",), changes_state=True, footer=4, disabled=_fleet, aliases=("thaw",)),
    Action("agent.start", "start", "start an agent", "Start", "start", ("S",), takes="agent", screens=_AGENTS,
           changes_state=True, footer=7, disabled=_on_agent(startable)),
    Action("fleet.start", "start all", "start every loaded agent in dependency order", "Start", "start-all",
           changes_state=True, disabled=_fleet),
    Action("agent.kill", "kill", "kill the agent's whole process tree, now", "Destroy", "kill", ("K",), takes="agent",
           screens=_CONTAINED, dangerous=True, changes_state=True, footer=5, disabled=_on_agent(killable)),
    Action("agent.restart", "restart", "end this run and begin a new one", "Destroy", "restart", ("R",), takes="agent",
           screens=_AGENTS, dangerous=True, changes_state=True, footer=6, disabled=_on_agent(restartable)),
    Action("approval.refuse", "deny/revoke", "deny the request, revoke the grant, or cut the agent off from what was "
           "refused; on the Fleet all of an agent (then enter)", "Contain", "deny", ("x",),
           screens=_APPROVALS | _FLEET | _on("denials", "call"), changes_state=True, footer=2, disabled=can_refuse,
           aliases=("revoke", "cut")),
    Action("capability.withdraw", "withdraw", "take a capability away from the agent, whatever its spec declares",
           "Contain", "withdraw", screens=_CONTAINED, takes="text", changes_state=True, disabled=can_reach),
    Action("capability.restore", "restore", "give a withdrawn capability back to the agent's next run", "Start",
           "give-back", screens=_CONTAINED, takes="text", changes_state=True, disabled=can_reach),
    Action("approval.once", "allow once", "allow this one call (then enter)", "Approve", "allow-once", ("a",),
           screens=_APPROVALS, changes_state=True, footer=1, disabled=can_answer),
    Action("approval.allow", "allow …", "allow more: choose, or say task, run, ttl 90s, task wide", "Approve", "allow",
           ("A",), screens=_APPROVALS, takes="text", dangerous=True, changes_state=True, footer=1, disabled=can_answer),
    Action("approval.refuse_all", "deny all", "deny all requests and revoke all grants of its agent (then enter)",
           "Approve", "deny-all", ("X",), screens=_APPROVALS, changes_state=True, footer=2, disabled=can_refuse),
    Action("budget.set", "budget", "set a cap: fleet, day, agent:NAME or task:NAME/0, then 500k, $5, 2M,$9 or none",
           "Approve", "budget", ("B",), takes="text", dangerous=True, changes_state=True, disabled=_fleet),
    Action("agent.remove", "remove", "take a finished run off the list (it stays in the log)", "Destroy", "remove",
           ("D",), takes="agent", screens=_FLEET, disabled=can_remove),
    Action("view.restore", "restore", "bring removed runs back to the list", "Look", "restore", screens=_FLEET),
    Action("agent.spec", "spec", "the spec of this agent", "Look", "spec", ("y",), takes="agent", screens=_AGENTS,
           disabled=needs_agent),
    Action("agent.dependents", "dependents", "what this agent waits for, and who waits for it", "Look", "dependents",
           ("u",), takes="agent", screens=_AGENTS, disabled=needs_agent),
    Action("screen.incident", "incident", "what is done about an incident; open TITLE, pin, close", "Look", "incident",
           takes="text", disabled=needs_state),
    Action("incident.note", "note", "write a note into the open incident", "Look", "note", takes="text",
           disabled=needs_state),
    Action("agent.evidence", "evidence", "keep all that is known of an agent, or of all that are marked, in one file",
           "Look", "evidence", ("E",), takes="agent", disabled=needs_state),
    Action("view.follow_agent", "follow agent", "the live output stays with this agent, wherever the cursor goes",
           "Look", "follow-agent", ("F",), screens=_FLEET),
    Action("view.mark", "mark", "mark this row, or not any more", "Move", "mark", ("space",), screens=_FLEET),
    Action("view.mark_range", "mark range", "mark all rows from the last mark to here", "Move", "mark-range",
           ("ctrl+space",), screens=_FLEET),
    Action("view.unmark", "clear marks", "no row is marked any more", "Move", "unmark", ("ctrl+backslash",),
           screens=_FLEET),
    Action("view.sort", "sort", "by a column, e.g. mem or mem desc; nothing: the list's own order", "Look", "sort",
           takes="text"),
    Action("view.sort_next", "next sort", "sort by the next column", "Look", "sort-next", ("shift+right",)),
    Action("view.sort_before", "sort before", "sort by the column before", "Look", "sort-before", ("shift+left",)),
    Action("view.sort_flip", "flip sort", "sort the other way round", "Look", "flip", ("O",)),
    Action("view.host", "host", "narrow the list to a host", "Look", "host", ("@",), screens=_FLEET, takes="text"),
    Action("view.trouble", "trouble only", "only agents in trouble, or all", "Look", "trouble", ("ctrl+z",),
           screens=_FLEET),
    Action("view.costs", "cost columns", "all columns of tokens and money, or the usual ones", "Look", "costs", ("$",),
           screens=_FLEET),
    Action("view.grow", "grow", "a larger table, less below it", "Look", "grow", ("+",), screens=_FLEET),
    Action("view.shrink", "shrink", "a smaller table, more below it", "Look", "shrink", ("_",), screens=_FLEET),
    Action("view.zoom", "zoom", "this pane alone, or all of them", "Look", "zoom", ("f",)),
    Action("app.quit", "quit", "leave (asks when agents would stop)", "Console", "quit", ("ctrl+q",),
           also=(("fleet", "q"),), footer=11, aliases=("q",)),
)  # fmt: skip

BY_ID: dict[str, Action] = {action.id: action for action in ACTIONS}
BY_FORM: dict[str, Action] = {
    form: action for action in ACTIONS for form in (action.form, *action.aliases)
}  # fmt: skip
SCREENS = ("fleet", *_DEEPER)
