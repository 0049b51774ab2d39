"""One refused operation in full: what was asked, who refused and why, and the tool call it came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from textual.strip import Strip

from toka_console.format import units
from toka_console.format.agent_sections import fact, heading
from toka_console.format.cells import Row, wrap
from toka_console.format.output_rows import entry_rows
from toka_console.ring import Tool

if TYPE_CHECKING:
    from toka_console.entries import DenialEntry
    from toka_console.session import Session


def facts(entry: DenialEntry, session: Session, width: int) -> list[Strip]:
    """The denial itself."""
    palette, denial = session.palette, entry.denial
    operation = denial.operation
    head = Row(width, palette.base).gap().add(f"⊘ {operation.kind.value} ", palette.bad)
    lines = [head.add(operation.target, palette.strong).strip()]
    lines += fact("refused by", f"{denial.layer.value}  rule {denial.rule}", session, width, palette.bad)
    lines += fact("because", denial.reason, session, width)
    if denial.hint:
        lines += fact("hint", denial.hint, session, width, palette.info)
    needs = denial.capability or "no capability would allow it"
    lines += fact("needs", needs, session, width, palette.warn)
    task = f"  task {entry.task + 1}" if entry.task >= 0 else ""
    lines += fact("agent", f"{entry.key.name} on {entry.key.host}  run {entry.run or 'none'}{task}", session, width)
    if operation.tool or operation.call:
        lines += fact("call", f"{operation.tool}  {operation.call}".strip(), session, width)
    times = f"×{entry.count}  first {units.clock_time(entry.first_at)}  last {units.clock_time(entry.at)}"
    lines += fact("times", times, session, width)
    if operation.argv:
        lines += fact("argv", json.dumps(list(operation.argv), ensure_ascii=False), session, width)
    return lines


def page(entry: DenialEntry, call: Tool | None, looking: bool, session: Session, width: int) -> list[Strip]:
    """The denial, then the exact call with all its arguments."""
    palette = session.palette
    lines = [*facts(entry, session, width), heading("THE CALL", session, width)]
    if call is None:
        text = "reading the log …" if looking else "the call is not in the runtime's log"
        return [*lines, Row(width, palette.base).gap().add(text, palette.muted).strip()]
    lines += entry_rows(call, width, palette)[:1]
    lines += fact("asked", units.clock_time(call.at), session, width)
    lines += arguments(call.arguments, session, width)
    if call.summary:
        lines.append(heading("ANSWER", session, width))
        for line in call.summary.split("\n"):
            lines += [Row(width, palette.base).gap().add(piece).strip() for piece in wrap(line, width - 2)]
    return lines


def arguments(values: Mapping[str, Any], session: Session, width: int) -> list[Strip]:
    """All arguments of a call, each whole below its name."""
    palette = session.palette
    lines: list[Strip] = []
    for name, value in values.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        lines.append(Row(width, palette.base).gap().add(f"{name}:", palette.muted).strip())
        for line in text.split("\n"):
            lines += [Row(width, palette.base).gap(3).add(piece).strip() for piece in wrap(line, width - 5)]
    return lines
