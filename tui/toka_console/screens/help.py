"""Help: keys and commands, made from the registry; first those of the screen it was opened from."""

from __future__ import annotations

from collections.abc import Iterable

from textual.strip import Strip

from toka_console.actions import ACTIONS, Action
from toka_console.format.cells import Row
from toka_console.panes.base import Pane
from toka_console.panes.doc import DocPane
from toka_console.panes.group import Group
from toka_console.screens.base import ConsoleScreen
from toka_console.screens.desk import Desk
from toka_console.session import Session

_GROUPS = ("Contain", "Approve", "Destroy", "Start", "Look", "Console", "Move")
_NOTES = (
    "The screen changes when the runtime's event comes back, never because a key was pressed: until then a command",
    "is shown as pending with its age. A command goes to the run that was under the cursor when the key was pressed.",
    "Filters after /: words, !not, -f fuzzy, key:value (state:running cap:network layer:policy). Quotes keep spaces.",
)


class HelpScreen(ConsoleScreen):
    ID = "help"
    FILTER_KEYS = ("key", "command", "text")

    def __init__(self, session: Session, desk: Desk) -> None:
        super().__init__(session, desk)
        self.page = DocPane(session, "Help", self._page, id="help-page")

    def body(self) -> Iterable[Pane | Group]:
        yield self.page

    def main_pane(self) -> Pane:
        return self.page

    def _page(self, width: int) -> list[Strip]:
        palette = self.session.palette
        columns = 2 if width >= 150 else 1
        size = width // columns
        here = [action for action in ACTIONS if action.screens is not None and action.on(self.session.helped)]
        blocks = [self._block(f"On the {self.session.helped} screen", here, size)]
        for group in _GROUPS:
            rest = [action for action in ACTIONS if action.group == group and action not in here]
            blocks.append(self._block(group, rest, size))
        if columns == 1:
            lines = [line for block in blocks for line in block]
        else:
            left = [line for block in blocks[:5] for line in block]
            right = [line for block in blocks[5:] for line in block]
            blank = Row(size, palette.base).strip()
            height = max(len(left), len(right))
            left += [blank] * (height - len(left))
            right += [blank] * (height - len(right))
            lines = [Strip([*a, *b], size * 2) for a, b in zip(left, right, strict=True)]
        if not lines:
            lines = [Row(width, palette.base).gap().add("no action is like that: esc shows all", palette.muted).strip()]
        notes = [Row(width, palette.base).gap().add(note, palette.muted).strip() for note in _NOTES]
        return [*lines, *notes]

    def _block(self, title: str, actions: list[Action], width: int) -> list[Strip]:
        """Those of `actions` that the filter leaves, under a title; nothing without any."""
        palette, wanted = self.session.palette, self.session.filter(self.ID)
        found = [action for action in actions if wanted.matches(self._fields(action))]
        if not found:
            return []
        head = Row(width, palette.base).gap().add(title, palette.title).strip()
        return [head, *(self._line(action, width) for action in found), Row(width, palette.base).strip()]

    def _fields(self, action: Action) -> dict[str, str]:
        keys, forms = self.desk.keymap.keys_of(action.id), f":{action.form} {' '.join(action.aliases)}"
        return {"key": keys, "command": forms, "text": f"{keys} {forms} {action.title} {action.help} {action.id}"}

    def _line(self, action: Action, width: int) -> Strip:
        palette = self.session.palette
        keys = self.desk.keymap.keys_of(action.id)
        row = Row(width, palette.base).gap().add(keys, palette.warn, 10).gap()
        row.add(f":{action.form}" + (f" {action.takes.upper()}" if action.takes else ""), palette.info, 20).gap()
        row.add(action.help, palette.base)
        if action.dangerous:
            row.add("  asks first", palette.bad)
        return row.strip()
