"""From state to what is shown: rows and their order, filters, the frozen target of a command, alerts. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from toka_console import approvals
from toka_console.format import glyphs
from toka_console.format.glyphs import Badge
from toka_console.format.units import age, duration, plural
from toka_console.identity import AgentKey
from toka_runtime.protocol.states import LIVE, AgentState, StopReason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from toka_console.entries import Activity, AgentEntry, DenialEntry
    from toka_console.filters import Filter
    from toka_console.state import ConsoleState
    from toka_runtime.protocol.ids import RunRef
    from toka_runtime.protocol.snapshot import AgentView

DENIAL_FILTER_KEYS = ("agent", "host", "layer", "operation", "target", "cap", "rule", "text")

# Trouble first; within a rank by name, so that rows stay where they are.
_RANK = {
    AgentState.FAILED: 1,
    AgentState.KILLED: 2,
    AgentState.PAUSED: 4,
    AgentState.STOPPING: 5,
    AgentState.RUNNING: 6,
    AgentState.STARTING: 7,
    AgentState.PENDING: 8,
    AgentState.SKIPPED: 10,
    AgentState.COMPLETED: 11,
}
LIMIT_SHOWN_S = 300.0
"""How long a reached limit is in the alert line."""
WAITING = _RANK[AgentState.PENDING]
"""From this rank on nothing of an agent runs."""
WELL = _RANK[AgentState.RUNNING]
"""From this rank on there is no trouble."""
FIRST = 0
"""The rank of what is worst: what survived a kill, and spec files that were rejected."""
_ASKING_RANK = 3
_LOADED_RANK = 9


def rank(view: AgentView) -> int:
    if view.survivors:
        return FIRST
    if view.state is AgentState.PENDING and not view.requested:
        return _LOADED_RANK
    if view.approvals and view.state is not AgentState.PAUSED:
        return _ASKING_RANK
    return _RANK[view.state]


def badge(view: AgentView) -> Badge:
    if view.state is AgentState.PENDING and not view.requested:
        return glyphs.LOADED
    if view.frozen_ms is not None:
        return glyphs.FROZEN
    return glyphs.ASKING if view.approvals and view.state is AgentState.RUNNING else glyphs.AGENT[view.state]


def why(view: AgentView) -> str:
    """The reason beside the state, for people; "" where the state says it all."""
    if view.survivors:
        return f"UNCONFIRMED {plural(len(view.survivors), 'survivor')}"
    if view.state is AgentState.PENDING:
        return f"waits for {view.blockers[0]}" if view.blockers else ""
    if view.approvals:
        asked = f"{view.approvals[0].request.tool} waits for approval"
        return f"{asked}, its time stands still" if view.state is AgentState.PAUSED else asked
    reason = view.reason.value.replace("_", " ")
    if view.frozen_ms is not None and view.reason is StopReason.OPERATOR:
        return f"in {view.frozen_ms:.1f} ms, {reason}"
    if view.state is AgentState.PAUSED and "UNCONFIRMED" in view.detail:
        return view.detail
    if view.reason in (StopReason.NONE, StopReason.OPERATOR) or not view.detail:
        return view.detail if view.reason is StopReason.NONE else reason
    return f"{reason}: {view.detail}"


def progress(view: AgentView) -> tuple[int, int]:
    """(task in work or done, tasks): what `TASK i/n` shows."""
    current = view.current_task
    return (view.tasks_done if current is None else current + 1), len(view.tasks)


def quota_wait(view: AgentView, now: datetime) -> str:
    """`quota 12 s` while its model call waits because the provider slows everybody down; else ""."""
    if view.quota_at is None or view.quota_at <= now or view.state is not AgentState.RUNNING:
        return ""
    return f"quota {ceil((view.quota_at - now).total_seconds())} s"


def last_action(view: AgentView, now: datetime) -> str:
    if view.state in LIVE and (unwell := last_health(view, now)):
        return unwell
    if view.model_call_since is not None and view.state is AgentState.RUNNING:
        if quota := quota_wait(view, now):
            return f"waiting for {quota}"
        return f"thinking {duration((now - view.model_call_since).total_seconds())}"
    return view.last_activity


def running_for(view: AgentView, now: datetime) -> str:
    """AGE: since the start of the run, until its end."""
    return age(view.started_at, view.ended_at or now)


# -- the target of a command --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """What was under the cursor when a key was pressed: the command goes to this, whatever moves meanwhile."""

    key: AgentKey
    ref: RunRef
    state: AgentState
    processes: int
    worker_pid: int

    @property
    def text(self) -> str:
        """`name` on `host`, run and pid: how dialogs name it."""
        return f"{self.key.name} on {self.key.host}"

    @property
    def pid(self) -> str:
        return str(self.ref.process.pid) if self.ref.process else "none"

    @property
    def run(self) -> str:
        return self.ref.run or "none"


def freeze(entry: AgentEntry) -> Target:
    from toka_runtime.protocol.ids import RunRef

    view = entry.view
    ref = RunRef(host=view.host, agent=view.name, run=view.run, process=view.process)
    return Target(entry.key, ref, view.state, view.usage.processes, view.worker_pid)


def live_targets(state: ConsoleState) -> list[Target]:
    return [freeze(entry) for entry in state.agents.values() if entry.view.state in LIVE or entry.view.survivors]


# -- who waits for whom -------------------------------------------------------------------------------------------


class Neighbour(NamedTuple):
    relation: str
    """`needs` (the agent waits for it) or `needed by` (it waits for the agent)."""
    name: str
    key: AgentKey | None
    """None: there is no such agent on its host."""
    state: str
    reason: str


def neighbours(state: ConsoleState, entry: AgentEntry) -> list[Neighbour]:
    """What an agent waits for as its spec says, then who waits for it."""
    found: list[Neighbour] = []
    for dependency in entry.view.spec.dependencies:
        key = AgentKey(entry.key.host, dependency.agent)
        other = state.agents.get(key)
        word = badge(other.view).word if other is not None else "no such agent"
        found.append(Neighbour("needs", dependency.agent, key if other else None, word, dependency.reason))
    for key, other in sorted(state.agents.items()):
        if key.host == entry.key.host:
            found += [
                Neighbour("needed by", key.name, key, badge(other.view).word, dependency.reason)
                for dependency in other.view.spec.dependencies
                if dependency.agent == entry.key.name
            ]
    return found


# -- alerts and denials -------------------------------------------------------------------------------------------


class Alert(NamedTuple):
    text: str
    bad: bool


def alert(state: ConsoleState, now: datetime) -> Alert | None:
    """The one line that says what is wrong, worst first; None when nothing is."""
    from toka_console import budgets, trouble
    from toka_console.format import budget_text

    parts: list[str] = []
    bad = False
    if asked := approvals.summary(state, now):
        parts.append(f"{asked} (6 shows them)")
    for name, host in state.hosts.items():
        link = host.link
        if link.state.value in ("down", "connecting", "stale"):
            last = f", last seen {age(host.last_seen, now)} ago"
            parts.append(f"{name}: link {link.state.value}{last} {link.detail}".rstrip())
            bad = True
        elif host.fleet.stopped:
            parts.append(f"{name}: the runtime has stopped")
    failed = _entries(state, state.tally.in_state[AgentState.FAILED])
    unconfirmed = _entries(state, state.tally.survived)
    rejected = sum(len(host.fleet.rejected) for host in state.hosts.values())
    if unconfirmed:
        parts.append(f"{plural(len(unconfirmed), 'kill')} UNCONFIRMED: {_names(unconfirmed)}")
    if failed:
        newest = max(failed, key=lambda entry: entry.view.since)
        parts.append(f"{len(failed)} failed: {newest.key.name} {why(newest.view)} {age(newest.view.since, now)} ago")
    if (limit := newest_limit(state, now)) is not None and limit.key is not None:
        parts.append(f"{limit.key.name}: {limit.text}")
    if unwell := _entries(state, state.tally.unwell):
        newest = max(unwell, key=lambda entry: entry.view.health.since if entry.view.health else now)
        more = f" (+{len(unwell) - 1} more)" if len(unwell) > 1 else ""
        parts.append(f"{newest.key.name} {last_health(newest.view, now)}{more}")
    if figures := budgets.warnings(state, now):
        more = f" (+{len(figures) - 1} more)" if len(figures) > 1 else ""
        parts.append(budget_text.warning(figures[0]) + more)
    if news := trouble.news(state, now):
        worst, more = news[0], f" (+{len(news) - 1} more)" if len(news) > 1 else ""
        count = plural(worst.entry.view.denials, "denial")
        parts.append(f"{worst.entry.key.name}: {count}, the last {age(worst.at, now)} ago{more} (. finds it)")
    if rejected:
        parts.append(f"{plural(rejected, 'spec')} rejected")
    bad = bad or bool(failed or unconfirmed or rejected)
    for host in state.hosts.values():
        for notice in host.fleet.notices[-1:]:
            if notice.level.value != "info":
                parts.append(f"{notice.message} ({notice.hint})" if notice.hint else notice.message)
                bad = bad or notice.level.value == "error"
    if paused := state.tally.in_state[AgentState.PAUSED]:
        parts.append(f"{len(paused)} paused")
    if state.tally.denials and parts and not news:
        parts.append(plural(state.tally.denials, "denial"))
    return Alert("  ·  ".join(parts), bad) if parts else None


def last_health(view: AgentView, now: datetime) -> str:
    """What is wrong with how it gets on; "" when nothing is."""
    return view.health.text(now) if view.health is not None else ""


def newest_limit(state: ConsoleState, now: datetime) -> Activity | None:
    """The breach of a limit that is still news."""
    newest = max(state.limits_reached.values(), key=lambda reached: reached.at, default=None)
    return newest if newest is not None and (now - newest.at).total_seconds() < LIMIT_SHOWN_S else None


def _entries(state: ConsoleState, keys: Collection[AgentKey]) -> list[AgentEntry]:
    return [state.agents[key] for key in sorted(keys)]


def _names(entries: Iterable[AgentEntry]) -> str:
    return ", ".join(entry.key.name for entry in entries)


def denial_rows(state: ConsoleState, chosen: Filter | None = None) -> Sequence[DenialEntry]:
    """Newest first."""
    rows = list(reversed(state.denials))
    return rows if not chosen else [row for row in rows if chosen.matches(denial_fields(row))]


def denial_fields(row: DenialEntry) -> dict[str, str]:
    denial = row.denial
    operation = denial.operation
    return {
        "agent": row.key.name,
        "host": row.key.host,
        "layer": denial.layer.value,
        "operation": operation.kind.value,
        "target": operation.target,
        "cap": denial.capability,
        "rule": denial.rule,
        "text": f"{row.key.name} {denial.layer.value} {operation.kind.value} {operation.target} {denial.capability} "
        f"{denial.rule} {denial.reason}",
    }
