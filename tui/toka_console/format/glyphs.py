"""Glyph, word and colour role of each state: any one of the three alone is enough to read it."""

from __future__ import annotations

from typing import NamedTuple

from toka_runtime.protocol.states import AgentState, TaskState, Verdict


class Badge(NamedTuple):
    glyph: str
    word: str
    role: str
    """Attribute of `themes.Palette`."""


AGENT: dict[AgentState, Badge] = {
    AgentState.PENDING: Badge("○", "PENDING", "muted"),
    AgentState.STARTING: Badge("◐", "STARTING", "info"),
    AgentState.RUNNING: Badge("●", "RUNNING", "good"),
    AgentState.PAUSED: Badge("‖", "PAUSED", "warn"),
    AgentState.STOPPING: Badge("▼", "STOPPING", "warn"),
    AgentState.COMPLETED: Badge("✓", "COMPLETED", "done"),
    AgentState.FAILED: Badge("✗", "FAILED", "bad"),
    AgentState.KILLED: Badge("■", "KILLED", "killed"),
    AgentState.SKIPPED: Badge("⊘", "SKIPPED", "muted"),
}
REJECTED = Badge("✗", "REJECTED", "bad")
ASKING = Badge("◇", "PENDING approval", "warn")
"""Its call waits for an operator."""
FROZEN = Badge("‖", "FROZEN", "warn")
"""Paused, and the kernel has confirmed that the whole tree stands still."""
LOADED = Badge("·", "LOADED", "muted")
"""Known, and not asked to start."""

TASK: dict[TaskState, Badge] = {
    TaskState.WAITING: Badge("○", "waiting", "muted"),
    TaskState.RUNNING: Badge("●", "running", "good"),
    TaskState.VERIFYING: Badge("◐", "verifying", "info"),
    TaskState.DONE: Badge("✓", "done", "done"),
    TaskState.FAILED: Badge("✗", "failed", "bad"),
    TaskState.RETRYING: Badge("↻", "retrying", "warn"),
    TaskState.SKIPPED: Badge("⊘", "skipped", "muted"),
}

VERDICT: dict[Verdict, Badge] = {
    Verdict.NONE: Badge("·", "", "muted"),
    Verdict.VERIFIED: Badge("✓", "verified", "good"),
    Verdict.CLAIMED: Badge("~", "claimed", "warn"),
    Verdict.FAILED: Badge("✗", "failed", "bad"),
    Verdict.INCONCLUSIVE: Badge("?", "inconclusive", "warn"),
}

OUTCOME: dict[str, Badge] = {
    "": Badge("◐", "running", "info"),
    "ok": Badge("✓", "ok", "good"),
    "error": Badge("✗", "error", "bad"),
    "denied": Badge("⊘", "denied", "bad"),
    "cancelled": Badge("■", "cancelled", "warn"),
    "unknown": Badge("?", "unknown", "warn"),
}

STRENGTH: dict[str, Badge] = {
    "enforced": Badge("●", "enforced", "good"),
    "approximate": Badge("◐", "approximate", "warn"),
    "none": Badge("○", "none", "bad"),
}
"""How well something is held, by `limits.Strength`, which the first frame does without."""
