"""The host and the fleet in figures: a block of gauges, or one line where there is no room."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from textual.strip import Strip

from toka_console.format import glyphs, meters, units
from toka_console.format.cells import Row, width_of
from toka_console.panes.base import Pane
from toka_runtime.protocol.states import AgentState

if TYPE_CHECKING:
    from toka_console.entries import HostEntry
    from toka_console.state import ConsoleState

_ORDER = (
    AgentState.FAILED, AgentState.KILLED, AgentState.PAUSED, AgentState.STOPPING, AgentState.RUNNING,
    AgentState.STARTING, AgentState.PENDING, AgentState.SKIPPED, AgentState.COMPLETED,
)  # fmt: skip


class GaugesPane(Pane):
    def heading(self) -> tuple[str, str]:
        state = self.session.state
        if state is None or not state.hosts:
            return "Host", ""
        host = next(iter(state.hosts.values()))
        usage = host.fleet.host_usage
        cores = units.plural(usage.cores, "core") if usage.memory_total_bytes else ""
        return f"Host {host.fleet.host}" if len(state.hosts) == 1 else "Hosts", cores

    def depends(self) -> Hashable:
        state = self.session.state
        if state is None:
            return self.session.phase
        samples = tuple(host.samples for host in state.hosts.values())
        rate = state.tokens_per_s(self.session.now())
        return samples, state.order_version, state.totals_version, state.recent_version, rate

    def content(self, width: int, height: int) -> list[Strip]:
        state = self.session.state
        if state is None or not state.hosts:
            return []
        host = next(iter(state.hosts.values()))
        return [self._one_line(state, host, width)] if height < 4 else self._block(state, host, width, height)

    def _block(self, state: ConsoleState, host: HostEntry, width: int, height: int) -> list[Strip]:
        palette, usage = self.palette, host.fleet.host_usage
        text = height - 5
        lines: list[Strip] = []
        graph = max(0, min(5 if height >= 14 else 4, text))
        style = palette.meter(usage.cpu_fraction)
        known = usage.memory_total_bytes > 0
        if graph:
            label = units.percent(usage.cpu_fraction) if known else units.UNKNOWN
            for number, row in enumerate(meters.area(host.cpu, 1.0, width - 13, graph)):
                head = Row(width, palette.base).gap()
                head.add("CPU" if number == 0 else "", palette.heading, 4).add(row, style).gap()
                lines.append(head.add(label if number == 0 else "", palette.strong, 6, right=True).strip())
        else:
            lines.append(self._meter("CPU", usage.cpu_fraction, units.percent(usage.cpu_fraction), width))
        used, total = usage.memory_used_bytes, usage.memory_total_bytes
        share = used / total if total else 0.0
        lines.append(
            self._meter("MEM", share, f"{units.size(used)}/{units.size(total)}" if known else "unknown", width)
        )
        lines.append(self._states(state, width))
        sums = state.tally
        sent, written = sums.tokens - sums.output_tokens, sums.output_tokens
        row = Row(width, palette.base).gap().add("TOK ", palette.heading)
        row.add(f"{units.count(sent)} in  {units.count(written)} out").add("  ")
        row.add(f"{state.tokens_per_s(self.session.now()):.0f}/s", palette.muted)
        lines.append(row.strip())
        row = Row(width, palette.base).gap().add("$   ", palette.heading).add(self._spend(state))
        denied = sums.denials
        row.add("  ").add(units.plural(denied, "denial"), palette.bad if denied else palette.muted)
        row.add(f"  {units.plural(sums.model_calls, 'model call')}", palette.muted)
        lines.append(row.strip())
        lines += self._caps(host, width)
        if height - len(lines) >= 4:
            lines += self._recent(state, width, height - len(lines))
        return lines[:height]

    def _caps(self, host: HostEntry, width: int) -> list[Strip]:
        """What is used of the caps of the fleet and of today, and when they are reached."""
        from toka_console import budgets
        from toka_console.format import budget_text

        lines: list[Strip] = []
        now = self.session.now()
        for each in budgets.of_fleet(host, now):
            figures = [
                f"{budget_text.amount(figure.what, figure.used)}/{budget_text.amount(figure.what, figure.cap)}"
                for figure in each.figures
            ]
            if figures:
                row = (
                    Row(width, self.palette.base)
                    .gap()
                    .add(f"{each.account.scope.value.upper():<6}", self.palette.heading)
                )
                row.add("  ".join(figures), self.palette.meter(each.fraction)).gap(2)
                reached = budget_text.reached(each.spent.reached_in_s(each.cap, now))
                if width_of(reached) > row.room:
                    lines.append(row.strip())
                    row = Row(width, self.palette.base).gap(7)
                lines.append(row.add(reached, self.palette.muted).strip())
        return lines

    def _recent(self, state: ConsoleState, width: int, height: int) -> list[Strip]:
        """What happened last in the whole fleet, newest at the bottom; tool calls are left to the live output."""
        palette = self.palette
        title = Row(width, palette.base).gap().add("RECENT ", palette.heading).fill("─", palette.faint, leave=1)
        lines: list[Strip] = []
        for line in reversed(state.activity):
            if len(lines) >= height - 1:
                break
            if line.role == "muted":
                continue
            row = Row(width, palette.base).gap().add(units.clock_time(line.at), palette.faint).gap()
            if line.key is not None:
                row.add(line.key.name, palette.muted, 14).gap()
            lines.append(row.add(line.text, palette.role(line.role)).strip())
        return [title.strip(), *reversed(lines)]

    def _meter(self, name: str, fraction: float, text: str, width: int) -> Strip:
        palette = self.palette
        row = Row(width, palette.base).gap().add(name, palette.heading, 4)
        size = max(4, width - 5 - 13)
        filled, rest = meters.bar(fraction, size)
        row.add(filled, palette.meter(fraction)).add(rest, palette.faint)
        return row.gap().add(text, palette.strong, row.room - 1, right=True).strip()

    def _states(self, state: ConsoleState, width: int) -> Strip:
        row = Row(width, self.palette.base).gap().add("RUN ", self.palette.heading)
        self._counts(state, row, words=width >= 60)
        return row.strip()

    def _counts(self, state: ConsoleState, row: Row, words: bool) -> None:
        for wanted in _ORDER:
            if count := len(state.tally.in_state[wanted]):
                badge = glyphs.AGENT[wanted]
                row.add(f"{badge.glyph} {count} ", self.palette.role(badge.role))
                if words:
                    row.add(f"{badge.word.lower()} ", self.palette.muted)
                row.gap()

    def _spend(self, state: ConsoleState) -> str:
        spent, unpriced = state.tally.cost_usd, state.tally.unpriced_calls
        return f"${units.money(spent)}" + (f" + {units.plural(unpriced, 'unpriced call')}" if unpriced else "")

    def _one_line(self, state: ConsoleState, host: HostEntry, width: int) -> Strip:
        palette, usage = self.palette, host.fleet.host_usage
        row = Row(width, palette.base).gap()
        self._counts(state, row, words=False)
        bar = 8 if width >= 90 else 4
        if usage.memory_total_bytes:
            share = usage.memory_used_bytes / usage.memory_total_bytes
            for name, fraction in (("cpu", usage.cpu_fraction), ("mem", share)):
                filled, rest = meters.bar(fraction, bar)
                row.add(f" {name} ", palette.heading).add(filled, palette.meter(fraction))
                row.add(rest, palette.faint).add(f" {units.percent(fraction)}")
        row.add(f"  {state.tokens_per_s(self.session.now()):.0f} tok/s  {self._spend(state)}", palette.muted)
        from toka_console import budgets

        for each in budgets.of_fleet(host, self.session.now()):
            if each.figures:
                text = f"  {each.account.scope.value} cap {units.percent(each.fraction)}"
                row.add(text, palette.meter(each.fraction))
        return row.strip()
