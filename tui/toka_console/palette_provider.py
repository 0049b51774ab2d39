"""Textual's palette over the registry: every action with its keys, and why it cannot be done now."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

from toka_console.actions import ACTIONS, Action

if TYPE_CHECKING:
    from toka_console.app import ConsoleApp


class ActionProvider(Provider):
    @property
    def _console(self) -> ConsoleApp:
        return cast("ConsoleApp", self.app)

    def _offered(self) -> list[tuple[Action, str]]:
        """Actions and their lines, first those that can be done now; the others say why not."""
        context = self._console.context()
        can: list[tuple[Action, str]] = []
        cannot: list[tuple[Action, str]] = []
        for action in ACTIONS:
            if action.group == "Move":
                continue
            text = f"{action.title}: {action.help}"
            if reason := action.disabled(context):
                cannot.append((action, f"{text} (not now: {reason})"))
            else:
                can.append((action, text))
        return [*can, *cannot]

    async def discover(self) -> Hits:
        for action, text in self._offered():
            # A plain text would be taken for markup.
            yield DiscoveryHit(Content(text), partial(self._console.perform, action.id), text, self._hint(action))

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for action, text in self._offered():
            if (score := matcher.match(text)) > 0:
                run = partial(self._console.perform, action.id)
                yield Hit(score, matcher.highlight(text), run, help=self._hint(action))

    def _hint(self, action: Action) -> str:
        keys = self._console.keymap.keys_of(action.id)
        return f":{action.form}   {keys}".rstrip()
