"""What became of a fleet, as lines for a terminal, a pipe or a log: a row an agent, and a sum."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from toka_runtime.cli.render import Style, clean, counted
from toka_runtime.protocol.snapshot import AgentView, FleetState
from toka_runtime.protocol.states import AgentState
from toka_runtime.protocol.usage import TokenUsage

_HEAD = ("agent", "state", "done", "verified", "denied", "tokens", "time")
_TEXT_COLUMNS = 2
_LEAST_NAME = 12
_CAUSES = 10
_ORDER = (AgentState.COMPLETED, AgentState.FAILED, AgentState.KILLED, AgentState.SKIPPED)
COLOURS = {
    AgentState.RUNNING: "cyan",
    AgentState.COMPLETED: "green",
    AgentState.FAILED: "red",
    AgentState.KILLED: "yellow",
    AgentState.SKIPPED: "yellow",
    AgentState.PENDING: "dim",
}


def clock_text(seconds: float) -> str:
    """`0:07`, `12:07`, `1:02:07`."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def took(view: AgentView, now: datetime | None) -> timedelta | None:
    """From the start of its last run to its end, or to `now`; None when it never ran."""
    end = view.ended_at or now
    return None if view.started_at is None or end is None else max(timedelta(), end - view.started_at)


def summary_lines(state: FleetState, style: Style, width: int = 0) -> list[str]:
    """A table, why agents have failed, and a sum; nothing for a fleet of which nothing was asked. With a `width`, names
    give way until a row of the table fits into it."""
    views = [view for view in state.agents.values() if view.requested]
    if not views:
        return []
    rows = [_HEAD, *(_row(view, state.at) for view in views)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if width and (over := sum(widths) + 2 * (len(widths) - 1) - width) > 0:
        widths[0] = max(_LEAST_NAME, widths[0] - over)
    lines = [style("bold", _aligned(_HEAD, widths))]
    for view, row in zip(views, rows[1:], strict=True):
        colour = COLOURS.get(view.state, "bold")
        lines.append(style(colour, _aligned(row, widths)))
    failed = [view for view in views if view.state is AgentState.FAILED]
    causes = [
        style("red", _cut(clean(f"{view.name}: {' '.join(view.detail.split())}"), width or 200)) for view in failed
    ]
    if len(causes) > _CAUSES:
        causes[_CAUSES:] = [f"… and {len(causes) - _CAUSES} more that failed"]
    return ["", *lines, *([""] if causes else []), *causes, "", style("bold", total(state))]


def total(state: FleetState) -> str:
    """`9 agents: 8 completed, 1 failed · 70 of 78 tasks done, 12 verified · 17 denials · 12,345 tokens, $0.42`."""
    views = [view for view in state.agents.values() if view.requested]
    ended = [(name, sum(view.state is name for view in views)) for name in _ORDER]
    going = len(views) - sum(count for _, count in ended)
    states = ", ".join(
        [f"{count} {name}" for name, count in ended if count] + ([f"{going} not ended"] if going else [])
    )
    tasks = sum(len(view.tasks) for view in views)
    done, verified = sum(view.tasks_done for view in views), sum(view.tasks_verified for view in views)
    tokens = sum((view.tokens for view in views), TokenUsage())
    cost = sum(view.cost_usd for view in views)
    unpriced = (
        ", some calls without a price" if any(view.unpriced_calls for view in views) and tokens.total_tokens else ""
    )
    money = f", ${cost:,.2f}{unpriced}" if cost or unpriced else ""
    return (
        f"{counted(len(views), 'agent')}: {states} · {done} of {counted(tasks, 'task')} done, {verified} verified · "
        f"{counted(sum(view.denials for view in views), 'denial')} · {_tokens(tokens)} tokens{money}"
    )


def _row(view: AgentView, now: datetime | None) -> tuple[str, ...]:
    time = took(view, now)
    return (
        clean(view.name),
        f"{view.state}",
        f"{view.tasks_done}/{len(view.tasks)}",
        str(view.tasks_verified),
        str(view.denials),
        _tokens(view.tokens),
        "–" if time is None else clock_text(time.total_seconds()),
    )


def _tokens(usage: TokenUsage) -> str:
    return f"{'~' if usage.estimated else ''}{usage.total_tokens:,}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    name = _cut(row[0], widths[0])
    cells = [
        cell.ljust(width) if at < _TEXT_COLUMNS else cell.rjust(width)
        for at, (cell, width) in enumerate(zip((name, *row[1:]), widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
