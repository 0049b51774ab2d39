"""Finds agents that go round in circles, from what they did and what came of it. Pure: no clock, no I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from toka_runtime.protocol.health import HealthReason

MAX_PERIOD = 4
"""The longest round of actions that is looked for."""
_KEPT_ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Act:
    """One tool call that has ended. Acts are the same when `action` and `result` are."""

    action: str
    """Digest of the tool and all its arguments."""
    result: str
    """Digest of the outcome and what came back."""
    shown: str
    """`read_file docs/a.md`: for people, and, with `denied`, what was refused."""
    denied: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    reason: HealthReason
    count: int
    """How often, so far."""
    evidence: tuple[str, ...] = ()


class StuckDetector:
    """Told of every turn and every act of a run, in order. A finding stands until the agent does something, or learns
    something, that is new; then all starts afresh."""

    def __init__(self, repeats: int) -> None:
        """`repeats` ≥ 2."""
        self._repeats = repeats
        self._acts: deque[Act] = deque(maxlen=repeats * MAX_PERIOD * _KEPT_ROUNDS)
        self._text = ""
        self._same_texts = 0
        self._silent_turns = 0
        self.finding: Finding | None = None
        self.lasting = 0
        """Turns and acts since the finding, that change nothing."""
        self.findings = 0
        """How often it got stuck so far."""

    def act(self, act: Act) -> None:
        """A tool call has ended."""
        self._silent_turns = 0
        if not any((act.action, act.result) == (other.action, other.result) for other in self._acts):
            self._same_texts = 0
            if self.finding is not None:
                self._forget()
        self._acts.append(act)
        self._conclude(self._round() or self._denials(act))

    def turn(self, text: str, tools: int) -> None:
        """The model has ended a turn that asks for so many tools. `text`: a digest of what it said, "" for nothing."""
        self._silent_turns = 0 if tools else self._silent_turns + 1
        self._same_texts = self._same_texts + 1 if text and text == self._text else 1
        self._text = text
        most = max(self._silent_turns, self._same_texts if text else 0)
        self._conclude(Finding(HealthReason.MONOLOGUE, most) if most >= self._repeats else None)

    def reset(self) -> None:
        """An operator has stepped in: what was is no evidence any more."""
        self._forget()
        self.findings = 0

    def _forget(self) -> None:
        self._acts.clear()
        self._text, self._same_texts, self._silent_turns = "", 0, 0
        self.finding, self.lasting = None, 0

    def _conclude(self, found: Finding | None) -> None:
        if self.finding is not None:
            self.lasting += 1
        elif found is not None:
            self.findings += 1
        self.finding = found or self.finding

    def _round(self) -> Finding | None:
        acts = list(self._acts)
        for period in range(1, MAX_PERIOD + 1):
            times = rounds(acts, period)
            if times >= self._repeats:
                reason = HealthReason.REPEATED_ACTION if period == 1 else HealthReason.ALTERNATING
                return Finding(reason, times, tuple(act.shown for act in acts[-period:]))
        return None

    def _denials(self, last: Act) -> Finding | None:
        """The same thing refused again and again, whatever was done in between."""
        if not last.denied:
            return None
        times = sum(act.denied and act.shown == last.shown for act in self._acts)
        return Finding(HealthReason.REPEATED_DENIAL, times, (last.shown,)) if times >= self._repeats else None


def rounds(acts: Sequence[Act], period: int) -> int:
    """How often the last `period` acts have come one after the other, up to the end."""
    steps = [(act.action, act.result) for act in acts]
    last, times = steps[-period:], 0
    start = len(steps) - period
    while start >= 0 and steps[start : start + period] == last:
        times += 1
        start -= period
    return times
