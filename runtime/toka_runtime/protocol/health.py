"""Whether an agent gets on with its work: what a spec asks to be watched, and what was found."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from toka_runtime.protocol.model import Model


class OnStuck(StrEnum):
    """What becomes of an agent that goes round in circles, also after it was told so."""

    WARN = "warn"
    PAUSE = "pause"
    FAIL = "fail"


class HealthPolicy(Model):
    stall_after_s: float = 180.0
    """RUNNING without a sign of progress for so long is a stall."""
    repeats: int = 4
    """The same step, or the same round of steps, with the same result so often is being stuck."""
    on_stuck: OnStuck = OnStuck.WARN


class HealthLevel(StrEnum):
    OK = "ok"
    STALLED = "stalled"
    """Nothing is heard from what it waits for."""
    STUCK = "stuck"
    """It is busy, and gets nowhere."""
    CRASH_LOOP = "crash loop"
    """It died so often that it is not started again by itself."""


class HealthReason(StrEnum):
    NONE = ""
    MODEL_SILENT = "model silent"
    TOOL_SILENT = "tool silent"
    AGENT_SILENT = "agent silent"
    REPEATED_ACTION = "same action, same result"
    ALTERNATING = "same round of actions"
    MONOLOGUE = "talks without acting"
    REPEATED_DENIAL = "denied again and again"
    DEATHS = "its processes die"


class Health(Model):
    """`text` is for people; what agents or their programs wrote is in `subject` and `evidence` as it was."""

    level: HealthLevel
    reason: HealthReason = HealthReason.NONE
    since: datetime
    """STALLED: of the last sign of progress. Else: when it was found."""
    subject: str = ""
    """The tool that is silent."""
    count: int = 0
    """How often it was repeated, or how often it died."""
    evidence: tuple[str, ...] = ()
    """The actions of the round, in order; or what was seen of each death."""

    def text(self, now: datetime) -> str:
        """`stalled 3m: tool run_command silent`."""
        age = age_text((now - self.since).total_seconds())
        if self.level is HealthLevel.STALLED:
            silent = f"{self.subject} silent" if self.subject else self.reason.value
            return f"{self.level} {age}: {silent}"
        times = f" {self.count} times" if self.count else ""
        seen = f": {'; '.join(self.evidence)}" if self.evidence else ""
        return f"{self.level}: {self.reason}{times}{seen}" if self.reason else self.level.value


def age_text(seconds: float) -> str:
    """`45s`, `3m`, `2h`."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"
