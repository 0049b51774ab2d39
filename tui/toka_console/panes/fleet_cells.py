"""The cells of one agent's row in the Fleet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.style import Style

from toka_console import approvals, selectors
from toka_console.format import glyphs, meters, units
from toka_console.format.cells import Row, width_of
from toka_runtime.protocol.states import LIVE, AgentState

if TYPE_CHECKING:
    from datetime import datetime

    from toka_console.entries import AgentEntry, HostEntry, Pending
    from toka_console.session import Session
    from toka_console.themes import Palette
    from toka_runtime.protocol.snapshot import AgentView


def hourly(host: HostEntry, view: AgentView, now: datetime) -> float:
    """US dollars an hour, at the pace of now."""
    if not view.model_calls:
        # Thousands of agents may be sorted by this.
        return 0.0
    # Not before the first frame: it loads the protocol's models.
    from toka_console import budgets

    account = next(budgets.of_agent(host, view))
    return account.spent.burn(now)[1] * 3600


def capped(host: HostEntry, view: AgentView) -> float | None:
    """How much of its budget is used, 0..1; None: it has no cap."""
    from toka_console import budgets

    account = next(budgets.of_agent(host, view))
    return account.fraction if account.figures else None


class FleetCells:
    def __init__(self, session: Session) -> None:
        self.session = session

    @property
    def palette(self) -> Palette:
        return self.session.palette

    def add(
        self, entry: AgentEntry, pending: Pending | None, column: str, row: Row, width: int, *, why_apart: bool
    ) -> None:
        """One cell. `why_apart`: the reason of the state and since when have columns of their own."""
        palette, view, now = self.palette, entry.view, self.session.now()
        match column:
            case "host":
                row.add(view.host, self.session.host_style(view.host), width)
            case "agent":
                badge = selectors.badge(view)
                style = palette.role(badge.role)
                name = palette.muted if badge.role == "muted" else style if badge.role == "bad" else palette.base
                row.add(badge.glyph, style, 2).add(view.name, name, width - 2)
            case "state":
                self._state(entry, pending, row, width, why_apart=why_apart)
            case "task":
                self._progress(entry, row, width)
            case "action":
                style = palette.muted if view.state not in LIVE else palette.base
                text = selectors.last_action(view, now)
                if width_of(text) > width:
                    text = selectors.quota_wait(view, now) or text
                row.add(text, palette.bad if text.startswith("denied: ") else style, width)
            case "cpu":
                limits, usage = view.spec.security.limits, view.usage
                self._gauge(entry, row, width, usage.cpu_fraction, limits.cpu_fraction, entry.cpu, units.percent)
            case "memory":
                limits, usage = view.spec.security.limits, view.usage
                self._gauge(entry, row, width, usage.memory_bytes, limits.memory_bytes, entry.memory, units.size)
            case "tokens":
                total = view.tokens.total_tokens
                mark = "~" if view.tokens.estimated else ""
                row.add(f"{mark}{units.count(total)}" if total else "·", palette.muted, width, right=True)
            case "cost":
                text = units.money(view.cost_usd) if view.cost_usd else "?" if view.unpriced_calls else "·"
                row.add(text, palette.muted, width, right=True)
            case "denials":
                denied = units.count(view.denials) if view.denials else "·"
                row.add(denied, palette.bad if view.denials else palette.faint, width, right=True)
            case "age":
                row.add(selectors.running_for(view, now) or "·", palette.muted, width, right=True)
            case "since":
                row.add(units.age(view.since, now), palette.muted, width, right=True)
            case "why":
                bad = view.state is AgentState.FAILED or view.survivors
                row.add(selectors.why(view), palette.bad if bad else palette.muted, width)
            case _:
                self._extra(entry, column, row, width)

    def _extra(self, entry: AgentEntry, column: str, row: Row, width: int) -> None:
        """Columns that only wide terminals have, or that were asked for."""
        palette, view = self.palette, entry.view
        alive = view.state in LIVE
        host = self.session.known.hosts[view.host]
        style = palette.muted
        match column:
            case "rate":
                dollars = hourly(host, view, self.session.now())
                text = units.money(dollars) if dollars >= 0.005 else "·"
            case "cap":
                used = capped(host, view)
                text = units.percent(used) if used is not None else "·"
                style = palette.meter(used) if used is not None else palette.faint
            case "domain":
                text = view.spec.domain
            case "priority":
                text = view.spec.priority.value
                style = palette.accent if view.spec.priority.rank == 0 else palette.muted
            case "procs":
                text = str(view.usage.processes) if alive else "·"
            case _:
                text = units.size(view.usage.read_bytes + view.usage.written_bytes) if alive else "·"
        row.add(text, style, width, right=column not in ("domain", "priority"))

    def _state(self, entry: AgentEntry, pending: Pending | None, row: Row, width: int, *, why_apart: bool) -> None:
        palette, view, now = self.palette, entry.view, self.session.now()
        badge, since = selectors.badge(view), units.age(view.since, now)
        if pending is not None:
            waited = units.age(pending.sent_at, now)
            row.add(f"⋯ {pending.unknown or pending.text} {waited}", palette.warn, width)
            return
        state = self.session.state
        if state is not None and not state.is_up(view.host):
            last = state.hosts[view.host].last_seen
            row.add(f"{badge.word}? last seen {units.age(last, now)}", palette.muted, width)
            return
        if badge is glyphs.ASKING:
            self._asking(view, row, width)
            return
        if why_apart:
            row.add(badge.word, palette.role(badge.role), width)
            return
        why = selectors.why(view)
        used = width_of(badge.word)
        row.add(badge.word, palette.role(badge.role), min(width, used))
        rest = width - used
        if rest < width_of(since) + 1:
            row.gap(rest)
            return
        row.add(f" {since}", palette.muted)
        rest -= width_of(since) + 1
        colour = palette.bad if view.state is AgentState.FAILED or view.survivors else palette.muted
        row.add(f" {why}" if why and rest > 4 else "", colour, rest)

    def _asking(self, view: AgentView, row: Row, width: int) -> None:
        """`PENDING approval 4:32`; where there is no room the countdown is what stays."""
        left = approvals.soonest(view.approvals, self.session.now())
        forms = (f"{glyphs.ASKING.word} {left}", f"approval {left}", f"asks {left}")
        row.add(next((form for form in forms if width_of(form) <= width), left), self.palette.warn, width)

    def _progress(self, entry: AgentEntry, row: Row, width: int) -> None:
        palette, view = self.palette, entry.view
        at, total = selectors.progress(view)
        text = f"{at}/{total}" if total else "·"
        style = palette.base if view.state in LIVE else palette.muted
        row.add(text, style, min(width, 5))
        if width < 9:
            row.gap(width - min(width, 5))
            return
        bar = width - 5
        done = view.tasks_done / total if total else 0.0
        filled, rest = meters.bar(done, bar)
        colour = palette.good if view.tasks_verified == total and total else palette.done
        row.add(filled, colour).add(rest, palette.faint)

    def _gauge(
        self, entry: AgentEntry, row: Row, width: int, value: float, limit: float | None, history: Sequence[float],
        show: Callable[[float], str],
    ) -> None:  # fmt: skip
        """`▁▃▂ 23%/75%`: history against the limit, value and limit as far as there is room. Without a limit a bar of
        what the host has, in another colour: `╸─── 23%`."""
        palette, drawn = self.palette, width - 10
        if entry.view.state not in LIVE:
            row.add("·", palette.faint, width, right=True)
            return
        style: Style = palette.meter(value / limit) if limit else palette.base
        text = show(value)
        if limit and width >= len(text) + len(show(limit)) + 1:
            text += f"/{show(limit)}"
        if drawn >= 4 and limit:
            row.add(meters.spark(history, limit, drawn), style, drawn)
            width -= drawn
        elif drawn >= 4 and (whole := self._of_host(entry, show)):
            filled, rest = meters.bar(value / whole, drawn)
            row.add(filled, palette.muted).add(rest, palette.faint)
            width -= drawn
        row.add(text, style, width, right=True)

    def _of_host(self, entry: AgentEntry, show: Callable[[float], str]) -> float:
        """All that the agent's host has of it; 0: not known."""
        usage = self.session.known.hosts[entry.key.host].fleet.host_usage
        if not usage.memory_total_bytes:
            return 0.0
        return float(usage.memory_total_bytes if show is units.size else usage.cores)
