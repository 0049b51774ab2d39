"""The hosts of this console, attached or not."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from toka_console.format import host_page
from toka_console.format.cells import Row
from toka_console.panes.columns import Column
from toka_console.panes.table import TablePane
from toka_console.screens.desk import Desk

if TYPE_CHECKING:
    from toka_console.links import HostLink
    from toka_console.session import Session

COLUMNS = (
    Column("host", "HOST", 10, 16, 24, rank=0),
    Column("link", "LINK", 10, 10, rank=1),
    Column("agents", "AGENTS", 6, 16, 40, rank=2),
    Column("seen", "SEEN", 8, 8, rank=3),
    Column("trip", "TRIP", 7, 7, rank=4, right=True),
    Column("clock", "CLOCK", 12, 20, 24, rank=5),
    Column("role", "ROLE", 6, 6, rank=6),
    Column("tier", "TIER", 4, 4, rank=7),
    Column("again", "RECON", 5, 5, rank=8, right=True),
    Column("version", "RUNTIME", 8, 10, rank=9),
    Column("proto", "PROTO", 5, 5, rank=11, right=True),
    Column("address", "ADDRESS", 12, 20, 32, weight=1, rank=10),
)


class HostsTable(TablePane[str]):
    """A row's identity is what the operator calls the host."""

    columns = COLUMNS

    def __init__(self, session: Session, desk: Desk, *, id: str | None = None) -> None:
        super().__init__(session, id=id)
        self._desk = desk

    def link(self, key: str | None) -> HostLink | None:
        return next((each for each in self._desk.links.hosts if each.wanted.name == key), None)

    def heading(self) -> tuple[str, str]:
        return f"Hosts {len(self.order)}", ":attach HOST"

    def empty(self) -> str:
        return "no host is attached\n:attach HOST, or USER@HOST, or a name or group of console.yaml"

    def rows(self) -> Sequence[str]:
        found = [each.wanted.name for each in self._desk.links.hosts]
        return self._base if found == self._base else found

    def version(self, key: str) -> Hashable:
        link = self.link(key)
        return None if link is None else tuple(text for text, _ in self._texts(link).values())

    def cells(self, key: str, row: Row, layout: list[tuple[Column, int]]) -> None:
        link = self.link(key)
        if link is None:
            return
        texts = self._texts(link)
        for column, width in layout:
            text, role = texts[column.id]
            style = self.session.host_style(link.name) if column.id == "host" else self.palette.role(role)
            row.add(text or "·", style if text else self.palette.faint, width, right=column.right).gap()

    def _texts(self, link: HostLink) -> dict[str, tuple[str, str]]:
        """Column → (text, role)."""
        entry = host_page.entry_of(link, self.session)
        corrected = link.client is not None and bool(link.client.ahead)
        tier = entry.fleet.protections.tier.value if entry is not None and entry.fleet.protections is not None else ""
        again = self.session.diagnostics.reconnects[link.host] if link.host is not None else 0
        return {
            "host": (link.name, "strong"),
            "link": host_page.state_of(link, self.session),
            "agents": (host_page.agents(entry) or link.reason, "base" if entry is not None else "bad"),
            "seen": (host_page.last_seen(link, entry, self.session), "base"),
            "trip": (host_page.round_trip(entry), "base"),
            "clock": (host_page.clock(entry), "warn" if corrected else "muted"),
            "role": (host_page.role(entry), "warn" if entry is not None and entry.link.read_only else "muted"),
            "tier": (tier, "base"),
            "again": (str(again or ""), "warn"),
            "version": (entry.link.version if entry is not None else "", "muted"),
            "proto": (str(entry.link.protocol or "") if entry is not None else "", "muted"),
            "address": (link.wanted.address, "muted"),
        }
