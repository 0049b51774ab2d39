"""The sections of the Agent screen, each as strips of a width."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from rich.style import Style
from textual.strip import Strip

from toka_console import approvals, budgets, selectors
from toka_console.format import budget_text, glyphs, meters, units
from toka_console.format.cells import Row, clip_left, wrap
from toka_runtime.protocol.limits import Strength, figure_text
from toka_runtime.protocol.states import LIVE, TaskState, Verdict

if TYPE_CHECKING:
    from toka_console.entries import AgentEntry
    from toka_console.session import Session
    from toka_runtime.protocol.limits import LimitInForce
    from toka_runtime.protocol.protections import Badge, Protections
    from toka_runtime.protocol.snapshot import TaskView

_LABEL = 10
_LIMIT_LABELS = {"timeout": "time", "descriptors": "open files", "file_size": "file size"}


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
    for asked in view.approvals:
        wanted = f"{asked.request.tool} {asked.request.denials[0].operation.target}"
        text = f"{wanted}, {approvals.left(asked.countdown, now)} left (6 answers)"
        lines += fact("asks", text, session, width, palette.warn)
    for held in view.grants:
        text = f"{held.grant.text} ({approvals.expiry(held, now)}, used ×{held.uses})"
        lines += fact("granted", text, session, width, palette.warn)
    if view.limits_reached:
        lines += fact("limits", f"reached {units.plural(view.limits_reached, 'time')}", session, width, palette.warn)
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
    """What it uses of each limit; once a run has begun, with what holds the limit here and how well."""
    view, now, palette = entry.view, session.now(), session.palette
    lines = [heading("AGAINST LIMITS", session, width)]
    alive, ran = view.state in LIVE, 0.0
    if view.started_at is not None:
        ran = ((view.ended_at or now) - view.started_at).total_seconds()
    declared, usage = view.spec.security.limits, view.usage
    used: dict[str, tuple[float, float | None, Callable[[float], str]]] = {
        "cpu": (usage.cpu_fraction, declared.cpu_fraction, units.percent),
        "memory": (usage.memory_bytes, declared.memory_bytes, units.size),
        # A limit on processes counts their threads.
        "processes": (max(usage.processes, usage.threads), declared.processes, lambda number: str(int(number))),
        "timeout": (ran, declared.timeout_s, units.duration),
    }
    held = {limit.limit.value: limit for limit in view.limits}
    for name, (value, limit, show) in used.items():
        known = alive if name != "timeout" else view.started_at is not None
        most = held[name].figure if name in held else limit
        lines.append(_meter(_LIMIT_LABELS.get(name, name), value, most, show, session, width, alive=known))
        if name == "cpu" and width >= 40 and alive:
            row = Row(width, palette.base).gap().add("", palette.muted, _LABEL).gap()
            ceiling = most or max(entry.cpu, default=0.0) or 1.0
            lines.append(row.add(meters.spark(entry.cpu, ceiling, width - _LABEL - 4), palette.info).strip())
        if name in held:
            lines += _holding(held[name], session, width)
    for name, limit in held.items():
        if name not in used:
            lines += fact(_LIMIT_LABELS.get(name, name), figure_text(limit.limit, limit.figure), session, width)
            lines += _holding(limit, session, width)
    return lines


def _holding(limit: LimitInForce, session: Session, width: int) -> list[Strip]:
    """`● enforced: cgroup v2 memory.max`, and why it is not stronger."""
    badge = glyphs.STRENGTH[limit.strength.value]
    by = ": ".join(text for text in (f"{badge.glyph} {badge.word}", limit.mechanism) if text)
    default = "" if limit.declared else "  (default)"
    why = f", {limit.reason}" if limit.reason else ""
    return fact("", f"{by}{why}{default}", session, width, session.palette.role(badge.role))


def money(entry: AgentEntry, session: Session, width: int) -> list[Strip]:
    """What was spent of which budget, how fast, and when the cap is reached."""
    host = session.known.hosts.get(entry.key.host)
    if host is None:
        return []
    palette, now = session.palette, session.now()
    lines = [heading("BUDGETS", session, width)]
    for index, each in enumerate((*budgets.of_agent(host, entry.view), *budgets.of_fleet(host, now))):
        if index and not each.figures:
            continue
        scope, spent, cap = each.account.scope.value, each.spent, each.cap
        for what, used, most in (
            ("tokens", spent.tokens, cap.max_tokens),
            ("cost_usd", spent.cost_usd, cap.max_cost_usd),
        ):
            if index and most is None:
                continue
            show = partial(budget_text.amount, what)
            lines.append(_meter(f"{scope} {'$' if what == 'cost_usd' else 'tok'}", used, most, show, session, width))
        if spent.unpriced_tokens:
            text = f"unpriced: {spent.unpriced_tokens:,} tokens, of models without a known price"
            lines += fact("", text, session, width, palette.warn)
        rate = budget_text.burn(*spent.burn(now))
        pace = "  ".join(text for text in (rate, budget_text.reached(spent.reached_in_s(cap, now))) if text)
        if pace:
            lines += fact("", pace, session, width, palette.muted)
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
