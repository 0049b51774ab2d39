"""A question with two answers. The dangerous one is never the default, and no single key gives it."""

from __future__ import annotations

from dataclasses import dataclass

from rich.style import Style
from textual.events import Click, Key
from textual.message import Message
from textual.strip import Strip

from toka_console.dialogs.base import Dialog, DialogPane, Facts, fact_lines
from toka_console.format.cells import Row, wrap
from toka_console.session import Session


@dataclass(frozen=True)
class Question:
    title: str
    facts: Facts
    accept: str
    """The button's word, e.g. `Kill`."""
    note: str = ""
    dangerous: bool = True
    """Red, and Cancel is the default."""


class Answered(Message):
    """A button was clicked."""

    def __init__(self, accepted: bool) -> None:
        super().__init__()
        self.accepted = accepted


class ConfirmDialog(Dialog[bool]):
    def __init__(self, session: Session, question: Question) -> None:
        self.pane = _QuestionPane(session, question)
        super().__init__(self.pane)

    def on_key(self, event: Key) -> None:
        event.stop()
        event.prevent_default()
        match event.key:
            case "escape" | "q":
                self.dismiss(False)
            case "left" | "right" | "tab" | "shift+tab" | "h" | "l":
                self.pane.accepting = not self.pane.accepting
                self.pane.paint()
            case "enter":
                self.dismiss(self.pane.accepting)
            case "down" | "j":
                self.pane.scroll_lines(1)
            case "up" | "k":
                self.pane.scroll_lines(-1)
            case "pagedown" | "space" | "ctrl+d":
                self.pane.scroll_lines(self.pane.page)
            case "pageup" | "ctrl+u":
                self.pane.scroll_lines(-self.pane.page)
            case _:
                pass

    def on_answered(self, message: Answered) -> None:
        self.dismiss(message.accepted)


class _QuestionPane(DialogPane):
    def __init__(self, session: Session, question: Question) -> None:
        super().__init__(session, id="question", frame="box")
        self.question = question
        self.accepting = not question.dangerous
        self._top = 0
        self.page = 1
        """Lines of the text that fit when not all do."""
        self._buttons: list[tuple[int, int, bool]] = []
        self._button_row = 0

    def heading(self) -> tuple[str, str]:
        return self.question.title, ""

    def scroll_lines(self, by: int) -> None:
        """What does not fit is scrolled through before it is answered."""
        self._top = max(0, self._top + by)
        self.paint()

    def edge(self) -> Style:
        return self.palette.bad if self.question.dangerous else self.palette.frame_focused

    def fit(self, width: int, height: int) -> None:
        # One line without a frame where there is no room for more.
        tiny = height < 9 or width < 40
        self.frame = "none" if tiny else "box"
        wide = width if tiny else min(width - 4, 76)
        self.styles.width = wide
        self.styles.height = min(height, 1 if tiny else len(self._text(wide - 2)) + 5)

    def _text(self, width: int) -> list[Strip]:
        palette = self.palette
        lines = [Row(width, palette.base).strip()]
        lines += fact_lines(self.question.facts(), palette, width)
        if self.question.note:
            lines.append(Row(width, palette.base).strip())
            for piece in wrap(self.question.note, width - 4):
                lines.append(Row(width, palette.base).gap(2).add(piece, palette.muted).strip())
        return lines

    def content(self, width: int, height: int) -> list[Strip]:
        if self.frame == "none":
            subject = "  ".join(text for _, text in self.question.facts()[:1])
            row = Row(width, self.palette.banner)
            self._buttons, self._button_row = [], 0
            self._add_buttons(row)
            return [row.gap().add(f"{self.question.title} {subject}").strip()]
        room = max(0, height - 2)
        lines = self._text(width)
        self.page = max(1, room - 1)
        if room and len(lines) > room:
            self._top = min(self._top, len(lines) - self.page)
            below = len(lines) - self._top - self.page
            text = f"⋯ {below} more lines below, ↓ shows them" if below else "⋯ the end, ↑ goes back"
            rest = Row(width, self.palette.bad).gap(2).add(text).strip()
            lines = [*lines[self._top : self._top + self.page], rest]
        lines += [Row(width, self.palette.base).strip()] * (height - 2 - len(lines))
        row = Row(width, self.palette.base)
        self._buttons, self._button_row = [], height - 1
        row.gap(max(2, width - len(self.question.accept) - 16))
        self._add_buttons(row)
        return [*lines, Row(width, self.palette.base).strip(), row.strip()]

    def _add_buttons(self, row: Row) -> None:
        palette = self.palette
        chosen = palette.button_danger if self.question.dangerous else palette.button_focused
        plain: Style = palette.button
        for word, accept in (("Cancel", False), (self.question.accept, True)):
            here = self.accepting is accept
            start = row.width - row.room
            mark = "▸" if here else " "
            style = (chosen if accept else palette.button_focused) if here else plain
            row.add(f"{mark}{word} ", style)
            self._buttons.append((start, row.width - row.room, accept))
            row.gap()

    def on_click(self, event: Click) -> None:
        offset = 1 if self.frame == "box" else 0
        if event.y - offset != self._button_row:
            return
        for start, end, accept in self._buttons:
            if start <= event.x - offset < end:
                self.post_message(Answered(accept))
