"""Reports: due by frequency and at the end, one file a channel, holding what was measured and nothing else."""

from __future__ import annotations

import os
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fakes.clock import FakeClock
from fakes.specs import agent_spec
from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.ids import AgentName, HostId, RunId
from toka_runtime.protocol.snapshot import AgentView, TaskView
from toka_runtime.protocol.spec import Metric, Objective, ReportFrequency, Reporting, Verify
from toka_runtime.protocol.states import AgentState, StopReason, TaskState, Verdict
from toka_runtime.protocol.usage import TokenUsage, Usage
from toka_runtime.specs.loader import load_paths
from toka_runtime.supervisor import reports
from toka_runtime.supervisor.report_text import MEASURED, NOT_MEASURED, report_text
from toka_runtime.supervisor.reports import Reporter

HOUR = 3600.0


class Scene:
    """A running agent with two tasks, its reporter, and a clock that moves when told."""

    def __init__(self, state_dir: Path, frequency: ReportFrequency, channels: tuple[str, ...] = ("main",)) -> None:
        self.state_dir = state_dir
        self.clock = FakeClock()
        self.spec = agent_spec(reporting=Reporting(frequency=frequency, channels=channels))
        self.reporter = self.new_reporter()
        self.view = AgentView(
            host=HostId("here"),
            name=self.spec.name,
            spec=self.spec,
            rights=Rights(),
            since=self.clock.now(),
            tasks=tuple(TaskView(description=task.description) for task in self.spec.tasks),
        )

    def new_reporter(self) -> Reporter:
        return Reporter(self.spec, self.state_dir, self.clock)

    def change(self, **fields: Any) -> None:
        self.view = self.view.model_copy(update=fields)

    def start(self, run: str = "r1") -> None:
        tasks = tuple(task.model_copy(update={"state": TaskState.WAITING}) for task in self.view.tasks)
        now = self.clock.now()
        self.change(state=AgentState.RUNNING, run=RunId(run), started_at=now, since=now, ended_at=None, tasks=tasks)

    def end(self, state: AgentState = AgentState.COMPLETED) -> None:
        self.change(state=state, ended_at=self.clock.now(), since=self.clock.now())

    def task(self, index: int, state: TaskState) -> None:
        tasks = list(self.view.tasks)
        tasks[index] = tasks[index].model_copy(update={"state": state})
        self.change(tasks=tuple(tasks))

    async def written(self) -> list[str]:
        """Names of the files that are written now, if a report is due."""
        if not self.reporter.due(self.view):
            return []
        done = await self.reporter.write(self.view)
        assert not self.reporter.due(self.view), "what was just told is not due again"
        return [Path(event.path).name for event in done]


async def test_on_completion(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ReportFrequency.ON_COMPLETION)
    assert await scene.written() == []
    scene.start()
    scene.task(0, TaskState.DONE)
    await scene.clock.advance(30 * 24 * HOUR)
    assert await scene.written() == []
    scene.end()
    assert await scene.written() == ["scribe-20260131T120000Z-completed-r1.md"]
    assert await scene.written() == []


@pytest.mark.parametrize("state", [AgentState.FAILED, AgentState.KILLED, AgentState.SKIPPED])
async def test_every_kind_of_end(tmp_path: Path, state: AgentState) -> None:
    scene = Scene(tmp_path, ReportFrequency.WEEKLY)
    if state is AgentState.SKIPPED:
        scene.end(state)
        assert await scene.written() == ["scribe-20260101T120000Z-skipped.md"]
    else:
        scene.start()
        scene.end(state)
        assert await scene.written() == [f"scribe-20260101T120000Z-{state}-r1.md"]


async def test_real_time(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ReportFrequency.REAL_TIME)
    scene.start()
    assert await scene.written() == []
    scene.task(0, TaskState.RUNNING)
    assert await scene.written() == ["scribe-20260101T120000Z-0-of-2.md"]
    scene.task(0, TaskState.RETRYING)
    assert await scene.written() == ["scribe-20260101T120000Z-0-of-2-2.md"], "two in one second are two files"
    scene.task(0, TaskState.DONE)
    assert await scene.written() == ["scribe-20260101T120000Z-1-of-2.md"]


