"""Silence is told and who is silent, waiting is not silence, circles are told, nudged and ended as the spec says."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from fakes.events import START, spec_of
from fakes.gateway import Answer, finish, tool_results, tool_turn
from fakes.scene import Scene, scene, spec
from toka_runtime.llm.base import ModelRequest
from toka_runtime.protocol import commands as cmd
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.health import Health, HealthLevel, HealthReason
from toka_runtime.protocol.ids import HostId
from toka_runtime.protocol.snapshot import ActionView, AgentView, TaskView
from toka_runtime.protocol.states import AgentState, StopReason, TaskState
from toka_runtime.supervisor.health import awaited_of

S, L, R = AgentState, HealthLevel, HealthReason


def view(**fields: object) -> AgentView:
    spec_ = spec_of("a")
    base = AgentView(
        host=HostId("h"), name=spec_.name, spec=spec_, rights=Rights(), since=START, state=S.RUNNING, started_at=START
    )
    return base.model_copy(update=fields)


def open_tool(seconds: float = 1.0) -> ActionView:
    return ActionView(call="t1", tool="run_command", target="make", started_at=START + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("fields", "reason", "subject"),
    [
        ({"model_call_since": START}, R.MODEL_SILENT, ""),
        ({"actions": (open_tool(),)}, R.TOOL_SILENT, "tool run_command"),
        ({"actions": (open_tool(-5.0),)}, R.AGENT_SILENT, ""),
        ({"tasks": (TaskView(description="x", state=TaskState.VERIFYING),)}, R.TOOL_SILENT, "verify command"),
        ({}, R.AGENT_SILENT, ""),
    ],
)
def test_who_is_silent(fields: dict[str, object], reason: HealthReason, subject: str) -> None:
    awaited = awaited_of(view(**fields))
    assert awaited is not None
    assert (awaited.reason, awaited.subject) == (reason, subject)


@pytest.mark.parametrize(
    "fields",
    [
        {"state": S.PAUSED, "model_call_since": START},
        {"state": S.STARTING},
        {"approvals": ("a request",), "actions": (open_tool(),)},
        {"tasks": (TaskView(description="x", state=TaskState.RETRYING),)},
    ],
)
def test_waiting_for_a_person_a_budget_or_a_back_off_is_no_silence(fields: dict[str, object]) -> None:
    assert awaited_of(view(**fields)) is None


def test_how_it_is_said() -> None:
    now = START + timedelta(minutes=3)
    assert Health(level=L.STALLED, reason=R.MODEL_SILENT, since=START).text(now) == "stalled 3m: model silent"
    tool = Health(level=L.STALLED, reason=R.TOOL_SILENT, since=START, subject="tool run_command")
    assert tool.text(now) == "stalled 3m: tool run_command silent"
    stuck = Health(level=L.STUCK, reason=R.REPEATED_ACTION, since=START, count=4, evidence=("run_command ls",))
    assert stuck.text(now) == "stuck: same action, same result 4 times: run_command ls"


def told(stage: Scene) -> list[Health]:
    return [event.health for event in stage.of(ev.HealthChanged)]


async def test_a_silent_model_is_told_and_its_return_too(tmp_path: Path) -> None:
    hang = asyncio.Event()

    def brain(request: ModelRequest) -> Answer:
        return finish() if hang.is_set() else hang

    async with scene(tmp_path, brain, spec("a", body="health: {stall_after: 1ms}\n")) as stage:
        await stage.start()
        await stage.until(lambda: any(health.reason is R.MODEL_SILENT for health in told(stage)))
        snapshot = stage.supervisor.snapshot().agents[stage.agent("a").name]
        assert snapshot.health is not None
        assert snapshot.health.level is L.STALLED
        hang.set()
        await stage.supervisor.settled()
        assert stage.supervisor.snapshot().agents[stage.agent("a").name].health is None


async def test_a_paused_agent_does_not_stall(tmp_path: Path) -> None:
    hang = asyncio.Event()
    async with scene(tmp_path, lambda _: hang, spec("a", body="health: {stall_after: 1s}\n")) as stage:
        await stage.start()
        await stage.until(lambda: stage.of(ev.ModelCallStarted))
        assert (await stage.send(cmd.PauseAgent(target=stage.ref("a")))).ok
        monitor = stage.supervisor.services.health
        watched = next(iter(monitor._runs.values()))  # pyright: ignore[reportPrivateUsage]
        before = watched.heard_at
        await stage.until(lambda: watched.heard_at > before)
        assert told(stage) == []


LOOK = ("run_command", {"command": "echo the same"})


async def test_circles_are_told_with_evidence_and_the_agent_is_nudged_once(tmp_path: Path) -> None:
    seen: list[Health] = []
    async with scene(tmp_path, lambda _: finish() if seen else tool_turn(LOOK), spec("a")) as stage:
        await stage.start()
        await stage.until(lambda: told(stage))
        seen += told(stage)
        await stage.supervisor.settled()
        assert stage.final() == {"a": S.COMPLETED}, "the default only warns"
        assert (seen[0].level, seen[0].reason) == (L.STUCK, R.REPEATED_ACTION)
        assert "echo the same" in seen[0].evidence[0]
        nudged = [
            number
            for number, message in enumerate(stage.gateway.requests[-1].messages)
            if "going round in circles" in str(message["content"])
        ]
        # With the fourth result and never again: the task, then (answer, result) four times.
        assert nudged == [8]


@pytest.mark.parametrize(("policy", "state"), [("fail", S.FAILED), ("pause", S.PAUSED)])
async def test_who_goes_on_in_circles_is_ended_or_paused_as_the_spec_says(
    tmp_path: Path, policy: str, state: AgentState
) -> None:
    body = f"health: {{on_stuck: {policy}}}\n"
    async with scene(tmp_path, lambda _: tool_turn(LOOK), spec("a", body=body)) as stage:
        await stage.start()
        await stage.until_state("a", state)
        agent = stage.agent("a")
        assert agent.reason is StopReason.STUCK
        assert "same action, same result" in agent.detail
        await stage.until(lambda: told(stage))
        assert told(stage)[0].reason is R.REPEATED_ACTION
        assert told(stage)[0].count >= 4


async def test_tests_run_again_after_edits_are_no_circle(tmp_path: Path) -> None:
    def brain(request: ModelRequest) -> Answer:
        done = tool_results(request)
        if done >= 16:
            return finish()
        edit = ("write_file", {"path": "code.txt", "content": "x" * 3000 + str(done)})
        return tool_turn(edit) if done % 2 == 0 else tool_turn(("run_command", {"command": "echo 1 failed; exit 1"}))

    async with scene(tmp_path, brain, spec("a", body="health: {on_stuck: fail}\n")) as stage:
        await stage.run()
        assert stage.final() == {"a": S.COMPLETED}
        assert told(stage) == []
        assert "circles" not in str(stage.gateway.requests[-1].messages)


async def test_deaths_in_a_row_open_the_breaker_and_an_operator_closes_it(tmp_path: Path) -> None:
    hang = asyncio.Event()

    def brain(request: ModelRequest) -> Answer:
        return finish() if hang.is_set() else hang

    restart = "restart: {policy: on-failure, max_restarts: 9, backoff: 1ms, crash_limit: 2}\n"
    async with scene(tmp_path, brain, spec("a", body=restart)) as stage:
        await stage.start()
        for deaths in (1, 2):
            await stage.until(lambda deaths=deaths: len(stage.of(ev.ModelCallStarted)) >= deaths)
            os.kill(stage.of(ev.ProcessStarted)[-1].worker_pid, signal.SIGKILL)
            await stage.until(lambda deaths=deaths: len(stage.of(ev.ProcessEnded)) >= deaths)
        await stage.until_state("a", S.FAILED)
        assert stage.agent("a").reason is StopReason.CRASH_LOOP
        assert told(stage)[-1].level is L.CRASH_LOOP
        assert told(stage)[-1].evidence == ("ended by SIGKILL",) * 2
        hang.set()
        await stage.run("a")
        assert stage.final() == {"a": S.COMPLETED}


async def test_a_run_cut_off_again_waits_before_it_goes_on_and_can_be_killed_then(tmp_path: Path) -> None:
    hang = asyncio.Event()
    body = "restart: {policy: never, backoff: 24h, max_backoff: 24h}\n"
    async with scene(tmp_path, lambda _: hang, spec("a", body=body)) as stage:
        await stage.start()
        for deaths in (1, 2):
            await stage.until(lambda deaths=deaths: len(stage.of(ev.ModelCallStarted)) >= deaths)
            os.kill(stage.of(ev.ProcessStarted)[-1].worker_pid, signal.SIGKILL)
            await stage.until(lambda deaths=deaths: len(stage.of(ev.ProcessEnded)) >= deaths)
        await stage.until(lambda: any("it goes on in" in str(event.blockers) for event in stage.of(ev.AgentBlocked)))
        assert (await stage.send(cmd.KillAgent(target=stage.ref("a")))).ok
        await stage.supervisor.settled()
        assert stage.final() == {"a": S.KILLED}
