"""The Fleet's table: one row an agent, and a red one for each spec file that was rejected."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

from toka_console import approvals, fleet_list, selectors
from toka_console.format import glyphs, units
from toka_console.format.cells import Row, clip_left
from toka_console.identity import RowKey
from toka_console.panes.columns import Column
from toka_console.panes.fleet_cells import FleetCells, capped, hourly
from toka_console.panes.ordering import Value, rest_s
from toka_console.panes.table import MARK, TablePane

if TYPE_CHECKING:
    from datetime import datetime

    from toka_console.entries import AgentEntry
    from toka_console.session import Session
    from toka_console.state import ConsoleState

    Compared = Callable[[AgentEntry, ConsoleState, datetime], Value]

SAMPLE_S = 0.15
ASKING_WIDTH = 21
"""Of `PENDING approval 4:32`."""
HOST = Column("host", "HOST", 6, 12, rank=6)
COLUMNS = (
    Column("agent", "AGENT", 14, 24, rank=0),
    Column("state", "STATE", 13, 18, 36, weight=2, rank=0),
    Column("task", "TASK", 5, 5, 14, rank=1),
    Column("action", "LAST ACTION", 14, 28, 48, weight=5, rank=7),
    Column("cpu", "CPU", 4, 8, 18, rank=2, right=True),
    Column("memory", "MEM", 5, 9, 20, rank=3, right=True),
    Column("tokens", "TOKENS", 6, 6, rank=8, right=True),
    Column("cost", "$", 6, 6, rank=9, right=True),
    Column("denials", "DENY", 4, 4, rank=4, right=True),
    Column("age", "AGE", 5, 5, rank=5, right=True),
)
NARROW = 80
"""Below this many cells the state has its word alone."""
ROOMY, WIDE = 160, 200
"""From so many cells on there are more columns."""
_WHY = (
    Column("since", "SINCE", 5, 5, rank=6, right=True),
    Column("why", "WHY", 12, 30, 44, weight=3, rank=6),
)
_PRIORITY = Column("priority", "PRIORITY", 8, 8, rank=11)
_PROCESSES = Column("procs", "PROCS", 5, 5, rank=10, right=True)
_DOMAIN = Column("domain", "DOMAIN", 10, 16, 22, rank=12)
_IO = Column("io", "I/O", 5, 5, rank=13, right=True)
_RATE = Column("rate", "$/H", 6, 6, rank=1, right=True)
_CAP = Column("cap", "CAP", 4, 4, rank=1, right=True)


def columns_for(width: int, *, costs: bool = False, hosts: bool = False) -> tuple[Column, ...]:
    """What there is room for in a table of `width` cells. `costs`: what is spent comes before all but name and
    state; `hosts`: there are several."""
    agent, shown, task, action, cpu, memory, tokens, cost, denials, age = COLUMNS
    spent = (tokens, cost)
    if costs:
        spent = (tokens._replace(rank=1), cost._replace(rank=1), _RATE, _CAP)
    found: tuple[Column, ...] = (agent, shown, task, action, cpu, memory, *spent, denials, age)
    if width < NARROW:
        found = tuple(column._replace(least=9) if column.id == "state" else column for column in found)
    if width >= ROOMY:
        # The word alone; the history of processor and memory comes before longer bars.
        word, task = shown._replace(least=9, ideal=9, roomy=0, weight=0), task._replace(roomy=0)
        action = action._replace(ideal=22)
        found = (agent, word, *_WHY, task, action, cpu, memory, _PROCESSES, *spent, denials, age, _PRIORITY)
    if width >= WIDE:
        found = (*found[:9], _IO, *found[9:], _DOMAIN)
    return (HOST, *found) if hosts else found


class FleetTable(TablePane[RowKey]):
    markable = True
    moves_by_itself = True

    def __init__(self, session: Session, *, id: str | None = None) -> None:
        super().__init__(session, id=id)
        self._cells = FleetCells(session)
        self.trouble = False
        """Only agents in trouble are shown."""
        self.removed: set[fleet_list.Run] = set()
        """Finished runs that the operator does not want to see."""
        self._shown: dict[RowKey, tuple[float, int]] = {}
        """When a row's figures were drawn last, and the samples there were then."""

    _made_from: Hashable = None
    _asked: Hashable = None
    _made_at = 0.0
    _longest: tuple[Sequence[RowKey], int] = ((), 0)
    """The order, and the cells of the longest name in it."""

    def heading(self) -> tuple[str, str]:
        state, chosen = self.session.state, self.session.filter("fleet")
        shown = f"{len(self.order)}"
        if state is not None and (chosen or self.trouble or self.removed):
            shown += f" of {len(state.agents)}"
        parts = [f"Agents {shown}"]
        if chosen:
            parts.append(f"/{chosen.source}")
        if self.trouble:
            parts.append("trouble only")
        if self.marks:
            there = set(self.order)
            hidden = sum(key not in there for key in self.marks)
            parts.append(f"{MARK} {len(self.marks)} marked" + (f", {hidden} of them not shown" if hidden else ""))
        if gone := sum(self._is_removed(key) for key in self.removed):
            parts.append(f"{gone} removed")
        return "  ".join(parts), self.order_note("trouble first")

    def _is_removed(self, run: fleet_list.Run) -> bool:
        entry = self.session.known.agents.get(run[0])
        return entry is not None and fleet_list.is_finished(entry) and fleet_list.run_of(entry) == run

    def empty(self) -> str:
        if self.session.state is None:
            return f"{self.session.phase} …"
        if chosen := self.session.filter("fleet"):
            return f"no agent matches /{chosen.source}\nesc clears the filter"
        if self.trouble:
            return "no agent is in trouble\nctrl+z shows all"
        if self.removed:
            return "all runs have been removed from this list\n:restore brings them back"
        if not self.session.state.hosts:
            return "no host is attached\n:hosts shows how far that is, :attach HOST attaches one"
        return "no agent is loaded\nstart the console with files or folders of agent specs: toka-console PATH…"

    def prefers_top(self) -> bool:
        state, row = self.session.state, self.cursor
        entry = None if state is None or row is None or row.agent is None else state.agents.get(row.agent)
        return entry is not None and selectors.rank(entry.view) >= selectors.WAITING

    def visible_columns(self) -> Sequence[Column]:
        state = self.session.state
        hosts = state is not None and len(state.hosts) > 1
        first, *others = columns_for(self.size.width, costs=self.session.views.costs, hosts=hosts)
        if self._longest[0] is not self.order:
            self._longest = (self.order, max((len(key.name) for key in self.order if key.kind == "agent"), default=0))
        found: list[Column] = []
        for column in (first, *others):
            if column.id == "agent":
                column = column._replace(ideal=max(14, min(36, self._longest[1] + 2)))
            elif column.id == "state" and state is not None and state.asking:
                column = column._replace(ideal=ASKING_WIDTH)
            found.append(column)
        return found

    def sort_keys(self) -> Mapping[str, Callable[[RowKey], Value]]:
        return {column: self._comparing(column) for column in _COMPARED}

    def _comparing(self, column: str) -> Callable[[RowKey], Value]:
        compared = _COMPARED[column]
        state, now = self.session.known, self.session.now()

        def value(key: RowKey) -> Value:
            entry = state.agents.get(key.agent) if key.agent is not None else None
            return compared(entry, state, now) if entry is not None else None

        return value

    def hide(self, runs: Collection[fleet_list.Run]) -> None:
        """Take finished runs off the list, and their marks."""
        self.removed |= set(runs)
        for key in [key for key in self.marks if key.agent in {agent for agent, _ in runs}]:
            self.marks.toggle(key)

    def exists(self, key: RowKey) -> bool:
        return key.agent in self.session.known.agents

    def can_mark(self, key: RowKey) -> bool:
        return key.agent is not None

    def rows(self) -> Sequence[RowKey]:
        state, now = self.session.state, self.session.clock.monotonic()
        if state is None:
            return ()
        chosen = self.session.filter("fleet")
        asked = (chosen, self.trouble, frozenset(self.removed))
        # Figures that a filter compares change without a word; so does trouble.
        figures = (int(now), state.totals_version) if chosen.compares or self.trouble else None
        made_from = (asked, state.order_version, figures)
        if made_from == self._made_from or (asked == self._asked and now - self._made_at < rest_s(len(self.order))):
            return self.order
        if asked != self._asked:
            self.reorder()
        self._made_from, self._asked, self._made_at = made_from, asked, now
        return fleet_list.rows(state, self.session.now(), chosen, trouble=self.trouble, removed=self.removed)

    def invalidate(self) -> None:
        super().invalidate()
        self._made_from = None
        self._shown.clear()

    def version(self, key: RowKey) -> Hashable:
        state, now = self.session.known, self.session.now()
        if key.agent is None:
            return state.order_version
        entry = state.agents.get(key.agent)
        if entry is None:
            # It has gone; its row goes with the next order.
            return None
        view = entry.view
        pending = state.pending_of(key.agent)
        return (
            entry.version,
            self._samples(key, entry.samples),
            units.age(view.since, now),
            selectors.running_for(view, now),
            selectors.last_action(view, now),
            view.approvals and approvals.soonest(view.approvals, now),
            pending and (pending.text, units.age(pending.sent_at, now), pending.unknown),
            state.is_up(key.host),
            self.session.views.costs and round(hourly(state.hosts[key.host], view, now), 2),
        )

    def _samples(self, key: RowKey, newest: int) -> int:
        """The samples that a row shows: figures that change faster than can be read are shown now and then."""
        now = self.session.clock.monotonic()
        shown = self._shown.get(key)
        if shown is None or (shown[1] != newest and now - shown[0] >= SAMPLE_S):
            shown = self._shown[key] = (now, newest)
        return shown[1]

    def cells(self, key: RowKey, row: Row, layout: list[tuple[Column, int]]) -> None:
        state = self.session.known
        if key.agent is None:
            self._rejected(key, row, layout)
            return
        entry = state.agents.get(key.agent)
        if entry is None:
            return
        pending = state.pending_of(key.agent)
        why_apart = any(column.id == "why" for column, _ in layout)
        for column, width in layout:
            self._cells.add(entry, pending, column.id, row, width, why_apart=why_apart)
            row.gap()

    def _rejected(self, key: RowKey, row: Row, layout: list[tuple[Column, int]]) -> None:
        style = self.palette.bad
        rejected = self.session.known.hosts[key.host].fleet.rejected[key.name]
        for column, width in layout:
            if column.id not in ("host", "agent", "state"):
                break
            if column.id == "agent":
                name = rejected.name or clip_left(key.name, width - 2)
                row.add(f"{glyphs.REJECTED.glyph} {name}", style, width)
            else:
                row.add(key.host if column.id == "host" else glyphs.REJECTED.word, style, width)
            row.gap()
        first = rejected.problems[0] if rejected.problems else None
        if first is None:
            return
        where = f"{key.name}:{first.line}:{first.column}" if first.line else key.name
        more = f" (+{len(rejected.problems) - 1} more)" if len(rejected.problems) > 1 else ""
        hint = f", {first.hint}" if first.hint else ""
        row.add(f"{first.message}{hint}{more}  {where}", style)


