"""Hosts and agents with what they use, each figure with its last two minutes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

from toka_console import fleet_list, metrics
from toka_console.format import meters
from toka_console.format.cells import Row, width_of
from toka_console.history import GAUGES, Figure
from toka_console.identity import AgentKey
from toka_console.metrics import HostRow, Metric, Subject
from toka_console.panes.columns import Column
from toka_console.panes.fleet_cells import FleetCells
from toka_console.panes.ordering import Value, rest_s
from toka_console.panes.table import TablePane
from toka_runtime.protocol.states import LIVE

if TYPE_CHECKING:
    from toka_console.entries import AgentEntry, HostEntry
    from toka_console.history import Span
    from toka_console.session import Session

SAMPLE_S = 1.0
"""Between two drawings of a row's figures."""
_FIGURES = {
    "cpu": Figure.CPU, "memory": Figure.MEMORY, "procs": Figure.PROCESSES, "io": Figure.IO, "tokens": Figure.TOKENS,
    "cost": Figure.COST,
}  # fmt: skip
COLUMNS = (
    Column("agent", "NAME", 14, 24, 32, rank=0),
    Column("state", "STATE", 9, 10, rank=3),
    Column("cpu", "CPU", 8, 16, 24, weight=1, rank=1, right=True),
    Column("memory", "MEM", 9, 16, 24, weight=1, rank=2, right=True),
    Column("procs", "PROCS", 5, 5, 16, rank=5, right=True),
    Column("io", "I/O", 7, 7, 16, rank=8, right=True),
    Column("tokens", "TOKENS", 7, 7, 16, rank=6, right=True),
    Column("cost", "COST", 8, 8, 16, rank=7, right=True),
)
_HOST = Column("host", "HOST", 6, 12, rank=4)


class ResourcesTable(TablePane[Subject]):
    def __init__(self, session: Session, *, id: str | None = None) -> None:
        super().__init__(session, id=id)
        self._known: Hashable = None
        self._taken = float("-inf")
        self._cells = FleetCells(session)

    def heading(self) -> tuple[str, str]:
        chosen = self.session.filter("resources")
        return f"Resources {len(self.order)}" + (f"  /{chosen.source}" if chosen else ""), "bars against limits"

    def empty(self) -> str:
        if self.session.state is None:
            return f"{self.session.phase} …"
        if chosen := self.session.filter("resources"):
            return f"no agent matches /{chosen.source}\nesc clears the filter"
        return "no agent is loaded"

    def visible_columns(self) -> Sequence[Column]:
        state = self.session.state
        return (_HOST, *COLUMNS) if state is not None and len(state.hosts) > 1 else COLUMNS

    def rows(self) -> Sequence[Subject]:
        """Hosts, then agents in the order of the Fleet."""
        state = self.session.state
        if state is None:
            return ()
        chosen, now = self.session.filter("resources"), self.session.clock.monotonic()
        known = (state.order_version, len(state.hosts), chosen)
        # What a filter compares with figures changes with them.
        if known == self._known and not (chosen and now - self._taken >= max(SAMPLE_S, rest_s(len(state.agents)))):
            return self._base
        self._known, self._taken = known, now
        found: list[Subject] = [] if chosen else [HostRow(host) for host in state.hosts]
        rows = fleet_list.rows(state, self.session.now(), chosen)
        found += [row.agent for row in rows if row.agent is not None]
        return self._base if found == self._base else found

    def sort_keys(self) -> Mapping[str, Callable[[Subject], Value]]:
        def of(look: Callable[[AgentEntry], Value]) -> Callable[[Subject], Value]:
            agents = self.session.known.agents
            return lambda key: look(agents[key]) if isinstance(key, AgentKey) and key in agents else None

        def used(look: Callable[[AgentEntry], Value]) -> Callable[[Subject], Value]:
            return of(lambda entry: look(entry) if entry.view.state in LIVE else None)

        return {
            "agent": of(lambda entry: entry.key.name),
            "state": of(lambda entry: entry.view.state.value),
            "cpu": used(lambda entry: entry.view.usage.cpu_fraction),
            "memory": used(lambda entry: entry.view.usage.memory_bytes),
            "procs": used(lambda entry: entry.view.usage.processes),
            "io": used(lambda entry: entry.view.usage.read_bytes + entry.view.usage.written_bytes),
            "tokens": of(lambda entry: entry.view.tokens.total_tokens),
            "cost": of(lambda entry: entry.view.cost_usd),
        }

    def invalidate(self) -> None:
        super().invalidate()
        self._known = None

    def version(self, key: Subject) -> Hashable:
        state = self.session.known
        entry = metrics.entry_of(state, key)
        pending = state.pending_of(key) if isinstance(key, AgentKey) else None
        alive = entry is not None and entry.samples > 0
        second = int(self.session.clock.monotonic() / SAMPLE_S) if alive else 0
        return getattr(entry, "version", 0), second, pending and pending.text, state.is_up(key.host)

    def cells(self, key: Subject, row: Row, layout: list[tuple[Column, int]]) -> None:
        state = self.session.known
        entry = metrics.entry_of(state, key)
        if entry is None:
            return
        found = entry.history.spans() if entry.samples else []
        wanted = {metric.figure: metric for metric in metrics.metrics(state, key)}
        now = metrics.time_of(state, key, self.session.now())
        for column, width in layout:
            figure = _FIGURES.get(column.id)
            if figure is None:
                self._word(key, entry, column.id, row, width)
            elif (metric := wanted.get(figure)) is None:
                row.add("·", self.palette.faint, width, right=True)
            else:
                self._figure(metric, found, now, row, width, bar=column.id in ("cpu", "memory"))
            row.gap()

    def _word(self, key: Subject, entry: AgentEntry | HostEntry, column: str, row: Row, width: int) -> None:
        palette, state = self.palette, self.session.known
        if isinstance(key, AgentKey):
            agent = state.agents[key]
            self._cells.add(agent, state.pending_of(key), column, row, width, why_apart=True)
        elif column == "agent":
            row.add("▣ ", palette.info, 2).add(key.host, palette.strong, width - 2)
        elif column == "state":
            up = state.is_up(key.host)
            row.add(state.hosts[key.host].link.state.value, palette.good if up else palette.bad, width)
        else:
            row.add(key.host, palette.muted, width)

    def _figure(
        self, metric: Metric, found: list[Span], now: float, row: Row, width: int, *, bar: bool
    ) -> None:  # fmt: skip
        """`▁▃▂ 23%/75%`: two minutes against the limit, the value now, the limit as far as there is room."""
        palette = self.palette
        wide = width - (10 if bar else 8)
        drawn = metrics.values(found, metric.figure, now, metrics.WINDOWS["2m"], max(wide, 24))
        value = metrics.newest(drawn)
        if value is None or (not value and metric.figure not in GAUGES):
            row.add("·", palette.faint, width, right=True)
            return
        text = metric.show(value)
        style = palette.meter(value / metric.limit) if metric.limit else palette.base
        if wide >= 4:
            top = metric.limit or max((seen for seen in drawn if seen is not None), default=0.0) or 1.0
            row.add(meters.spark(drawn, top, wide), style, wide)
            width -= wide
        if metric.limit and bar and width_of(whole := f"{text}/{metric.show(metric.limit)}") <= width:
            text = whole
        row.add(text, style, width, right=True)
