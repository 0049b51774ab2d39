"""What has come from a host and is not folded yet: facts in order, and of every figure the newest alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import get_args

from toka_runtime.client.base import Resync
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.ids import AgentName

Item = ev.Envelope | Resync
_Figure = tuple[type[ev.Event], AgentName | None]
"""The kind of a sample, and whose it is."""
_KNOWN: tuple[type[ev.Event], ...] = get_args(get_args(ev.KnownEvent)[0])
_SAMPLES = frozenset(kind for kind in _KNOWN if kind.delivery is ev.Delivery.LATEST)
"""Figures that the next one of the same kind replaces."""


class Inbox:
    """Samples wait apart until `release`, or until a fact of the same agent comes after them: so what one agent did
    and used stays in order, and samples that nobody would see are never folded. Its length is what is due now."""

    def __init__(self) -> None:
        self._due: deque[Item] = deque()
        self._figures: dict[_Figure, ev.Envelope] = {}
        self._passed_over = 0

    def __len__(self) -> int:
        return len(self._due)

    @property
    def holds_figures(self) -> bool:
        """Whether samples wait for `release`."""
        return bool(self._figures)

    def add(self, batch: Iterable[ev.Envelope]) -> bool:
        """Take in what has come; whether there was more than samples."""
        figures, facts = self._figures, False
        for envelope in batch:
            kind = type(envelope.event)
            if kind in _SAMPLES and not envelope.durable:
                key = (kind, envelope.agent)
                if key in figures:
                    self._passed_over += 1
                figures[key] = envelope
                continue
            facts = True
            if (held := figures.pop((ev.AgentSampled, envelope.agent), None)) is not None:
                self._due.append(held)
            self._due.append(envelope)
        return facts

    def resync(self, resync: Resync) -> None:
        """The state as a whole: samples from before it are older."""
        self._passed_over += len(self._figures)
        self._figures.clear()
        self._due.append(resync)

    def release(self) -> None:
        """What waits apart is due now."""
        self._due.extend(self._figures.values())
        self._figures.clear()

    def take(self, most: int) -> list[ev.Envelope] | Resync:
        """Up to `most` envelopes, oldest first, or one resync; [] when nothing is due."""
        batch: list[ev.Envelope] = []
        while self._due and len(batch) < most:
            if isinstance(item := self._due[0], Resync):
                if not batch:
                    self._due.popleft()
                    return item
                break
            batch.append(item)
            self._due.popleft()
        return batch

    def passed_over(self) -> int:
        """Samples that newer ones replaced since this was asked last."""
        count, self._passed_over = self._passed_over, 0
        return count
