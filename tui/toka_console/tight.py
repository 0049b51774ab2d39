"""Partial updates of the screen that write the changed cells and nothing beside them.

Textual writes each changed line from the left edge of the pane to the end of the change, so a figure at the right of
a wide table costs its whole row. Over SSH that is most of the traffic.
"""

from __future__ import annotations

from rich.console import Console
from rich.control import Control
from textual._compositor import ChopsUpdate, CompositorUpdate


class TightUpdate(CompositorUpdate):
    def __init__(self, update: ChopsUpdate) -> None:
        self._update = update

    def render_segments(self, console: Console) -> str:
        """The escape sequences for the terminal."""
        update, parts = self._update, list[str]()
        for y, start, end in update.spans:
            for right, (left, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
                if strip is None or left >= end or right <= start:
                    continue
                first, last = max(left, start), min(right, end)
                part = strip if (first, last) == (left, right) else strip.crop(first - left, last - left)
                parts += (Control.move_to(first, y).segment.text, part.render(console))
        return "".join(parts)
