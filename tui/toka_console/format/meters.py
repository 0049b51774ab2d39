"""Bars, sparklines and braille graphs as plain strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

SPARKS = "▁▂▃▄▅▆▇█"
# Dots of a braille cell from the bottom up, left and right column.
_LEFT = (0x40, 0x04, 0x02, 0x01)
_RIGHT = (0x80, 0x20, 0x10, 0x08)


T = TypeVar("T")


def tail(values: Sequence[T], count: int) -> list[T]:
    """The last `count` values, oldest first (deques have no slices)."""
    # Reading a deque by index is quick near its ends only, which is where these are.
    return [values[index] for index in range(-min(count, len(values)), 0)]


def level(value: float, ceiling: float, steps: int) -> int:
    """`value` as a share of `ceiling`, in 0..`steps`; 0 for what is no figure."""
    if not value > 0 or not ceiling > 0:
        return 0
    return steps if value >= ceiling else round(value / ceiling * steps)


def spark(values: Sequence[float | None], ceiling: float, width: int) -> str:
    """The last `width` values against `ceiling`, padded on the left. None is a gap."""
    if width <= 0:
        return ""
    steps = len(SPARKS) - 1
    drawn = "".join(" " if value is None else SPARKS[level(value, ceiling, steps)] for value in tail(values, width))
    return drawn.rjust(width)


def bar(fraction: float, width: int) -> tuple[str, str]:
    """(filled, empty) parts of a meter, in half cells."""
    halves = level(fraction, 1.0, width * 2)
    filled = "━" * (halves // 2) + ("╸" if halves % 2 else "")
    return filled, "─" * (width - len(filled))


def area(values: Sequence[float | None], ceiling: float, width: int, height: int) -> list[str]:
    """A braille area graph, `height` rows of `width` cells (two samples a cell), newest at the right edge. None is a
    gap."""
    samples = tail(values, width * 2)
    samples = [0.0] * (width * 2 - len(samples)) + samples
    # The axis stays visible: a flat line says "nothing", an empty box says "no data".
    dots = [0 if value is None else max(1, level(value, ceiling, height * 4)) for value in samples]
    rows: list[str] = []
    for row in range(height - 1, -1, -1):
        floor = row * 4
        cells: list[str] = []
        for column in range(width):
            left = max(0, min(4, dots[column * 2] - floor))
            right = max(0, min(4, dots[column * 2 + 1] - floor))
            cells.append(chr(0x2800 + sum(_LEFT[:left]) + sum(_RIGHT[:right])))
        rows.append("".join(cells).replace("\u2800", " "))
    return rows
