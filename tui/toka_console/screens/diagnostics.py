"""Diagnostics (F12): how the console itself is doing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from textual.strip import Strip

from toka_console import diagnostics
from toka_console.diagnostics import Timings
from toka_console.format import units
from toka_console.format.agent_sections import fact, heading
from toka_console.panes.base import Pane
from toka_console.panes.doc import DocPane
from toka_console.panes.group import Group
from toka_console.screens.base import ConsoleScreen
from toka_console.screens.desk import Desk
from toka_console.session import Session

if TYPE_CHECKING:
    from toka_console.entries import HostEntry
    from toka_console.state import ConsoleState


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
        session, state = self.session, self.session.state
        lines = [heading("CONSOLE", session, width), *self._facts(self._work(), width)]
        if state is None:
            return lines
        lines += self._facts(self._kept(state), width)
        for host in state.hosts.values():
            lines.append(heading(f"HOST {host.fleet.host}", session, width))
            lines += self._facts(self._host(host), width)
        return lines

    def _facts(self, rows: list[tuple[str, str]], width: int) -> list[Strip]:
        return [line for label, text in rows for line in fact(label, text, self.session, width)]

    def _work(self) -> list[tuple[str, str]]:
        """What it has done, and how long that took."""
        health = self.session.diagnostics
        written = health.written_per_s()
        delay = units.elapsed(self.session.terminal_delay())
        terminal = f"{units.size(written)}/s, {units.size(self.session.terminal_bytes())} in all, delay {delay}"
        return [
            ("events", f"{health.events_per_s():,.0f}/s over ten seconds, {health.events:,} in all"),
            ("batches", f"{health.drains.count:,}, largest {health.largest_batch:,} events"),
            ("drains", _times(health.drains)),
            ("folds", _times(health.folds)),
            ("paints", f"{health.paints.count:,}, {_times(health.paints)}"),
            ("frames", f"{health.frames:,} sent to the terminal"),
            ("terminal", terminal if self.session.terminal_bytes() else units.UNKNOWN),
            ("stalls", self._stalls()),
            ("memory", units.size(diagnostics.resident_bytes()) if diagnostics.resident_bytes() else units.UNKNOWN),
        ]

    def _stalls(self) -> str:
        health = self.session.diagnostics
        if health.worst is None or health.last is None:
            return "none over 100 ms"
        worst = f"worst {units.elapsed(health.worst.seconds)} ({health.worst.what})"
        ago = units.duration(health.clock() - health.last.at)
        last = f"last {units.elapsed(health.last.seconds)} ({health.last.what}) {ago} ago"
        return f"{health.stalls:,} over 100 ms, {worst}, {last}"

    def _kept(self, state: ConsoleState) -> list[tuple[str, str]]:
        """What is held, and what was let go."""
        held = sum(entry.output.size for entry in state.agents.values())
        gone = sum(entry.output.dropped_lines for entry in state.agents.values())
        unknown = "  ".join(f"{kind} ×{count}" for kind, count in sorted(state.unknown_kinds.items()))
        return [
            ("output", f"{units.size(held)} held, {gone:,} lines let go (in the log)"),
            ("dropped", f"{units.size(state.dropped_bytes)} of output by the link"),
            ("coalesced", f"{self.session.diagnostics.coalesced:,} samples, for newer ones of the same"),
            ("unknown", unknown or "no event of an unknown kind"),
        ]

    def _host(self, host: HostEntry) -> list[tuple[str, str]]:
        link, runtime = host.link, host.fleet.runtime
        reconnects = self.session.diagnostics.reconnects[host.fleet.host]
        far = f", round trip {units.elapsed(link.round_trip_s)}" if link.round_trip_s is not None else ""
        found = [
            ("link", f"{link.state.value}{far} {link.detail}".rstrip()),
            ("reconnects", f"{reconnects:,}"),
            ("seq", f"{host.fleet.seq:,}, {host.missed:,} events missed"),
        ]
        if runtime is not None:
            found.append(("runtime", f"{runtime.version}, pid {runtime.pid}, epoch {runtime.epoch}"))
            found.append(("state", runtime.state_dir))
        return found


def _times(timings: Timings) -> str:
    half, most = timings.percentile(0.5), timings.percentile(0.99)
    return f"p50 {half * 1000:.1f} ms, p99 {most * 1000:.1f} ms"
