"""The base of dialogs: one pane in the middle, which takes the size that its text needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from textual.app import ComposeResult
from textual.await_complete import AwaitComplete
from textual.screen import ModalScreen
from textual.strip import Strip

from toka_console.format.cells import Row, wrap
from toka_console.panes.base import Pane
from toka_console.themes import Palette

T = TypeVar("T")
Fact = tuple[str, str]
"""(label, text)."""
Facts = Callable[[], list[Fact]]
"""Asked at each paint: a dialog says when what it names has changed meanwhile."""


class DialogPane(Pane):
    def fit(self, width: int, height: int) -> None:
        """Take the size the text needs in a terminal of this size."""
        raise NotImplementedError


class Dialog(ModalScreen[T], Generic[T]):
    AUTO_FOCUS = ""
    ALLOW_SELECT = False

    def __init__(self, pane: DialogPane) -> None:
        super().__init__()
        self._pane = pane
        self._answered = False

    def dismiss(self, result: T | None = None) -> AwaitComplete:
        """Close with the result, once: a key typed right after finds the dialog answered."""
        if self._answered:
            return AwaitComplete.nothing()
        self._answered = True
        return super().dismiss(result)

    def compose(self) -> ComposeResult:
        yield self._pane

    def paint(self) -> None:
        self._pane.fit(self.size.width, self.size.height)
        self._pane.paint()

    def on_mount(self) -> None:
        self.paint()

    def on_resize(self) -> None:
        self.paint()


def fact_lines(facts: list[Fact], palette: Palette, width: int) -> list[Strip]:
    """Labels at the left, their texts wrapped beside them."""
    lines: list[Strip] = []
    for label, text in facts:
        for number, piece in enumerate(wrap(text.replace("\n", " ⏎ "), width - 14)):
            row = Row(width, palette.base).gap(2).add(label if number == 0 else "", palette.muted, 10).gap()
            lines.append(row.add(piece, palette.strong).strip())
    return lines
