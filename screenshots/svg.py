"""A screen of cells as SVG in which each word has its own place, so that neither converter nor font spoils the grid."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from rich.cells import get_character_cell_size
from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from rich.terminal_theme import DIMMED_MONOKAI

CELL_W, CELL_H, BASELINE = 8.43, 16.4, 13.0
FONT = "'DejaVu Sans Mono', 'Cascadia Mono', Menlo, Consolas, monospace"


# Converters ignore lists of places, and fallback fonts have other widths: a word of ASCII, or one other character.
_RUNS = re.compile(r"[!-~]+|[^\x00-\x7f]")


def _hex(color: Color | None, fallback: str, foreground: bool) -> str:
    if color is None or color.is_default:
        return fallback
    red, green, blue = color.get_truecolor(DIMMED_MONOKAI, foreground=foreground)
    return f"#{red:02x}{green:02x}{blue:02x}"


def render(lines: Sequence[Sequence[Segment]], width: int, ground: str = "#11151c", text: str = "#ccd0da") -> str:
    """SVG of rows of segments, `width` cells wide."""
    height = len(lines)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * CELL_W:.1f} {height * CELL_H:.1f}" '
        f'width="{width * CELL_W:.0f}" height="{height * CELL_H:.0f}" font-family="{FONT}" font-size="14px">',
        f'<rect width="100%" height="100%" fill="{ground}"/>',
    ]
    for y, line in enumerate(lines):
        x = 0
        texts: list[str] = []
        for segment in line:
            style = segment.style if isinstance(segment.style, Style) else Style()
            fore, back = _hex(style.color, text, True), _hex(style.bgcolor, ground, False)
            if style.reverse:
                fore, back = back, fore
            if style.dim:
                fore = _mix(fore, back)
            sizes = [get_character_cell_size(character) for character in segment.text]
            cells = sum(sizes)
            if back != ground:
                out.append(
                    f'<rect x="{x * CELL_W:.1f}" y="{y * CELL_H:.1f}" width="{cells * CELL_W + 0.3:.1f}" '
                    f'height="{CELL_H + 0.3:.1f}" fill="{back}"/>'
                )
            weight = ' font-weight="bold"' if style.bold else ""
            slant = ' font-style="italic"' if style.italic else ""
            for run in _RUNS.finditer(segment.text):
                start = x + sum(sizes[: run.start()])
                texts.append(
                    f'<text x="{start * CELL_W:.1f}" y="{y * CELL_H + BASELINE:.1f}" fill="{fore}"{weight}{slant}>'
                    f"{escape(run[0])}</text>"
                )
            x += cells
        out += texts
    out.append("</svg>")
    return "\n".join(out) + "\n"


def _mix(fore: str, back: str) -> str:
    pairs = [(int(fore[i : i + 2], 16), int(back[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{(a * 6 + b * 4) // 10:02x}" for a, b in pairs)
