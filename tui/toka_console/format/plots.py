"""One figure over time: its title, a braille area against its limit, the limit as a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.strip import Strip

from toka_console import metrics
from toka_console.format import meters, units
from toka_console.format.cells import Row

if TYPE_CHECKING:
    from toka_console.history import Span
    from toka_console.metrics import Metric
    from toka_console.themes import Palette

AXIS = 8
"""Cells at the left, for the figures of the axis."""
LEAST = 3
"""Rows of the smallest plot, with its title."""
_HEADROOM = 1.08


def plot(
    metric: Metric, found: list[Span], now: float, window_s: float, width: int, height: int, palette: Palette
) -> list[Strip]:  # fmt: skip
    """`height` rows: a title, then the plot. Where nothing is known, it is empty."""
    drawn = metrics.values(found, metric.figure, now, window_s, 2 * max(1, width - AXIS - 1))
    known = [value for value in drawn if value is not None]
    limit, peak = metric.limit, max(known, default=0.0)
    top = max(limit or 0.0, peak) * _HEADROOM or 1.0
    lines = [_title(metric, metrics.newest(drawn), peak if known else None, width, palette)]
    rows = height - 1
    line = rows - 1 - meters.level(limit, top, rows * 4 - 1) // 4 if limit else -1
    for number, text in enumerate(meters.area(drawn, top, (len(drawn) + 1) // 2, rows)):
        row = Row(width, palette.base)
        label = (
            metric.show(limit) if number == line and limit else metric.show(top) if number == 0 and not limit else ""
        )
        label = "0" if number == rows - 1 and number != line else label
        row.add(label, palette.muted, AXIS - 1, right=True).gap()
        style = palette.bad if number < line else palette.info
        if number != line:
            row.add(text, style)
        else:
            # The line of the limit shows wherever nothing is drawn over it.
            for over, cells in _runs(text):
                row.add(cells if over else "╌" * len(cells), style if over else palette.warn)
        lines.append(row.strip())
    return lines


def _title(metric: Metric, now: float | None, peak: float | None, width: int, palette: Palette) -> Strip:
    row = Row(width, palette.base).gap().add(metric.title, palette.heading).gap()
    over = now is not None and metric.limit and now / metric.limit
    row.add(metric.show(now) if now is not None else units.UNKNOWN, palette.meter(over) if over else palette.strong)
    if metric.limit:
        row.add(f" of {metric.show(metric.limit)}", palette.muted)
    if peak is not None:
        row.add(f"  peak {metric.show(peak)}", palette.muted)
    return row.strip()


def _runs(text: str) -> list[tuple[bool, str]]:
    """Stretches of cells with and without something drawn in them."""
    found: list[tuple[bool, str]] = []
    for cell in text:
        over = cell != " "
        if found and found[-1][0] is over:
            found[-1] = (over, found[-1][1] + cell)
        else:
            found.append((over, cell))
    return found


def time_axis(window: str, width: int, palette: Palette) -> Strip:
    """`-15m ──────── now` below the plots."""
    row = Row(width, palette.base).gap(AXIS).add(f"-{window} ", palette.muted)
    return row.fill("─", palette.faint, leave=5).add(" now ", palette.muted).strip()
