"""Diagnostics (F12): how the console itself is doing."""

from __future__ import annotations

from collections.abc import Iterable

from textual.strip import Strip

from toka_console import diagnostics
from toka_console.format import units
from toka_console.format.agent_sections import fact, heading
from toka_console.panes.base import Pane
from toka_console.panes.doc import DocPane
from toka_console.panes.group import Group
from toka_console.screens.base import ConsoleScreen
from toka_console.screens.desk import Desk
from toka_console.session import Session


class DiagnosticsScreen(ConsoleScreen):
    ID = "diagnostics"

    def __init__(self, session: Session, desk: Desk) -> None:
        super().__init__(session, desk)
        self.page = DocPane(session, "Diagnostics", self._page, id="diagnostics-page")

    def body(self) -> Iterable[Pane | Group]:
        yield self.page

    def main_pane(self) -> Pane:
        return self.page

    def _page(self, width: int) -> list[Strip]:
        session, health, state = self.session, self.session.diagnostics, self.session.state
        half, most = health.drain_percentile(0.5), health.drain_percentile(0.99)
        rows = [
            ("events", f"{health.events_per_s():,.0f}/s over ten seconds, {health.events:,} in all"),
            ("batches", f"{health.drains:,}, largest {health.largest_batch:,} events"),
            ("drains", f"p50 {half * 1000:.1f} ms, p99 {most * 1000:.1f} ms"),
            ("paints", f"{health.paints:,}"),
            ("stalls", f"{health.stalls:,} over 100 ms, worst {units.elapsed(health.worst_stall_s)}"),
            ("memory", units.size(diagnostics.resident_bytes())),
            ("reconnects", f"{health.reconnects:,}"),
        ]
        lines = [heading("CONSOLE", session, width)]
        for label, text in rows:
            lines += fact(label, text, session, width)
        if state is None:
            return lines
        held = sum(entry.output.size for entry in state.agents.values())
        gone = sum(entry.output.dropped_lines for entry in state.agents.values())
        lines += fact("output", f"{units.size(held)} held, {gone:,} lines let go (in the log)", session, width)
        lines += fact("dropped", f"{units.size(state.dropped_bytes)} of output by the link", session, width)
        unknown = "  ".join(f"{kind} ×{count}" for kind, count in sorted(state.unknown_kinds.items()))
        lines += fact("unknown", unknown or "no event of an unknown kind", session, width)
        for host in state.hosts.values():
            lines.append(heading(f"HOST {host.fleet.host}", session, width))
            lines += fact("link", f"{host.link.state.value} {host.link.detail}".rstrip(), session, width)
            lines += fact("seq", f"{host.fleet.seq:,}, {host.missed:,} events missed", session, width)
            if (runtime := host.fleet.runtime) is not None:
                lines += fact("runtime", f"{runtime.version}, pid {runtime.pid}, epoch {runtime.epoch}", session, width)
                lines += fact("state", runtime.state_dir, session, width)
        return lines
