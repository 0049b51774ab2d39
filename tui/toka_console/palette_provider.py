"""Textual's palette over the registry: every action that can be done here, with its keys."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider

from toka_console.actions import ACTIONS, Action

if TYPE_CHECKING:
    from toka_console.app import ConsoleApp


class ActionProvider(Provider):
    @property
    def _console(self) -> ConsoleApp:
        return cast("ConsoleApp", self.app)

    def _offered(self) -> list[tuple[Action, str]]:
        app = self._console
        context = app.context()
        return [
            (action, f"{action.title}: {action.help}")
            for action in ACTIONS
            if action.group != "Move" and not action.disabled(context)
        ]

    async def discover(self) -> Hits:
        for action, text in self._offered():
            yield DiscoveryHit(text, partial(self._console.perform, action.id), help=self._hint(action))

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for action, text in self._offered():
            if (score := matcher.match(text)) > 0:
                run = partial(self._console.perform, action.id)
                yield Hit(score, matcher.highlight(text), run, help=self._hint(action))

    def _hint(self, action: Action) -> str:
        keys = self._console.keymap.keys_of(action.id)
        return f":{action.form}   {keys}".rstrip()
