"""A rejected spec file: each problem at its line, with its hint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.strip import Strip

from toka_console.format import glyphs
from toka_console.format.cells import Row, wrap

if TYPE_CHECKING:
    from toka_console.session import Session
    from toka_runtime.protocol.snapshot import RejectedSpec


def rejected(spec: RejectedSpec, session: Session, width: int) -> list[Strip]:
    palette = session.palette
    name = f"  {spec.name}" if spec.name else ""
    row = Row(width, palette.base).gap().add(f"{glyphs.REJECTED.glyph} {glyphs.REJECTED.word} ", palette.bad)
    lines = [row.add(f"{spec.file}{name}", palette.strong).strip()]
    for problem in spec.problems:
        where = f"{problem.line}:{problem.column}" if problem.line else "file"
        for number, piece in enumerate(wrap(f"{problem.message}  [{problem.code}]", width - 14)):
            row = Row(width, palette.base).gap(3).add(where if number == 0 else "", palette.warn, 9).gap()
            lines.append(row.add(piece).strip())
        if problem.hint:
            lines.append(Row(width, palette.base).gap(13).add(problem.hint, palette.info).strip())
    return [*lines, Row(width, palette.base).strip()]
