"""A line that somebody far away has asked for. What is typed is not shown, and is kept nowhere."""

from __future__ import annotations

from rich.style import Style
from textual.events import Key, Paste
from textual.strip import Strip

from toka_console.clean import one_line
from toka_console.dialogs.base import Dialog, DialogPane
from toka_console.format.cells import Row, wrap
from toka_console.lineedit import LineEdit
from toka_console.session import Session


class SecretDialog(Dialog[str]):
    """Ends with what was typed, or None when it was left."""

    def __init__(self, session: Session, title: str, what: str, *, shown: bool = False) -> None:
        """`shown`: what is typed is no secret."""
        self.pane = _SecretPane(session, title, what, shown)
        super().__init__(self.pane)

    def on_key(self, event: Key) -> None:
        event.stop()
        event.prevent_default()
        edit = self.pane.edit
        if event.key in ("escape", "enter"):
            text = edit.text if event.key == "enter" else None
            edit.set("")
            self.dismiss(text)
        elif event.character is not None and event.character.isprintable():
            edit.insert(event.character)
        else:
            edit.key(event.key)
        self.pane.paint()

    def on_paste(self, event: Paste) -> None:
        event.stop()
        self.pane.edit.insert(event.text.rstrip("\r\n"))
        self.pane.paint()


class _SecretPane(DialogPane):
    def __init__(self, session: Session, title: str, what: str, shown: bool) -> None:
        super().__init__(session, id="secret", frame="box")
        self.edit = LineEdit()
        self._title = title
        self._what = what
        self._shown = shown

    def heading(self) -> tuple[str, str]:
        return self._title, "enter answers, esc cancels"

    def edge(self) -> Style:
        return self.palette.frame_focused

    def fit(self, width: int, height: int) -> None:
        wide = min(width - 4, 76) if width > 40 else width
        self.styles.width = wide
        self.styles.height = min(height, len(wrap(self._what, wide - 6)) + 5)

    def content(self, width: int, height: int) -> list[Strip]:
        palette = self.palette
        text = one_line(self.edit.text) if self._shown else "•" * len(self.edit.text)
        at = self.edit.cursor
        first = max(0, at - max(1, width - 8))
        blank = Row(width, palette.base).strip()
        # Where there is little room, the field has it.
        asked = wrap(self._what, width - 4)[: max(1, height - 3)]
        field = Row(width, palette.base).gap(2).add("▸ ", palette.accent).add(text[first:at], palette.strong)
        field.add(text[at : at + 1] or " ", palette.base + Style(reverse=True)).add(text[at + 1 :], palette.strong)
        lines = [Row(width, palette.base).gap(2).add(piece, palette.base).strip() for piece in asked]
        return [*lines, blank, field.strip(), blank][:height] if height > 3 else [*lines, field.strip()][-height:]
