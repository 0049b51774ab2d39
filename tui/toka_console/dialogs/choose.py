"""A question with several answers, each in full words. Cancel is the default, and no single key gives another."""

from __future__ import annotations

from dataclasses import dataclass

from rich.style import Style
from textual.events import Click, Key
from textual.message import Message
from textual.strip import Strip

from toka_console.dialogs.base import Dialog, DialogPane, Fact, Facts, fact_lines
from toka_console.format.cells import Row, wrap
from toka_console.session import Session

CANCEL: Fact = ("Cancel", "")


@dataclass(frozen=True)
class Choice:
    title: str
    facts: Facts
    options: tuple[Fact, ...]
    """(name, what it means), the narrowest first. Cancel stands before them."""


class Chosen(Message):
    """A marked answer was clicked."""


class ChooseDialog(Dialog[int]):
    """Ends with the index of the option, or None for Cancel."""

    def __init__(self, session: Session, choice: Choice) -> None:
        self.pane = _ChoicePane(session, choice)
        super().__init__(self.pane)

    def on_key(self, event: Key) -> None:
        event.stop()
        event.prevent_default()
        match event.key:
            case "escape" | "q":
                self.dismiss(None)
            case "down" | "j" | "tab" | "right":
                self.pane.step(1)
            case "up" | "k" | "shift+tab" | "left":
                self.pane.step(-1)
            case "enter":
                self._accept()
            case _:
                pass

    def on_chosen(self, message: Chosen) -> None:
        self._accept()

    def _accept(self) -> None:
        marked = self.pane.marked
        self.dismiss(None if marked == 0 else marked - 1)


class _ChoicePane(DialogPane):
    def __init__(self, session: Session, choice: Choice) -> None:
        super().__init__(session, id="choice", frame="box")
        self.choice = choice
        self.marked = 0
        """0: Cancel."""
        self._rows: list[int | None] = []
        """The option that each row of the content belongs to."""

    def heading(self) -> tuple[str, str]:
        return self.choice.title, "↑ ↓ choose, enter answers, esc cancels"

    def edge(self) -> Style:
        return self.palette.bad

    def step(self, by: int) -> None:
        self.marked = (self.marked + by) % (len(self.choice.options) + 1)
        self.paint()

    def fit(self, width: int, height: int) -> None:
        wide = min(width - 2, 96) if width > 40 else width
        self.styles.width = wide
        self.styles.height = min(height, len(self._lines(wide - 2)) + 2)

    def _lines(self, width: int) -> list[tuple[int | None, Strip]]:
        """Every line, with the option it belongs to."""
        palette = self.palette
        blank = Row(width, palette.base).strip()
        lines: list[tuple[int | None, Strip]] = [
            (None, line) for line in fact_lines(self.choice.facts(), palette, width)
        ]
        lines.append((None, blank))
        for number, (name, text) in enumerate((CANCEL, *self.choice.options)):
            here = number == self.marked
            style = (palette.button_danger if number else palette.button_focused) if here else palette.base
            for index, piece in enumerate(wrap(text, max(8, width - 16))):
                row = Row(width, palette.base).gap(2).add("▸ " if here and index == 0 else "  ", style)
                row.add(name if index == 0 else "", style, 10).add(f"{piece} ", style)
                lines.append((number, row.strip()))
        return lines

    def content(self, width: int, height: int) -> list[Strip]:
        lines = self._lines(width)
        # What is marked is always in view, whole if it fits.
        last = max((index for index, (option, _) in enumerate(lines) if option == self.marked), default=0)
        first = max(0, min(last + 1 - height, len(lines) - height))
        shown = lines[first : first + height]
        self._rows = [option for option, _ in shown]
        return [line for _, line in shown]

    def on_click(self, event: Click) -> None:
        row = event.y - 1
        option = self._rows[row] if 0 <= row < len(self._rows) else None
        if option is None:
            return
        if option == self.marked:
            self.post_message(Chosen())
        else:
            self.marked = option
            self.paint()
