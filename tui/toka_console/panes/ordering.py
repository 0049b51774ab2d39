"""When the rows of a table take another order. Pure.

Figures change several times a second; rows that jump as fast cannot be read. They are sorted anew once a second, many
rows less often, and none moves while the operator moves the cursor among them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)
Value = str | float | None
"""What rows are compared by, of one kind in a column; None: not known, which comes last in either direction."""
HOLD_S = 1.0
"""How long rows stay where they are after the cursor was moved."""
RESORT_S = 1.0
"""Between two orders by a figure that changes."""
FEW = 500
"""So many rows may be ordered at any time."""
ROWS_PER_S = 10_000
"""More than a few are ordered so many a second."""


class Sort(NamedTuple):
    column: str
    descending: bool


def rest_s(rows: int) -> float:
    """How long so many rows keep their order at least."""
    return 0.0 if rows <= FEW else rows / ROWS_PER_S


def in_order(rows: Sequence[K], value: Callable[[K], Value], *, descending: bool) -> list[K]:
    """Rows by their value. Equal ones stay as they were, those without a value come last."""
    known: list[tuple[str | float, K]] = []
    unknown: list[K] = []
    for row in rows:
        found = value(row)
        if found is None:
            unknown.append(row)
        else:
            known.append((found, row))
    known.sort(key=lambda pair: pair[0], reverse=descending)  # type: ignore[arg-type, return-value] # of one kind in a column
    return [row for _, row in known] + unknown


class Ordering(Generic[K]):
    """The order that is shown, between the order that would be right and the peace that reading needs."""

    def __init__(self) -> None:
        self._shown: Sequence[K] | None = None
        self._base: Sequence[K] = ()
        self._sort: Sort | None = None
        self._at = 0.0

    def forget(self) -> None:
        """Something that the operator asked for changes the rows: take their order at once."""
        self._shown = None

    def arrange(
        self, base: Sequence[K], sort: Sort | None, value: Callable[[K], Value] | None, now: float, *, held: bool
    ) -> Sequence[K]:
        """`base`, sorted by `value`; the same object as before while the order is the same. `now`: monotonic seconds;
        `held`: no row may move, only come and go."""
        if value is None:
            sort = None
        shown, changed = self._shown, base is not self._base
        if shown is None or sort != self._sort:
            return self._take(base, sort, value, now)
        rest = 0.0 if sort is None else rest_s(len(base)) if changed else max(RESORT_S, rest_s(len(base)))
        if held or now - self._at < rest:
            if changed:
                shown = _merged(shown, base)
                self._base, self._shown = base, shown
            return shown
        return shown if sort is None and shown is base else self._take(base, sort, value, now)

    def _take(
        self, base: Sequence[K], sort: Sort | None, value: Callable[[K], Value] | None, now: float
    ) -> Sequence[K]:
        before = self._shown
        order = base if sort is None or value is None else in_order(base, value, descending=sort.descending)
        self._base, self._sort, self._at = base, sort, now
        self._shown = before if sort is not None and before is not None and list(before) == order else order
        return self._shown


def _merged(shown: Sequence[K], base: Sequence[K]) -> list[K]:
    """The rows of `base`: those that were shown as they were, new ones below."""
    there, old = set(base), set(shown)
    return [row for row in shown if row in there] + [row for row in base if row not in old]
