"""The line that takes the footer's place for `:` and `/`. It has the keys only while it is open."""

from __future__ import annotations

from collections.abc import Callable

from rich.style import Style
from textual.events import Paste
from textual.message import Message
from textual.strip import Strip

from toka_console.clean import one_line
from toka_console.completion import Completed
from toka_console.format.cells import Row
from toka_console.lineedit import LineEdit
from toka_console.panes.base import Pane
from toka_console.session import Session
from toka_console.typed import LineKind


class Entered(Message):
    def __init__(self, kind: LineKind, text: str) -> None:
        super().__init__()
        self.kind: LineKind = kind
        self.text = text


class Closed(Message):
    """The line was left without an answer."""


class CommandLine(Pane, can_focus=True):
    """Keys come from the screen (`handle`), so that nothing else sees them while it is open."""

    def __init__(self, session: Session, complete: Callable[[LineKind, str], Completed], hint: str) -> None:
        """`hint`: what can be typed after `/`."""
        super().__init__(session, id="command-line")
        self.kind: LineKind = "command"
        self.edit = LineEdit()
        self.candidates: list[str] = []
        self._complete = complete
        self._hint = hint
        self._back = 0
        self._draft = ""
        """What was typed before older lines were looked at."""
        self._sought: str | None = None
        """What ctrl-r looks for in older lines."""

    def open(self, kind: LineKind, text: str = "") -> None:
        self.kind = kind
        self.edit.set(text)
        self.candidates, self._back, self._sought = [], 0, None

    def handle(self, key: str, character: str | None) -> None:
        """One key press."""
        edit = self.edit
        if key == "escape" or (key in ("backspace", "ctrl+h") and not edit.text):
            self.post_message(Closed())
            return
        if key == "enter":
            self.post_message(Entered(self.kind, edit.text.strip()))
            return
        if key == "ctrl+r":
            self._seek()
            self.paint()
            return
        self._sought = None
        if key == "tab":
            self._take_completion()
        elif key in ("up", "down"):
            self._recall(1 if key == "up" else -1)
        elif character is not None:
            edit.insert(character)
            self._suggest()
        elif edit.key(key):
            self._suggest()
        self.paint()

    def _suggest(self) -> None:
        # What stands behind the cursor is not completed.
        at_end = self.edit.cursor == len(self.edit.text)
        self.candidates = self._complete(self.kind, self.edit.text)[1] if at_end else []

    def _take_completion(self) -> None:
        if self.edit.cursor == len(self.edit.text):
            text, self.candidates = self._complete(self.kind, self.edit.text)
            self.edit.set(text)

    def _recall(self, step: int) -> None:
        past = self.session.typed.lines[self.kind]
        if self._back == 0:
            self._draft = self.edit.text
        self._back = max(0, min(len(past), self._back + step))
        self.edit.set(past[-self._back] if self._back else self._draft)

    def _seek(self) -> None:
        """The newest older line with what was typed; the same key again: the one before."""
        past = self.session.typed.lines[self.kind]
        if self._sought is None:
            self._sought, self._back = self.edit.text, 0
        found = next((back for back in range(self._back + 1, len(past) + 1) if self._sought in past[-back]), None)
        if found is not None:
            self._back = found
            self.edit.set(past[-found])

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
            hint = "a command · TAB completes · ↑ earlier · ^r search" if self.kind == "command" else self._hint
            row.gap(2).add(hint, palette.bar_muted)
        elif self._sought is not None:
            row.gap(3).add(f"^r {self._sought}", palette.bar_muted)
        elif self.candidates and self.candidates != [text]:
            row.gap(3).add("  ".join(self.candidates[:12]), palette.bar_muted)
        return [row.strip()]
