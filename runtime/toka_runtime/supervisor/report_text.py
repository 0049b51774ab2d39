"""What a report says: Markdown, one page, with every figure that the runtime has and none that it has not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from toka_runtime.protocol.snapshot import AgentView
from toka_runtime.protocol.states import Verdict
from toka_runtime.supervisor.text import one_line
from toka_runtime.supervisor.verify import summarise

_CELL = 300
NOT_MEASURED = "not measured by the runtime"

MetricValue = Callable[[AgentView, datetime], str]


def report_text(view: AgentView, now: datetime, cause: str) -> str:
    """`cause` is the state an agent ended in, a frequency, or how many tasks are over (`3-of-8`)."""
    spec = view.spec
    title = spec.title or spec.name
    blocks = [
        f"# {_plain(title)}: {cause.replace('-', ' ')}",
        _table(("", ""), _facts(view, now)),
        f"## Tasks: {view.tasks_done} of {len(view.tasks)} done, {view.tasks_verified} verified",
        _table(("#", "task", "state", "verdict", "attempts", "result"), _tasks(view)),
    ]
    if spec.objectives:
        blocks += ["## Objectives", _table(("#", "objective", "verdict"), _objectives(view))]
    blocks += ["## Use", _table(("", ""), _use(view))]
    if spec.reporting.metrics:
        blocks += ["## Metrics", _table(("metric", "value", "description"), _metrics(view, now))]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _facts(view: AgentView, now: datetime) -> list[tuple[str, ...]]:
    why = f" ({view.reason})" if view.reason else ""
    facts = [
        ("agent", f"`{_plain(view.name)}` on {_plain(view.host)}"),
        ("run", f"{view.run or '–'}, attempt {view.attempt}"),
        ("state", f"{view.state}{why} since {_time(view.since)}"),
        ("detail", view.detail),
        ("written", _time(now)),
        ("duration", _duration(view, now)),
        ("workstream", view.spec.workstream),
        ("branch", view.branch),
        ("folder", view.workspace_path),
    ]
    return [(name, _plain(value)) for name, value in facts if value]


def _tasks(view: AgentView) -> Iterable[tuple[str, ...]]:
    for number, task in enumerate(view.tasks, 1):
        cells = (task.description, str(task.state), task.verdict or "–", str(task.attempt), task.detail)
        yield (str(number), *map(_plain, cells))


def _objectives(view: AgentView) -> Iterable[tuple[str, ...]]:
    for number, objective in enumerate(view.spec.objectives, 1):
        verdict = view.objectives[number - 1] if number <= len(view.objectives) else Verdict.NONE
        shown = verdict or ("not checked" if objective.verify is not None else "no check declared")
        yield str(number), _plain(objective.description), str(shown)


def _use(view: AgentView) -> list[tuple[str, ...]]:
    tokens = view.tokens
    cache = f"{tokens.cache_read_tokens:,} from cache, {tokens.cache_write_tokens:,} to cache"
    estimated = " (partly estimated)" if tokens.estimated else ""
    return [
        ("verdicts", summarise(task.verdict for task in view.tasks).text or "–"),
        ("denials", f"{view.denials:,}"),
        ("model calls", f"{view.model_calls:,}"),
        ("tokens", f"{tokens.input_tokens:,} in, {tokens.output_tokens:,} out, {cache}{estimated}"),
        ("cost", _cost(view)),
        ("CPU time", f"{view.usage.cpu_s:.1f} s"),
        ("commits", f"{view.commits:,}"),
    ]


def _metrics(view: AgentView, now: datetime) -> Iterable[tuple[str, ...]]:
    for metric in view.spec.reporting.metrics:
        measure = MEASURED.get(metric.name.strip().lower().replace("_", "-").replace(" ", "-"))
        value = measure(view, now) if measure else NOT_MEASURED
        about = f"{metric.description} [{metric.unit}]" if metric.unit else metric.description
        yield _plain(metric.name), value, _plain(about)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} % ({part} of {whole})" if whole else "–"


def _cost(view: AgentView) -> str:
    unpriced = f" and {view.unpriced_calls:,} calls without a known price" if view.unpriced_calls else ""
    return f"${view.cost_usd:.4f}{unpriced}"


def _duration(view: AgentView, now: datetime) -> str:
    if view.started_at is None:
        return "–"
    seconds = int(((view.ended_at or now) - view.started_at).total_seconds())
    hours, rest = divmod(max(0, seconds), 3600)
    return f"{hours} h {rest // 60} min {rest % 60} s" if hours else f"{rest // 60} min {rest % 60} s"


def _verified(verdicts: Sequence[Verdict]) -> str:
    return _share(sum(verdict is Verdict.VERIFIED for verdict in verdicts), len(verdicts))


MEASURED: dict[str, MetricValue] = {
    "tasks-done": lambda view, now: f"{view.tasks_done}",
    "tasks-completed": lambda view, now: f"{view.tasks_done}",
    "tasks-verified": lambda view, now: f"{view.tasks_verified}",
    "tasks-total": lambda view, now: f"{len(view.tasks)}",
    "task-completion": lambda view, now: _share(view.tasks_done, len(view.tasks)),
    "task-completion-rate": lambda view, now: _share(view.tasks_done, len(view.tasks)),
    "task-verification-rate": lambda view, now: _verified([task.verdict for task in view.tasks]),
    "objectives-verified": lambda view, now: _verified(view.objectives),
    "denials": lambda view, now: f"{view.denials:,}",
    "commits": lambda view, now: f"{view.commits:,}",
    "model-calls": lambda view, now: f"{view.model_calls:,}",
    "tokens": lambda view, now: f"{view.tokens.total_tokens:,}",
    "token-usage": lambda view, now: f"{view.tokens.total_tokens:,}",
    "input-tokens": lambda view, now: f"{view.tokens.input_tokens:,}",
    "output-tokens": lambda view, now: f"{view.tokens.output_tokens:,}",
    "cost": lambda view, now: _cost(view),
    "cost-usd": lambda view, now: _cost(view),
    "cpu-time": lambda view, now: f"{view.usage.cpu_s:.1f} s",
    "duration": _duration,
    "run-duration": _duration,
}
"""Metrics that the runtime measures itself, by exact name (case, `_` and spaces don't matter). Any other is the
agent's or the operator's to measure: no figure is guessed from a name that looks alike."""


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _plain(text: str) -> str:
    """One cell: nothing in it can end the cell, become markup that matters, or act on a terminal."""
    return one_line(text, _CELL).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