def _figure(name: str) -> Compared:
    """A figure that a filter can name, too; None where it is not known."""

    figure = fleet_list.FIGURES[name]

    def compared(entry: AgentEntry, state: ConsoleState, now: datetime) -> Value:
        found = figure(entry, now)
        return found if found != "" else None

    return compared


_COMPARED: Mapping[str, Compared] = {
    "host": lambda entry, state, now: entry.view.host,
    "agent": lambda entry, state, now: entry.view.name,
    "state": lambda entry, state, now: selectors.rank(entry.view),
    "since": lambda entry, state, now: (now - entry.view.since).total_seconds(),
    "task": lambda entry, state, now: entry.view.tasks_done / len(entry.view.tasks) if entry.view.tasks else None,
    "action": lambda entry, state, now: entry.view.last_activity_at and entry.view.last_activity_at.timestamp(),
    "cpu": _figure("cpu"),
    "memory": _figure("mem"),
    "procs": _figure("procs"),
    "io": lambda entry, state, now: entry.view.usage.read_bytes + entry.view.usage.written_bytes,
    "tokens": _figure("tokens"),
    "cost": _figure("cost"),
    "rate": lambda entry, state, now: hourly(state.hosts[entry.key.host], entry.view, now),
    "cap": lambda entry, state, now: capped(state.hosts[entry.key.host], entry.view),
    "denials": _figure("denials"),
    "age": _figure("age"),
    "priority": lambda entry, state, now: entry.view.spec.priority.rank,
    "domain": lambda entry, state, now: entry.view.spec.domain,
}
