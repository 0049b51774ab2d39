"""What hosts ask while they are attached: it waits until the operator turns to it, and never takes the keys by itself.

What is answered goes to the one who asked and nowhere else: not to the state, not to the history of lines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from toka_console.clean import one_line

if TYPE_CHECKING:
    from toka_console.session import Session
    from toka_runtime.client.questions import OfferedKey, Questions


@dataclass(eq=False)
class Asked:
    """One question of a host."""

    host: str
    """As the operator named it."""
    key: OfferedKey | None = None
    """Whether it can be trusted; None: a secret is asked for."""
    what: str = ""
    shown: bool = False
    """What is typed is no secret."""
    answer: asyncio.Future[str | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """None: none is given. Any text but "" trusts a key."""

    @property
    def text(self) -> str:
        return "is not known: can its key be trusted?" if self.key is not None else f"asks for {self.what}"

    def give(self, answer: str | None) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)


class Waiting:
    """Questions of all hosts, the oldest first; they stand in `session.asked`."""

    def __init__(self, session: Session, changed: Callable[[], None]) -> None:
        self._session = session
        self._changed = changed

    def of(self, host: str) -> Questions:
        return _OfHost(host, self._wait)

    async def _wait(self, asked: Asked) -> str | None:
        self._session.asked.append(asked)
        self._changed()
        try:
            return await asked.answer
        finally:
            # Answered, or the connection has ended: whoever still sees the question answers nobody.
            self._session.asked.remove(asked)
            self._changed()


class _OfHost:
    """`Questions` of one host."""

    def __init__(self, host: str, wait: Callable[[Asked], Awaitable[str | None]]) -> None:
        self._host = host
        self._wait = wait

    async def trust(self, key: OfferedKey) -> bool:
        return bool(await self._wait(Asked(self._host, key)))

    async def secret(self, what: str, *, shown: bool = False) -> str | None:
        return await self._wait(Asked(self._host, what=one_line(what), shown=shown))


def first(session: Session, host: str = "") -> Asked | None:
    """The oldest question; of one host, when it is named."""
    return next((each for each in session.asked if host in ("", each.host)), None)


def summary(session: Session) -> str:
    """For the header; "" when nobody asks."""
    found = first(session)
    if found is None:
        return ""
    more = f" (+{len(session.asked) - 1})" if len(session.asked) > 1 else ""
    return f"{found.host} asks{more} :answer"
