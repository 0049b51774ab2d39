"""The table of handlers: what each action of the registry does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from toka_console.actions import BY_ID, Context

if TYPE_CHECKING:
    from toka_console.app import ConsoleApp

Handler = Callable[["ConsoleApp", Context, str], None]
HANDLERS: dict[str, Handler] = {}


def handles(*actions: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        for action in actions:
            HANDLERS[BY_ID[action].id] = handler
        return handler

    return register
