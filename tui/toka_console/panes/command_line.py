"""The line that takes the footer's place for `:` and `/`. It has the keys only while it is open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from rich.style import Style
from textual.events import Paste
from textual.message import Message
from textual.strip import Strip

from toka_console.clean import one_line
from toka_console.format.cells import Row
from toka_console.lineedit import LineEdit
from toka_console.panes.base import Pane
from toka_console.session import Session

LineKind = Literal["command", "filter"]
MAX_HISTORY = 100


class Entered(Message):
    def __init__(self, kind: LineKind, text: str) -> None:
        super().__init__()
        self.kind: LineKind = kind
        self.text = text


class Closed(Message):
    """The line was left without an answer."""


class CommandLine(Pane, can_focus=True):
    """Keys come from the screen (`handle`), so that nothing else sees them while it is open."""

    def __init__(self, session: Session, agents: Callable[[], list[str]]) -> None:
        super().__init__(session, id="command-line")
        self.kind: LineKind = "command"
        self.edit = LineEdit()
        self.candidates: list[str] = []
        self.history: dict[LineKind, list[str]] = {"command": [], "filter": []}
        self._agents = agents
        self._back = 0

    def open(self, kind: LineKind, text: str = "") -> None:
        self.kind = kind
        self.edit.set(text)
        self.candidates, self._back = [], 0

    def handle(self, key: str, character: str | None) -> None:
        """One key press."""
        edit = self.edit
        if key == "escape" or (key in ("backspace", "ctrl+h") and not edit.text):
            self.post_message(Closed())
            return
        if key == "enter":
            text = edit.text.strip()
            if text and text not in self.history[self.kind][-1:]:
                self.history[self.kind] = [*self.history[self.kind], text][-MAX_HISTORY:]
            self.post_message(Entered(self.kind, text))
            return
        if key == "tab" and self.kind == "command":
            text, self.candidates = self._complete()
            edit.set(text)
        elif key in ("up", "down"):
            self._recall(1 if key == "up" else -1)
        elif character is not None:
            edit.insert(character)
            self._suggest()
        elif edit.key(key):
            self._suggest()
        self.paint()

    def _suggest(self) -> None:
        self.candidates = self._complete()[1] if self.kind == "command" else []

    def _complete(self) -> tuple[str, list[str]]:
        from toka_console import colon

        return colon.complete(self.edit.text, self._agents())

    def _recall(self, step: int) -> None:
        past = self.history[self.kind]
        self._back = max(0, min(len(past), self._back + step))
        self.edit.set(past[-self._back] if self._back else "")

    def on_paste(self, event: Paste) -> None:
        event.stop()
        self.edit.insert(one_line(event.text))
        self._suggest()
        self.paint()

    def content(self, width: int, height: int) -> list[Strip]:
        palette = self.palette
        text, at = self.edit.text, self.edit.cursor
        # Long lines scroll so that the cursor stays visible.
        first = max(0, at - max(1, width - 4))
        row = Row(width, palette.bar).add(":" if self.kind == "command" else "/", palette.key)
        row.add(text[first:at], palette.bar)
        row.add(text[at : at + 1] or " ", palette.bar + Style(reverse=True))
        row.add(text[at + 1 :], palette.bar)
        if not text:
            hint = (
                "a command, TAB completes"
                if self.kind == "command"
                else "text  !not  -f fuzzy  state:running  layer:policy"
            )
            row.gap(2).add(hint, palette.bar_muted)
        elif self.candidates and self.candidates != [text]:
            row.gap(3).add("  ".join(self.candidates[:12]), palette.bar_muted)
        return [row.strip()]
