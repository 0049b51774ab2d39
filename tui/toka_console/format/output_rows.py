"""How an entry of the output window looks, as rows of a width. Pure but for the palette."""

from __future__ import annotations

import json
import re
from typing import Any, cast

from rich.style import Style
from textual.strip import Strip

from toka_console.format import glyphs, units
from toka_console.format.cells import Row, width_of, wrap
from toka_console.ring import Entry, Mark, Text, Tool
from toka_console.themes import Palette

_SHOWN_ARGUMENTS = 8
_SHOWN_SUMMARY = 8
_HEADING = re.compile(r"#{1,6} ")
_GUTTER = {"model": "  ", "thinking": "┆ ", "stdout": "│ ", "stderr": "┃ ", "runtime": "» "}


def entry_rows(entry: Entry, width: int, palette: Palette) -> list[Strip]:
    match entry:
        case Text():
            return _text(entry, width, palette)
        case Tool():
            return _tool(entry, width, palette)
        case Mark():
            return _mark(entry, width, palette)


def gap_row(lines: int, width: int, palette: Palette) -> Strip:
    text = f"⋯ {units.plural(lines, 'line')} not shown (the runtime's log has them)"
    return Row(width, palette.muted).gap().add(text).strip()


def _text(entry: Text, width: int, palette: Palette) -> list[Strip]:
    style, edge = {
        "model": (palette.base, palette.base),
        "thinking": (palette.muted + Style(italic=True), palette.faint),
        "stdout": (palette.base, palette.faint),
        "stderr": (palette.warn, palette.bad),
        "runtime": (palette.info, palette.info),
    }.get(entry.stream, (palette.base, palette.faint))
    gutter = _GUTTER.get(entry.stream, "  ")
    rows: list[Strip] = []
    lines = entry.text.removesuffix("\n").split("\n")
    for number, line in enumerate(lines):
        drawn = palette.strong if entry.stream == "model" and _HEADING.match(line) else style
        pieces = wrap(line, width - 3)
        for index, piece in enumerate(pieces):
            row = Row(width, palette.base).add(gutter, edge).add(piece, drawn)
            if entry.cut and number == len(lines) - 1 and index == len(pieces) - 1:
                note = f"… +{units.size(entry.cut)}"
                if row.room < width_of(note) + 1:
                    rows.append(row.strip())
                    row = Row(width, palette.base).add(gutter, edge)
                row.add(note, palette.warn)
            rows.append(row.strip())
    return rows


def _tool(entry: Tool, width: int, palette: Palette) -> list[Strip]:
    badge = glyphs.OUTCOME.get(entry.outcome, glyphs.OUTCOME["unknown"])
    style = palette.role(badge.role)
    note = f"{badge.glyph} {badge.word}"
    if entry.outcome:
        note += f" {units.elapsed(entry.duration_s)}"
    if entry.result_bytes:
        note += f" {units.size(entry.result_bytes)}"
    head = Row(width - width_of(note) - 2, palette.base).add(" ▸ ", style).add(entry.tool, palette.accent).gap()
    head.add(entry.target, palette.strong)
    rows = [Strip([*head.strip(), *Row(width_of(note) + 2, palette.base).gap().add(note, style).strip()], width)]
    body = [(line, palette.muted) for line in _arguments(entry.arguments, entry.target)]
    told = entry.streamed and entry.outcome == "ok"
    summary = entry.summary.strip("\n").split("\n") if entry.summary.strip() and not told else []
    body += [(line, palette.base) for line in summary[:_SHOWN_SUMMARY]]
    if len(summary) > _SHOWN_SUMMARY:
        body.append((f"⋯ {units.plural(len(summary) - _SHOWN_SUMMARY, 'line')} more", palette.muted))
    for line, drawn in body:
        rows += [
            Row(width, palette.base).gap(3).add("│ ", palette.faint).add(piece, drawn).strip()
            for piece in wrap(line, width - 6)[:3]
        ]
    return rows


def _arguments(arguments: dict[str, Any], target: str) -> list[str]:
    """One line an argument; those that the target repeats are left out."""
    lines: list[str] = []
    for name, value in arguments.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        words = cast(list[Any], value) if isinstance(value, list | tuple) else []
        if target in (text, " ".join(map(str, words))):
            continue
        first, *rest = text.split("\n")
        lines.append(f"{name}: {first}" + (f" ⋯ {units.plural(len(rest), 'line')} more" if rest else ""))
    if len(lines) > _SHOWN_ARGUMENTS:
        return [*lines[:_SHOWN_ARGUMENTS], f"⋯ {units.plural(len(lines) - _SHOWN_ARGUMENTS, 'argument')} more"]
    return lines


def _mark(entry: Mark, width: int, palette: Palette) -> list[Strip]:
    style = palette.role(entry.role)
    if entry.kind == "turn":
        return [
            Row(width, palette.base).gap().add(f"── {entry.text} ", palette.muted).fill("─", palette.faint, 1).strip()
        ]
    time = units.clock_time(entry.at)
    if entry.kind == "task":
        rows = wrap(entry.text, max(10, width - 16))[:3]
        first = Row(width, palette.base).add("━━ ", style).add(rows[0], style).gap()
        first.fill("━", palette.faint, leave=len(time) + 2).gap().add(time, palette.muted)
        return [first.strip(), *(Row(width, palette.base).gap(3).add(row, style).strip() for row in rows[1:])]
    rows = wrap(entry.text.replace("\n", " ⏎ "), max(10, width - 13))
    first = Row(width, palette.base).gap().add(rows[0], style)
    first.to(width - len(time) - 1).add(time, palette.faint)
    return [first.strip(), *(Row(width, palette.base).gap(3).add(row, style).strip() for row in rows[1:])]
