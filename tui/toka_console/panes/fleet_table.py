"""The Fleet's table: one row an agent, and a red one for each spec file that was rejected."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

from rich.style import Style

from toka_console import approvals, fleet_list, selectors
from toka_console.format import glyphs, meters, units
from toka_console.format.cells import Row, clip_left, width_of
from toka_console.identity import RowKey
from toka_console.panes.columns import Column
from toka_console.panes.table import TablePane
from toka_runtime.protocol.states import LIVE, AgentState

if TYPE_CHECKING:
    from toka_console.entries import AgentEntry, Pending
    from toka_console.filters import Filter
    from toka_console.session import Session
    from toka_runtime.protocol.snapshot import AgentView

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
_NARROW = tuple(column._replace(least=9) if column.id == "state" else column for column in COLUMNS)


class FleetTable(TablePane[RowKey]):
    def __init__(self, session: Session, *, id: str | None = None) -> None:
        super().__init__(session, id=id)
        self._shown: dict[RowKey, tuple[float, int]] = {}
        """When a row's figures were drawn last, and the samples there were then."""

    _order_key: tuple[int, Filter] | None = None
    _longest: tuple[Sequence[RowKey], int] = ((), 0)
    """The order, and the cells of the longest name in it."""

    def heading(self) -> tuple[str, str]:
        state, chosen = self.session.state, self.session.filter("fleet")
        shown = f"{len(self.order)}"
        if state is not None and chosen:
            shown = f"{len(self.order)} of {len(state.agents)}  /{chosen.source}"
        return f"Agents {shown}", "trouble first"

    def empty(self) -> str:
        if self.session.state is None:
            return f"{self.session.phase} …"
        if chosen := self.session.filter("fleet"):
            return f"no agent matches /{chosen.source}\nesc clears the filter"
        return "no agent is loaded\nstart the console with files or folders of agent specs: toka-console PATH…"

    def prefers_top(self) -> bool:
        state, row = self.session.state, self.cursor
        entry = None if state is None or row is None or row.agent is None else state.agents.get(row.agent)
        return entry is not None and selectors.rank(entry.view) >= selectors.WAITING

    def visible_columns(self) -> Sequence[Column]:
        columns = COLUMNS if self.size.width >= 80 else _NARROW
        state = self.session.state
        if self._longest[0] is not self.order:
            self._longest = (self.order, max((len(key.name) for key in self.order if key.kind == "agent"), default=0))
        agent, shown, *others = columns
        agent = agent._replace(ideal=max(14, min(36, self._longest[1] + 2)))
        if state is not None and state.asking:
            shown = shown._replace(ideal=ASKING_WIDTH)
        columns = (agent, shown, *others)
        return (HOST, *columns) if state is not None and len(state.hosts) > 1 else columns

    def rows(self) -> Sequence[RowKey]:
        state = self.session.state
        if state is None:
            return ()
        order_key = (state.order_version, self.session.filter("fleet"))
        if self._order_key == order_key:
            return self.order
        self._order_key = order_key
        rows = fleet_list.rows(state, self.session.now(), self.session.filter("fleet"))
        return self.order if rows == self.order else rows

    def invalidate(self) -> None:
        super().invalidate()
        self._order_key = None
        self._shown.clear()

    def version(self, key: RowKey) -> Hashable:
        state, now = self.session.known, self.session.now()
        if key.agent is None:
            return state.order_version
        entry = state.agents[key.agent]
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
        entry = state.agents[key.agent]
        pending = state.pending_of(key.agent)
        for column, width in layout:
            self._cell(entry, pending, column.id, row, width)
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

    def _cell(self, entry: AgentEntry, pending: Pending | None, column: str, row: Row, width: int) -> None:
        palette, view, now = self.palette, entry.view, self.session.now()
        match column:
            case "host":
                row.add(view.host, palette.muted, width)
            case "agent":
                badge = selectors.badge(view)
                style = palette.role(badge.role)
                name = palette.muted if badge.role == "muted" else style if badge.role == "bad" else palette.base
                row.add(badge.glyph, style, 2).add(view.name, name, width - 2)
            case "state":
                self._state(entry, pending, row, width)
            case "task":
                self._progress(entry, row, width)
            case "action":
                style = palette.muted if view.state not in LIVE else palette.base
                text = selectors.last_action(view, now)
                if width_of(text) > width:
                    text = selectors.quota_wait(view, now) or text
                row.add(text, palette.bad if text.startswith("denied: ") else style, width)
            case "cpu":
                limit = view.spec.security.limits.cpu_fraction
                self._gauge(entry, row, width, view.usage.cpu_fraction, limit, entry.cpu, units.percent)
            case "memory":
                limit = view.spec.security.limits.memory_bytes
                self._gauge(entry, row, width, view.usage.memory_bytes, limit, entry.memory, units.size)
            case "tokens":
                total = view.tokens.total_tokens
                mark = "~" if view.tokens.estimated else ""
                row.add(f"{mark}{units.count(total)}" if total else "·", palette.muted, width, right=True)
            case "cost":
                text = units.money(view.cost_usd) if view.cost_usd else "?" if view.unpriced_calls else "·"
                row.add(text, palette.muted, width, right=True)
            case "denials":
                denied = units.count(view.denials) if view.denials else "·"
                row.add(denied, palette.bad if view.denials else palette.faint, width, right=True)
            case _:
                row.add(selectors.running_for(view, now) or "·", palette.muted, width, right=True)

    def _state(self, entry: AgentEntry, pending: Pending | None, row: Row, width: int) -> None:
        palette, view, now = self.palette, entry.view, self.session.now()
        badge, since = selectors.badge(view), units.age(view.since, now)
        if pending is not None:
            waited = units.age(pending.sent_at, now)
            row.add(f"⋯ {pending.unknown or pending.text} {waited}", palette.warn, width)
            return
        state = self.session.state
        if state is not None and not state.is_up(view.host):
            last = state.hosts[view.host].last_event_at
            row.add(f"{badge.word}? last seen {units.age(last, now)}", palette.muted, width)
            return
        if badge is glyphs.ASKING:
            self._asking(view, row, width)
            return
        why = selectors.why(view)
        used = width_of(badge.word)
        row.add(badge.word, palette.role(badge.role), min(width, used))
        rest = width - used
        if rest < width_of(since) + 1:
            row.gap(rest)
            return
        row.add(f" {since}", palette.muted)
        rest -= width_of(since) + 1
        colour = palette.bad if view.state is AgentState.FAILED or view.survivors else palette.muted
        row.add(f" {why}" if why and rest > 4 else "", colour, rest)

    def _asking(self, view: AgentView, row: Row, width: int) -> None:
        """`PENDING approval 4:32`; where there is no room the countdown is what stays."""
        left = approvals.soonest(view.approvals, self.session.now())
        forms = (f"{glyphs.ASKING.word} {left}", f"approval {left}", f"asks {left}")
        row.add(next((form for form in forms if width_of(form) <= width), left), self.palette.warn, width)

    def _progress(self, entry: AgentEntry, row: Row, width: int) -> None:
        palette, view = self.palette, entry.view
        at, total = selectors.progress(view)
        text = f"{at}/{total}" if total else "·"
        style = palette.base if view.state in LIVE else palette.muted
        row.add(text, style, min(width, 5))
        if width < 9:
            row.gap(width - min(width, 5))
            return
        bar = width - 5
        done = view.tasks_done / total if total else 0.0
        filled, rest = meters.bar(done, bar)
        colour = palette.good if view.tasks_verified == total and total else palette.done
        row.add(filled, colour).add(rest, palette.faint)

    def _gauge(
        self, entry: AgentEntry, row: Row, width: int, value: float, limit: float | None, history: Sequence[float],
        show: Callable[[float], str],
    ) -> None:  # fmt: skip
        """`▁▃▂ 23%/75%`: history, value and limit as far as there is room."""
        palette = self.palette
        alive = entry.view.state in LIVE
        style: Style = palette.meter(value / limit) if alive and limit else palette.base if alive else palette.faint
        text = show(value) if alive else "·"
        if alive and limit and width >= len(text) + len(show(limit)) + 1:
            text += f"/{show(limit)}"
        drawn = width - 10
        if alive and drawn >= 4:
            ceiling = limit or max(history, default=0.0) or 1.0
            row.add(meters.spark(history, ceiling, drawn), style, drawn)
            width -= drawn
        row.add(text, style, width, right=True)
