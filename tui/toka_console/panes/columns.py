"""Which columns a table shows at a width, and how wide each is. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Column(NamedTuple):
    id: str
    title: str
    least: int
    ideal: int
    roomy: int = 0
    """Width it takes when all have their ideal one; 0: no more than that."""
    weight: int = 0
    """Share of what is left then."""
    rank: int = 0
    """The highest goes first when there is no room."""
    right: bool = False


def fit_columns(columns: Sequence[Column], width: int) -> list[tuple[Column, int]]:
    """Columns in their order, each with its width; one cell between two. Together never wider than `width`."""
    chosen = list(columns)
    while len(chosen) > 1 and sum(column.least for column in chosen) + len(chosen) - 1 > width:
        chosen.remove(max(reversed(chosen), key=lambda column: column.rank))
    widths = {column.id: column.least for column in chosen}
    free = width - sum(widths.values()) - (len(chosen) - 1)
    if free < 0 and chosen:
        widths[chosen[0].id] += free
        free = 0
    # First the ideal widths, the important columns before the others; then the roomy ones; then the rest by weight.
    ordered = sorted(chosen, key=lambda column: column.rank)
    for wanted in ([column.ideal for column in ordered], [column.roomy for column in ordered]):
        for column, width_wanted in zip(ordered, wanted, strict=True):
            more = min(free, max(0, width_wanted - widths[column.id]))
            widths[column.id] += more
            free -= more
    total = sum(column.weight for column in chosen)
    if total and free > 0:
        shares = [(column, free * column.weight // total) for column in chosen if column.weight]
        for column, share in shares:
            widths[column.id] += share
        widths[shares[-1][0].id] += free - sum(share for _, share in shares)
    return [(column, widths[column.id]) for column in chosen]
