"""Screen 4, Logs: what tools and the runtime printed and what happened, merged by time; of one agent or of all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from textual.strip import Strip

from toka_console import log_window
from toka_console.format.cells import Row, wrap
from toka_console.panes.base import Pane
from toka_console.panes.doc import DocPane
from toka_console.panes.group import Group
from toka_console.panes.logs import Chosen, LogsPane
from toka_console.screens.base import ConsoleScreen
from toka_console.screens.desk import Desk
from toka_console.session import Session
from toka_runtime.protocol.commands import ReadEvents

if TYPE_CHECKING:
    from toka_console.bridge import Bridge
    from toka_console.log_window import LogWindow
    from toka_console.place import Place


class LogsScreen(ConsoleScreen):
    ID = "logs"
    FILTER_KEYS = ("agent", "host", "stream", "task", "level", "text")

    def __init__(self, session: Session, desk: Desk) -> None:
        super().__init__(session, desk)
        self.logs = LogsPane(session, id="logs-pane")
        self.detail = DocPane(session, "Line", self._detail, id="logs-detail")
        self._reading = False

    def body(self) -> Iterable[Pane | Group]:
        yield self.logs
        yield self.detail

    def main_pane(self) -> Pane:
        return self.logs

    def arrange_body(self, width: int, height: int) -> None:
        self.logs.frame = "box" if height >= 16 else "rule"
        self.logs.styles.height = height
        # Only `enter` shows it, over the whole body.
        self.detail.display = False

    def filter_values(self, key: str) -> Iterable[str]:
        if key == "level":
            return ("problem",)
        return log_window.STREAMS if key == "stream" else super().filter_values(key)

    def place_below(self) -> Place | None:
        if self.logs.selected() is not None:
            self.zoom(self.detail)
        return None

    def paint(self) -> None:
        self.logs.sync()
        super().paint()
        self._read_older()

    def _detail(self, width: int) -> list[Strip]:
        line, palette = self.logs.selected(), self.session.palette
        if line is None:
            return []
        rows: list[Strip] = []
        facts = [
            ("at", line.at.isoformat()), ("seq", f"{line.seq:,}"), ("host", self.logs.selected_host()),
            ("agent", line.agent), ("stream", line.stream), ("task", str(line.task + 1) if line.task >= 0 else ""),
        ]  # fmt: skip
        for name, text in facts:
            if text:
                rows.append(Row(width, palette.base).gap().add(name, palette.muted, 8).gap().add(text).strip())
        if line.cut:
            whole = len(line.text) + line.cut
            note = f"the first {len(line.text):,} of {whole:,} characters; :export writes what the log has"
            rows.append(Row(width, palette.base).gap().add(note, palette.warn).strip())
        body = line.text
        if line.envelope is not None:
            body = json.dumps(line.envelope.event.model_dump(mode="json"), indent=2, ensure_ascii=False)
        for text in body.split("\n"):
            rows += [Row(width, palette.base).gap().add(piece).strip() for piece in wrap(text, width - 2)]
        return rows

    # -- the log --------------------------------------------------------------------------------------------------

    def _read_older(self) -> None:
        """Page in what is before the window while the view is near its beginning."""
        if self._reading or not self.logs.wants_older:
            return
        for name, host in self.logs.hosts():
            bridge = self.desk.links.bridge_of(name)
            if bridge is not None and host.log.first and host.log.has_room:
                self._reading = True
                bridge.spawn(self._read(host.log, bridge), name="logs")
                return

    async def _read(self, window: LogWindow, bridge: Bridge) -> None:
        read = ReadEvents(before_seq=window.first + 1, limit=log_window.PAGE, newest_first=True)
        try:
            found, more = await bridge.read_page(read)
            window.prepend(found, more=more)
        finally:
            self._reading = False
        self.paint()

    def on_chosen(self, message: Chosen) -> None:
        message.stop()
        self.detail.top = 0
        self._read_older()
