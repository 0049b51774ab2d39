"""The list of refused operations, newest first, equal ones folded."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

from toka_console import selectors
from toka_console.format import units
from toka_console.format.cells import Row
from toka_console.identity import DenialKey
from toka_console.panes.columns import Column
from toka_console.panes.ordering import Value
from toka_console.panes.table import TablePane

if TYPE_CHECKING:
    from toka_console.entries import DenialEntry
    from toka_console.filters import Filter

    Compared = Callable[[DenialEntry], Value]

_COLUMNS = (
    Column("time", "TIME", 8, 8, rank=5),
    Column("agent", "AGENT", 12, 24, 32, rank=2),
    Column("operation", "OPERATION", 9, 15, rank=3),
    Column("target", "TARGET", 12, 20, 44, weight=4, rank=0),
    Column("capability", "NEEDS", 10, 16, 22, weight=1, rank=7),
    Column("layer", "LAYER", 7, 8, rank=0),
    Column("rule", "RULE", 10, 17, 32, weight=2, rank=4),
    Column("count", "N", 4, 5, rank=1, right=True),
)
_COMPARED: Mapping[str, Compared] = {
    "time": lambda entry: entry.at.timestamp(),
    "agent": lambda entry: entry.key.name,
    "operation": lambda entry: entry.denial.operation.kind.value,
    "target": lambda entry: entry.denial.operation.target,
    "capability": lambda entry: entry.denial.capability,
    "layer": lambda entry: entry.denial.layer.value,
    "rule": lambda entry: entry.denial.rule,
    "count": lambda entry: entry.count,
}


class DenialsTable(TablePane[DenialKey]):
    columns = _COLUMNS
    _known: tuple[int, Filter] | None = None
    _rows: dict[DenialKey, DenialEntry]

    def heading(self) -> tuple[str, str]:
        state, chosen = self.session.state, self.session.filter("denials")
        total = state.denied if state is not None else 0
        return f"Denials {total:,}" + (f"  /{chosen.source}" if chosen else ""), self.order_note(
            "newest first, equal ones folded"
        )

    def empty(self) -> str:
        if chosen := self.session.filter("denials"):
            return f"no denial matches /{chosen.source}\nesc clears the filter"
        return "nothing was refused"

    def rows(self) -> Sequence[DenialKey]:
        state = self.session.state
        if state is None:
            return ()
        known = (state.denials_version, self.session.filter("denials"))
        if known == self._known:
            return self.order
        self._known = known
        rows = selectors.denial_rows(state, self.session.filter("denials"))
        self._rows = {DenialKey(row.serial): row for row in rows}
        return list(self._rows)

    def sort_keys(self) -> Mapping[str, Callable[[DenialKey], Value]]:
        return {column: self._comparing(compared) for column, compared in _COMPARED.items()}

    def _comparing(self, compared: Compared) -> Callable[[DenialKey], Value]:
        return lambda key: compared(self._rows[key])

    def invalidate(self) -> None:
        super().invalidate()
        self._known = None

    def selected(self) -> DenialEntry | None:
        return self._rows.get(self.cursor) if self.cursor is not None and self.order else None

    def version(self, key: DenialKey) -> Hashable:
        return self._rows[key].version

    def cells(self, key: DenialKey, row: Row, layout: list[tuple[Column, int]]) -> None:
        palette, entry = self.palette, self._rows[key]
        denial = entry.denial
        texts = {
            "time": (units.clock_time(entry.at), palette.muted),
            "agent": (entry.key.name, palette.base),
            "operation": (denial.operation.kind.value, palette.accent),
            "target": (denial.operation.target, palette.strong),
            "capability": (
                denial.capability or "nothing allows it",
                palette.warn if denial.capability else palette.muted,
            ),
            "layer": (denial.layer.value, palette.bad),
            "rule": (denial.rule, palette.muted),
            "count": (f"×{units.count(entry.count)}", palette.warn if entry.count > 1 else palette.faint),
        }
        for column, width in layout:
            text, style = texts[column.id]
            row.add(text, style, width, right=column.right).gap()
