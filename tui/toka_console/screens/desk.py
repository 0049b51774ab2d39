"""What a screen asks of the app that shows it. The app is one; tests may use another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from toka_console.actions import Context
from toka_console.keymap import Keymap
from toka_console.typed import LineKind

if TYPE_CHECKING:
    from toka_console.bridge import Bridge
    from toka_console.links import Links


class Desk(Protocol):
    @property
    def keymap(self) -> Keymap: ...

    @property
    def bridge(self) -> Bridge | None:
        """That of the host which is looked at; None until a runtime is open."""
        ...

    @property
    def links(self) -> Links:
        """All hosts."""
        ...

    def context(self) -> Context:
        """What actions are judged by now."""
        ...

    def press(self, key: str) -> None:
        """A key that no open line or dialog took: do what the keymap says."""
        ...

    def perform(self, action: str, argument: str = "") -> None:
        """Do an action by id, or say why not."""
        ...

    def entered(self, kind: LineKind, text: str) -> None:
        """A `:` or `/` line was confirmed."""
        ...
