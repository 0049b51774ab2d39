"""Limits: which there are, what holds each of them on this host, and what is told when one is reached."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from toka_runtime.protocol.limit_name import LimitName
from toka_runtime.protocol.model import Model


class Strength(StrEnum):
    ENFORCED = "enforced"
    """The kernel, or the runtime itself, holds it, for all of the agent's processes."""
    APPROXIMATE = "approximate"
    """It holds in part: a reason says which."""
    NONE = "none"


class OnLimit(StrEnum):
    """What happens to an agent that reaches a limit which it cannot stay within (memory, disk)."""

    KILL = "kill"
    PAUSE = "pause"


class LimitInForce(Model):
    limit: LimitName
    figure: float
    """In the limit's unit."""
    declared: bool
    """Its spec asks for it; False: a default of the runtime."""
    strength: Strength
    mechanism: str
    """What holds it ("" when nothing does), e.g. `cgroup v2 memory.max`."""
    reason: str = ""
    """Why it is not stronger. "" when enforced."""


class LimitOutcome(StrEnum):
    """What holding the limit meant at once. What becomes of the agent is a state change of its own."""

    KILLED = "killed"
    """The kernel killed a process of the agent."""
    REFUSED = "refused"
    """A process was not given what it asked for, and goes on without."""
    SLOWED = "slowed"
    """The agent runs on, held back."""
    EXCEEDED = "exceeded"
    """Nothing stopped it: the runtime found the agent above it and acts."""


class Culprit(Model):
    """The process that reached the limit."""

    pid: int
    """As the kernel numbers it."""
    command: str
    memory_bytes: int = 0
    """0: not known."""
    known_by: Literal["kernel", "sample"]
    """`sample`: the one that used most when the tree was last looked at."""


def figure_text(limit: LimitName, figure: float) -> str:
    """A figure with its unit, for people: `256 MiB`, `0.75 cores`, `48`."""
    match limit:
        case LimitName.CPU:
            return f"{figure:g} cores"
        case LimitName.TIMEOUT:
            return f"{figure:g} s"
        case LimitName.PROCESSES | LimitName.DESCRIPTORS:
            return f"{figure:.0f}"
        case LimitName.NETWORK:
            return f"{_size(figure)}/s"
        case _:
            return _size(figure)


def _size(figure: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if figure < 1024:
            return f"{figure:.4g} {unit}"
        figure /= 1024
    return f"{figure:.4g} GiB"