async def test_on_milestone(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ReportFrequency.ON_MILESTONE)
    scene.start()
    scene.task(0, TaskState.RUNNING)
    assert await scene.written() == []
    scene.task(0, TaskState.DONE)
    assert await scene.written() == ["scribe-20260101T120000Z-1-of-2.md"]
    scene.task(1, TaskState.FAILED)
    assert await scene.written() == ["scribe-20260101T120000Z-2-of-2.md"]


@pytest.mark.parametrize(
    ("frequency", "period"),
    [
        (ReportFrequency.HOURLY, timedelta(hours=1)),
        (ReportFrequency.DAILY, timedelta(days=1)),
        (ReportFrequency.WEEKLY, timedelta(weeks=1)),
    ],
)
async def test_timers(tmp_path: Path, frequency: ReportFrequency, period: timedelta) -> None:
    scene = Scene(tmp_path, frequency)
    scene.start()
    for _ in range(2):
        await scene.clock.advance(period.total_seconds() - 1)
        assert await scene.written() == []
        await scene.clock.advance(1)
        assert len(await scene.written()) == 1
    await scene.clock.advance(period.total_seconds() * 5.5)
    assert len(await scene.written()) == 1, "missed ones are not made up for"
    await scene.clock.advance(period.total_seconds() / 2)
    assert len(await scene.written()) == 1, "and the rhythm stays"


async def test_a_second_run_begins_anew(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ReportFrequency.HOURLY)
    scene.start()
    await scene.clock.advance(HOUR / 2)
    scene.end()
    assert len(await scene.written()) == 1
    scene.start("r2")
    await scene.clock.advance(HOUR * 0.75)
    assert await scene.written() == []
    scene.end()
    assert await scene.written() == ["scribe-20260101T131500Z-completed-r2.md"]


async def test_an_end_that_an_earlier_runtime_has_reported(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ReportFrequency.ON_COMPLETION, channels=("one", "two"))
    scene.start()
    scene.end()
    assert len(await scene.written()) == 2
    scene.reporter = scene.new_reporter()
    assert await scene.written() == []
    next((tmp_path / "reports/two").iterdir()).unlink()
    scene.reporter = scene.new_reporter()
    assert len(await scene.written()) == 2


async def test_channels_are_folders_below_reports_whatever_they_are_called(tmp_path: Path) -> None:
    channels = ("main-agent", "../../escape", "/etc", "a/b", "a-b", "..", "", "x" * 500, "line\nfeed")
    scene = Scene(tmp_path / "state", ReportFrequency.ON_COMPLETION, channels)
    scene.start()
    scene.end()
    events = await scene.reporter.write(scene.view)
    assert [event.channel for event in events] == list(channels)
    folders = {Path(event.path).parent for event in events}
    assert len(folders) == len(channels)
    assert {folder.parent for folder in folders} == {tmp_path / "state/reports"}
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    for event in events:
        assert stat.S_IMODE(Path(event.path).stat().st_mode) == 0o600
    assert (tmp_path / "state/reports/main-agent").is_dir()


async def test_no_channel_is_a_default_one(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ReportFrequency.ON_COMPLETION, channels=())
    scene.start()
    scene.end()
    await scene.written()
    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["default"]


async def test_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ReportFrequency.ON_COMPLETION)
    scene.start()
    scene.end()
    (tmp_path / "reports").write_text("a file in the way")
    assert scene.reporter.due(scene.view)
    with pytest.raises(OSError, match="Not a directory"):
        await scene.reporter.write(scene.view)
    assert not scene.reporter.due(scene.view), "tried again, but not at once"
    (tmp_path / "reports").unlink()
    await scene.clock.advance(60)
    assert len(await scene.written()) == 1


async def test_old_reports_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "KEEP", 2)
    scene = Scene(tmp_path, ReportFrequency.HOURLY)
    folder = tmp_path / "reports/main"
    folder.mkdir(parents=True)
    other = folder / "scribe-two-20250101T120000Z-hourly.md"
    other.write_text("of another agent")
    scene.start()
    for _ in range(4):
        await scene.clock.advance(HOUR)
        await scene.written()
    assert sorted(os.listdir(folder)) == [
        "scribe-20260101T150000Z-hourly.md",
        "scribe-20260101T160000Z-hourly.md",
        other.name,
    ]


