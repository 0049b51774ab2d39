"""What stands in a box of the graph, and the characters of its frame and of the lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from textual.strip import Strip

from toka_console import selectors
from toka_console.format.cells import Row, width_of
from toka_console.format.glyphs import ASKING

if TYPE_CHECKING:
    from rich.style import Style

    from toka_console.entries import AgentEntry
    from toka_console.session import Session
    from toka_runtime.protocol.ids import AgentName

# By the sum of directions: up 1, down 2, left 4, right 8.
LIGHT = " │││─┘┐┤─└┌├─┴┬┼"
HEAVY = " ┃┃┃━┛┓┫━┗┏┣━┻┳╋"
DOUBLE = " ║║║═╝╗╣═╚╔╠═╩╦╬"
DASHED = " ╎╎╎╌┘┐┤╌└┌├╌┴┬┼"
FRAMES = {"light": "┌─┐│└┘", "double": "╔═╗║╚╝", "dashed": "┌╌┐╎└┘", "heavy": "┏━┓┃┗┛"}
_STATE = 9
"""Cells of the longest word of a state."""


class Face(NamedTuple):
    """How a box looks."""

    frame: str
    edge: Style
    lines: tuple[Strip, ...]


def face(entry: AgentEntry, session: Session, width: int, rows: int, *, critical: bool, chosen: bool) -> Face:
    """`rows` of text, `width` cells each, and the frame around them."""
    palette, view, state = session.palette, entry.view, session.known
    badge = selectors.badge(view)
    style = palette.role(badge.role)
    pending = state.pending_of(entry.key)
    word, colour = ("APPROVAL" if badge is ASKING else badge.word), style
    if pending is not None:
        word, colour = f"⋯ {pending.unknown or pending.text}", palette.warn
    elif not state.is_up(view.host):
        word, colour = f"{badge.word}?", palette.muted
    at, total = selectors.progress(view)
    progress = f"{at}/{total}" if total else ""
    if rows == 1:
        row = Row(width, palette.base).gap().add(badge.glyph, style, 2)
        row.add(view.name, palette.strong if chosen else palette.base, max(0, width - _STATE - 10)).gap()
        row.add(word, colour, _STATE).add(progress, palette.muted, 5, right=True)
        strips = [row.strip()]
    else:
        first = Row(width, palette.base).gap().add(badge.glyph, style, 2)
        first.add(view.name, palette.strong if chosen else palette.base)
        second = Row(width, palette.base).gap(3).add(word, colour).gap().add(progress, palette.muted)
        why = selectors.why(view)
        if second.room > 8 and why:
            second.gap().add(why, palette.muted)
        strips = [first.strip(), second.strip()]
    return Face("double" if critical else "light", style, tuple(strips))


def absent(name: AgentName, session: Session, width: int, rows: int) -> Face:
    """The box of an agent that specs name and nobody loaded."""
    palette = session.palette
    row = Row(width, palette.base).gap().add("? ", palette.warn).add(name, palette.muted)
    said = "not loaded"
    if rows == 1 and row.room > width_of(said):
        row.gap(row.room - width_of(said) - 1).add(said, palette.warn)
    lines = [row.strip(), Row(width, palette.base).gap(3).add(said, palette.warn).strip()]
    return Face("dashed", palette.muted, tuple(lines[:rows]))
