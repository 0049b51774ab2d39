"""What only a person can answer while a connection is made. Knows nothing of SSH's own library."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class OfferedKey:
    """The key with which a host shows itself."""

    host: str
    """As known_hosts names it."""
    kind: str
    fingerprint: str
    """SHA256:…"""
    line: str
    """For known_hosts."""
    art: str
    """The fingerprint as a picture of several lines, as `ssh -o VisualHostKey=yes` shows it; "" when there is none."""


class Questions(Protocol):
    """What only a person can answer."""

    async def trust(self, key: OfferedKey) -> bool:
        """Whether a host that is not known yet is to be known by this key from now on."""
        ...

    async def secret(self, what: str, *, shown: bool = False) -> str | None:
        """A passphrase, password or code; `what` says whose. None: none is given. `shown`: no secret, may be seen."""
        ...


class NobodyToAsk:
    """Where no person is: what is not known is refused."""

    async def trust(self, key: OfferedKey) -> bool:
        return False

    async def secret(self, what: str, *, shown: bool = False) -> str | None:
        return None


class Patient:
    """Questions for a person, who may take their time: the clock of the connection stands still meanwhile."""

    def __init__(self, questions: Questions, most_s: float) -> None:
        """`most_s`: what the connection gets after an answer."""
        self._questions = questions
        self._most_s = most_s
        self.limit: asyncio.Timeout | None = None

    async def trust(self, key: OfferedKey) -> bool:
        with self._waiting():
            return await self._questions.trust(key)

    async def secret(self, what: str, *, shown: bool = False) -> str | None:
        with self._waiting():
            return await self._questions.secret(what, shown=shown)

    @contextmanager
    def _waiting(self) -> Generator[None]:
        if self.limit is None:
            yield
            return
        self.limit.reschedule(None)
        try:
            yield
        finally:
            self.limit.reschedule(asyncio.get_running_loop().time() + self._most_s)