def told(**fields: Any) -> str:
    spec = agent_spec(
        objectives=(Objective(description="Reach it"), Objective(description="Prove", verify=Verify(argv=("true",)))),
        reporting=Reporting(
            metrics=(
                Metric(name="Tasks_Done", description="How far it is"),
                Metric(name="cost"),
                Metric(name="build-success-rate", description="Percentage of builds", unit="%"),
            )
        ),
    )
    clock = FakeClock()
    view = AgentView(
        host=HostId("here"),
        name=AgentName("scribe"),
        spec=spec,
        rights=Rights(),
        since=clock.now(),
        state=AgentState.FAILED,
        reason=StopReason.TIMEOUT,
        detail="its 2 h are over",
        started_at=clock.now() - timedelta(hours=2, seconds=5),
        ended_at=clock.now(),
        tasks=(
            TaskView(description="Write", state=TaskState.DONE, verdict=Verdict.VERIFIED, attempt=2, detail="done"),
            TaskView(description="Read", state=TaskState.DONE, verdict=Verdict.CLAIMED, attempt=1),
            TaskView(description="Rest", state=TaskState.SKIPPED),
        ),
        objectives=(Verdict.NONE, Verdict.FAILED),
        tokens=TokenUsage(input_tokens=12_345, output_tokens=678, estimated=True),
        cost_usd=0.5,
        unpriced_calls=2,
        denials=3,
        commits=1,
        usage=Usage(cpu_s=7.25),
    )
    return report_text(view.model_copy(update=fields), clock.now(), "failed")


def test_what_it_says() -> None:
    text = told()
    assert text.startswith("# Scribe Agent: failed\n")
    assert "| state | failed (timeout) since 2026-01-01 12:00:00 UTC |" in text
    assert "| detail | its 2 h are over |" in text
    assert "| duration | 2 h 0 min 5 s |" in text
    assert "## Tasks: 2 of 3 done, 1 verified" in text
    assert "| 1 | Write | done | verified | 2 | done |" in text
    assert "| 2 | Read | done | claimed | 1 |  |" in text
    assert "| verdicts | 1 verified · 1 claimed |" in text
    assert "| 1 | Reach it | no check declared |" in text
    assert "| 2 | Prove | failed |" in text
    assert "| denials | 3 |" in text
    assert "12,345 in, 678 out, 0 from cache, 0 to cache (partly estimated)" in text
    assert "| cost | $0.5000 and 2 calls without a known price |" in text
    assert "| CPU time | 7.2 s |" in text


def test_metrics_are_measured_or_said_not_to_be() -> None:
    text = told()
    assert "| Tasks_Done | 2 | How far it is |" in text
    assert f"| build-success-rate | {NOT_MEASURED} | Percentage of builds [%] |" in text


def test_every_metric_of_the_published_specs_is_there(toka_specs: Path) -> None:
    for file in load_paths((toka_specs,)).files:
        spec = file.spec
        assert spec is not None
        text = told(spec=spec)
        assert spec.reporting.metrics
        for metric in spec.reporting.metrics:
            assert f"| {metric.name} | {NOT_MEASURED} | {metric.description} |" in text


def test_each_measure_has_a_figure() -> None:
    metrics = tuple(Metric(name=name) for name in MEASURED)
    spec = agent_spec(reporting=Reporting(metrics=metrics))
    text = told(spec=spec)
    assert NOT_MEASURED not in text
    assert "| task-completion-rate | 67 % (2 of 3) |" in text
    assert "| tokens | 13,023 |" in text


def test_text_of_an_agent_stays_in_its_cell() -> None:
    evil = "a | b\n| forged | row |\n# heading <script>\x1b]52;c;x\x07\u202e"
    text = told(detail=evil, tasks=(TaskView(description=evil, state=TaskState.DONE, detail=evil),))
    assert "\n| forged" not in text
    assert "\n# heading" not in text
    assert "<script>" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    rows = [line for line in text.splitlines() if line.startswith("| 1 |")]
    assert rows[0].replace("\\|", "").count("|") == 7
