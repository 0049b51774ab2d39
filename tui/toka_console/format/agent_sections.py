"""The sections of the Agent screen, each as strips of a width."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.style import Style
from textual.strip import Strip

from toka_console import selectors
from toka_console.format import glyphs, meters, units
from toka_console.format.cells import Row, clip_left, wrap
from toka_runtime.protocol.limits import Strength
from toka_runtime.protocol.states import LIVE, TaskState, Verdict

if TYPE_CHECKING:
    from toka_console.session import Session
    from toka_console.state import AgentEntry
    from toka_runtime.protocol.protections import Badge, Protections
    from toka_runtime.protocol.snapshot import TaskView

_LABEL = 10


def heading(text: str, session: Session, width: int) -> Strip:
    palette = session.palette
    return Row(width, palette.base).gap().add(f"{text} ", palette.heading).fill("─", palette.faint, leave=1).strip()


def fact(label: str, text: str, session: Session, width: int, style: Style | None = None) -> list[Strip]:
    """`LABEL     text`, wrapped under itself."""
    palette = session.palette
    lines: list[Strip] = []
    for piece in wrap(text.replace("\n", " ⏎ "), max(8, width - _LABEL - 3)):
        row = Row(width, palette.base).gap().add(label if not lines else "", palette.muted, _LABEL).gap()
        lines.append(row.add(piece, style or palette.base).strip())
    return lines


def identity(entry: AgentEntry, session: Session, width: int) -> list[Strip]:
    view, spec, palette, now = entry.view, entry.view.spec, session.palette, session.now()
    badge = selectors.badge(view)
    pending = session.state.pending_of(entry.key) if session.state is not None else None
    row = Row(width, palette.base).gap().add(f"{badge.glyph} {badge.word}", palette.role(badge.role))
    row.add(f" since {units.age(view.since, now)}", palette.muted)
    if pending is not None:
        row.add(f"  ⋯ {pending.unknown or pending.text} {units.age(pending.sent_at, now)}", palette.warn)
    lines = [row.strip()]
    why = selectors.why(view)
    if why:
        lines += fact("why", why, session, width, palette.role(badge.role))
    for blocker in view.blockers[1:]:
        lines += fact("", blocker, session, width, palette.muted)
    if view.survivors:
        survivors = ", ".join(map(str, view.survivors))
        lines += fact("survivors", f"UNCONFIRMED: {survivors} still run", session, width, palette.bad)
    title = " · ".join(text for text in (spec.title, spec.domain, spec.priority.value) if text)
    lines += fact("spec", title, session, width)
    lines += fact("run", f"{view.run or 'none'}  attempt {view.attempt}" if view.run else "none", session, width)
    pid = f"{view.process.pid} (start {view.process.started_ticks})" if view.process else "none"
    lines += fact("pid", f"{pid}  worker {view.worker_pid}" if view.worker_pid else pid, session, width)
    lines += fact("host", view.host, session, width)
    if view.workspace_path:
        path = clip_left(view.workspace_path, max(8, width - _LABEL - 3))
        lines += fact(view.workspace_mode or "folder", path, session, width)
    branch = view.branch or spec.git_branch
    commits = f"  {units.plural(view.commits, 'commit')}" if view.commits else ""
    lines += fact("branch", branch + commits, session, width)
    if view.denials:
        lines += fact("denied", f"{units.plural(view.denials, 'denial')} (5 lists them)", session, width, palette.bad)
    return lines


def protections(entry: AgentEntry, session: Session, width: int) -> list[Strip]:
    """What is around its newest run: the six badges, then each with what holds it, why it is not stronger, the fix."""
    view, palette = entry.view, session.palette
    found = view.in_force
    if found is None and not view.protections and view.state not in LIVE:
        return []
    lines = [heading("PROTECTIONS", session, width)]
    if found is None or not found.badges:
        lines += fact("badges", "not known: the host was not probed yet", session, width, palette.muted)
    else:
        lines.append(_badge_row(found, session, width))
    if found is not None and found.unconfined:
        lines += fact("UNCONFINED", found.unconfined, session, width, palette.bad)
    for badge in found.badges if found is not None else ():
        lines += _badge_lines(badge, session, width)
    if view.protections:
        lines += fact("walls", ", ".join(view.protections), session, width, palette.muted)
    if found is not None:
        lines += fact("denials", found.observation.value, session, width, palette.muted)
    return lines


def _badge_row(found: Protections, session: Session, width: int) -> Strip:
    palette = session.palette
    row = Row(width, palette.base).gap()
    if found.tier is not None:
        row.add(f"tier {found.tier.value}", palette.strong).gap()
    for badge in found.badges:
        shown = glyphs.STRENGTH[badge.strength]
        row.add(f"{shown.glyph} {badge.area.value}", palette.role(shown.role)).gap()
    return row.strip()


def _badge_lines(badge: Badge, session: Session, width: int) -> list[Strip]:
    palette, shown = session.palette, glyphs.STRENGTH[badge.strength]
    text = f"{shown.word}: {badge.mechanism}" if badge.mechanism else shown.word
    lines = fact(f"{shown.glyph} {badge.area.value}", text, session, width, palette.role(shown.role))
    if badge.strength is Strength.ENFORCED:
        return lines
    lines += fact("", badge.effect, session, width)
    for label, more in (("because", badge.reason), ("fix", badge.fix)):
        if more:
            lines += fact("", f"{label}: {more}", session, width, palette.muted)
    return lines


def gauges(entry: AgentEntry, session: Session, width: int) -> list[Strip]:
    view, now = entry.view, session.now()
    limits, budget, usage = view.spec.security.limits, view.spec.budget, view.usage
    lines = [heading("AGAINST LIMITS", session, width)]
    alive = view.state in LIVE
    lines.append(_meter("cpu", usage.cpu_fraction, limits.cpu_fraction, units.percent, session, width, alive=alive))
    lines.append(_meter("memory", usage.memory_bytes, limits.memory_bytes, units.size, session, width, alive=alive))
    lines.append(
        _meter("processes", usage.processes, limits.processes, lambda n: str(int(n)), session, width, alive=alive)
    )
    ran = ((view.ended_at or now) - view.started_at).total_seconds() if view.started_at else 0.0
    lines.append(
        _meter("time", ran, limits.timeout_s, units.duration, session, width, alive=view.started_at is not None)
    )
    tokens = view.tokens.total_tokens
    lines.append(_meter("tokens", tokens, budget.max_tokens, lambda n: units.count(int(n)), session, width))
    lines.append(_meter("cost", view.cost_usd, budget.max_cost_usd, lambda n: f"${units.money(n)}", session, width))
    if width >= 40 and alive:
        palette = session.palette
        ceiling = limits.cpu_fraction or max(entry.cpu, default=0.0) or 1.0
        row = Row(width, palette.base).gap().add("", palette.muted, _LABEL).gap()
        lines.append(row.add(meters.spark(entry.cpu, ceiling, width - _LABEL - 4), palette.info).strip())
    return lines


def _meter(
    label: str, value: float, limit: float | None, show: Callable[[float], str], session: Session, width: int,
    alive: bool = True,
) -> Strip:  # fmt: skip
    palette = session.palette
    row = Row(width, palette.base).gap().add(label, palette.muted, _LABEL).gap()
    if not alive:
        return row.add("·", palette.faint).strip()
    if not limit:
        return row.add(show(value)).add("  no limit", palette.faint).strip()
    text = f"{show(value)}/{show(limit)}"
    size = max(4, row.room - 15)
    filled, rest = meters.bar(value / limit, size)
    row.add(filled, palette.meter(value / limit)).add(rest, palette.faint)
    return row.gap().add(text, palette.base, row.room - 1, right=True).strip()


def tasks(entry: AgentEntry, session: Session, width: int) -> list[Strip]:
    view, palette, now = entry.view, session.palette, session.now()
    lines: list[Strip] = []
    for number, task in enumerate(view.tasks, 1):
        badge = glyphs.TASK[task.state]
        note = _task_note(task, now_text=units.age(task.since, now))
        active = number - 1 == view.current_task
        pieces = wrap(task.description, max(10, width - 6))
        for index, piece in enumerate(pieces):
            row = Row(width, palette.base).gap()
            row.add(f"{badge.glyph} {number}" if index == 0 else "", palette.role(badge.role), 4)
            row.add(
                piece,
                palette.strong if active else palette.base if task.state is not TaskState.WAITING else palette.muted,
            )
            lines.append(row.strip())
        if note:
            style = (
                palette.role(glyphs.VERDICT[task.verdict].role)
                if task.verdict is not Verdict.NONE
                else palette.role(badge.role)
            )
            for piece in wrap(note.replace("\n", " ⏎ "), max(10, width - 7))[:3]:
                lines.append(Row(width, palette.base).gap(5).add(piece, style).strip())
    for number, (objective, verdict) in enumerate(zip(view.spec.objectives, view.objectives, strict=False), 1):
        badge = glyphs.VERDICT[verdict]
        if number == 1:
            lines.append(heading("OBJECTIVES", session, width))
        row = Row(width, palette.base).gap().add(badge.glyph, palette.role(badge.role), 2)
        lines.append(row.add(objective.description, palette.muted).strip())
    return lines or [Row(width, palette.muted).gap().add("no tasks").strip()]


def _task_note(task: TaskView, now_text: str) -> str:
    word = glyphs.TASK[task.state].word
    verdict = glyphs.VERDICT[task.verdict].word
    parts = [f"{word}, {verdict}" if verdict else word if task.state is not TaskState.WAITING else ""]
    if task.state in (TaskState.RUNNING, TaskState.VERIFYING, TaskState.RETRYING):
        parts[0] += f" {now_text}"
    if task.attempt > 1:
        parts.append(f"attempt {task.attempt}")
    text = " · ".join(part for part in parts if part)
    return f"{text}: {task.detail}" if task.detail else text


def actions(entry: AgentEntry, session: Session, width: int) -> list[Strip]:
    """Newest first."""
    palette, now = session.palette, session.now()
    lines: list[Strip] = []
    for action in reversed(entry.view.actions):
        badge = glyphs.OUTCOME.get(action.outcome, glyphs.OUTCOME["unknown"])
        took = units.elapsed(action.duration_s) if action.outcome else units.age(action.started_at, now)
        row = Row(width, palette.base).gap().add(units.clock_time(action.started_at), palette.faint).gap()
        row.add(badge.glyph, palette.role(badge.role), 2).add(action.tool, palette.accent).gap()
        row.add(action.target, palette.base, max(0, row.room - 9)).gap().add(took, palette.muted, 7, right=True)
        lines.append(row.strip())
    return lines or [Row(width, palette.muted).gap().add("no tool was used yet").strip()]


def rights(entry: AgentEntry, session: Session, width: int) -> list[Strip]:
    """What its declared capabilities allow."""
    view, palette = entry.view, session.palette
    lines = [heading("RIGHTS", session, width)]
    for text in view.rights.text:
        lines += [Row(width, palette.base).gap().add(piece).strip() for piece in wrap(text, width - 2)]
    for name in view.rights.unknown:
        lines.append(Row(width, palette.base).gap().add(f"{name}: unknown, grants nothing", palette.warn).strip())
    return lines if len(lines) > 1 else []
