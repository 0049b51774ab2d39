"""A runtime that was killed: what the next one on its state folder goes on with, asks about, and closes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fakes.crash import Crash
from fakes.gateway import Answer, finish, tool_turn
from fakes.scene import Scene, scene, spec
from toka_runtime.llm.base import ModelRequest
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.commands import PauseAgent, ResumeAgent
from toka_runtime.protocol.states import AgentState, StopReason, TaskState, Verdict

S = AgentState
WAIT = "while ! test -e go; do sleep 0.02; done"
TWO = "[{description: one}, {description: two}]"
Brain = Callable[[ModelRequest], Answer]


@asynccontextmanager
async def after_crash(tmp_path: Path, brain: Brain, *specs: str, crash: Crash, **options: Any) -> AsyncGenerator[Scene]:
    crash.thaw()
    async with scene(tmp_path, brain, *specs, **options) as stage:
        loaded = stage.supervisor.store.head
        await stage.until(lambda: stage.log and stage.log[-1].seq >= loaded)
        yield stage


def told(request: ModelRequest) -> str:
    """The last thing the model was told."""
    return str(request.messages[-1]["content"])


def one_then_hang(hang: asyncio.Event) -> Brain:
    """Finishes its first task, in the second one reads a file and then waits for ever."""

    def brain(request: ModelRequest) -> Answer:
        if request.context.task == 0:
            return finish(summary="one is done")
        return hang if len(request.messages) > 1 else tool_turn(("read_file", {"path": "hello.txt"}))

    return brain


async def cut_off(tmp_path: Path, brain: Brain, *specs: str, at: Callable[[Scene], Any]) -> Crash:
    crash = Crash(tmp_path / "state")
    async with scene(tmp_path, brain, *specs) as stage:
        await stage.start()
        await stage.until(lambda: at(stage))
        crash.freeze()
    return crash


def hanging(stage: Scene) -> bool:
    calls = stage.of(ev.ModelCallStarted)
    return bool(calls) and calls[-1].task == 1 and calls[-1].turn == 2


async def test_a_run_goes_on_after_its_last_complete_turn_and_done_tasks_stay_done(tmp_path: Path) -> None:
    text = spec("a", tasks=TWO)
    crash = await cut_off(tmp_path, one_then_hang(asyncio.Event()), text, at=hanging)
    async with after_crash(tmp_path, lambda request: finish(), text, crash=crash) as stage:
        await stage.until_state("a", S.COMPLETED)
        (request,) = stage.gateway.requests
        assert (request.context.task, request.context.turn) == (1, 2)
        assert "hello" in told(request), "the result of the read of the dead run"
        done = [e.task for e in stage.of(ev.TaskStateChanged) if e.after is TaskState.DONE]
        assert done == [0, 1]
        changes = stage.of(ev.AgentStateChanged)
        (link,) = [e for e in changes if e.resumes]
        assert (link.after, link.reason, link.held) == (S.PENDING, StopReason.HOST_LOST, False)
        assert [e.attempt for e in changes if e.after is S.STARTING] == [1, 2], "budgets go on"
        view = (stage.supervisor.snapshot()).agents[stage.agent("a").name]
        assert [task.verdict for task in view.tasks] == [Verdict.CLAIMED, Verdict.CLAIMED]


def commanding() -> Brain:
    def brain(request: ModelRequest) -> Answer:
        if len(request.messages) > 1:
            return finish()
        return tool_turn(("run_command", {"command": "true"}), ("run_command", {"command": WAIT}), ("list_files", {}))

    return brain


def in_command(stage: Scene) -> bool:
    return len([e for e in stage.of(ev.ToolCallStarted) if e.tool == "run_command"]) == 2


async def test_a_call_of_unknown_outcome_waits_for_an_operator_and_is_not_repeated(tmp_path: Path) -> None:
    crash = await cut_off(tmp_path, commanding(), spec("a"), at=in_command)
    async with after_crash(tmp_path, commanding(), spec("a"), crash=crash) as stage:
        await stage.until_state("a", S.PAUSED)
        assert stage.agent("a").reason is StopReason.UNKNOWN_OUTCOME
        assert WAIT in stage.agent("a").detail
        assert stage.gateway.requests == []
        assert (await stage.send(ResumeAgent(target=stage.ref("a")))).ok
        await stage.until_state("a", S.COMPLETED)
        first, second, third = stage.gateway.requests[0].messages[-1]["content"]
        assert not first.get("is_error")
        assert second["is_error"]
        assert second["content"].startswith("Outcome unknown")
        assert third["content"].startswith("Not run")
        outcomes = [e.outcome for e in stage.of(ev.ToolCallEnded)]
        assert outcomes == ["ok", "unknown", "ok"], "the last is finish"
        await stage.until(lambda: stage.of(ev.ProcessEnded))


async def test_what_waits_for_an_operator_waits_after_another_crash_too(tmp_path: Path) -> None:
    crash = await cut_off(tmp_path, commanding(), spec("a"), at=in_command)
    async with after_crash(tmp_path, commanding(), spec("a"), crash=crash) as stage:
        await stage.until_state("a", S.PAUSED)
        crash.freeze()
    async with after_crash(tmp_path, commanding(), spec("a"), crash=crash) as stage:
        await stage.until(lambda: stage.agent("a").state is S.PAUSED and stage.agent("a").process)
        assert stage.agent("a").reason is StopReason.UNKNOWN_OUTCOME
        assert (await stage.send(ResumeAgent(target=stage.ref("a")))).ok
        await stage.until_state("a", S.COMPLETED)
        assert "Outcome unknown" in told(stage.gateway.requests[0])
        assert [e.outcome for e in stage.of(ev.ToolCallEnded)].count("unknown") == 1


async def test_a_worker_that_is_killed_costs_its_turn_and_no_attempt(tmp_path: Path) -> None:
    hang, killed = asyncio.Event(), False

    def brain(request: ModelRequest) -> Answer:
        return finish() if killed else one_then_hang(hang)(request)

    async with scene(tmp_path, brain, spec("a", tasks=TWO)) as stage:
        await stage.start()
        await stage.until(lambda: hanging(stage))
        killed = True
        os.kill(stage.of(ev.ProcessStarted)[-1].worker_pid, signal.SIGKILL)
        await stage.until_state("a", S.COMPLETED)
        last = stage.gateway.requests[-1]
        assert (last.context.task, last.context.attempt, last.context.turn) == (1, 1, 2)
        assert "hello" in told(last)


async def test_with_the_operators_word_in_advance_nobody_is_asked(tmp_path: Path) -> None:
    crash = await cut_off(tmp_path, commanding(), spec("a"), at=in_command)
    async with after_crash(tmp_path, commanding(), spec("a"), crash=crash, go_on_unknown=True) as stage:
        await stage.until_state("a", S.COMPLETED)
        assert S.PAUSED not in [e.after for e in stage.of(ev.AgentStateChanged)]


async def test_what_an_operator_had_paused_stays_paused(tmp_path: Path) -> None:
    text, crash = spec("a", tasks=TWO), Crash(tmp_path / "state")
    async with scene(tmp_path, one_then_hang(asyncio.Event()), text) as stage:
        await stage.start()
        await stage.until(lambda: hanging(stage))
        assert (await stage.send(PauseAgent(target=stage.ref("a")))).ok
        crash.freeze()
    async with after_crash(tmp_path, lambda request: finish(), text, crash=crash) as stage:
        await stage.until(lambda: stage.agent("a").state is S.PAUSED and stage.agent("a").process)
        assert stage.agent("a").reason is StopReason.OPERATOR
        assert stage.gateway.requests == []
        assert (await stage.send(ResumeAgent(target=stage.ref("a")))).ok
        await stage.until_state("a", S.COMPLETED)


async def test_agents_that_had_ended_stay_ended_and_those_that_waited_start(tmp_path: Path) -> None:
    needy = spec("c", body="dependencies: {required: {b: its work}}\n")
    hang = asyncio.Event()

    def brain(request: ModelRequest) -> Answer:
        return hang if request.context.agent == "b" else finish()

    specs = (spec("a"), spec("b"), needy)
    crash = await cut_off(
        tmp_path,
        brain,
        *specs,
        at=lambda stage: stage.agent("a").state is S.COMPLETED and hanging_first(stage, "b") and blocked(stage, "c"),
    )
    async with after_crash(tmp_path, lambda request: finish(), *specs, crash=crash) as stage:
        async with asyncio.timeout(60):
            await stage.supervisor.settled()
        assert set(stage.final().values()) == {S.COMPLETED}
        assert {request.context.agent for request in stage.gateway.requests} == {"b", "c"}


def hanging_first(stage: Scene, name: str) -> bool:
    return bool(stage.of(ev.ModelCallStarted, name))


def blocked(stage: Scene, name: str) -> bool:
    return bool(stage.of(ev.AgentBlocked, name))


async def test_a_changed_spec_is_closed_and_begins_anew_when_asked(tmp_path: Path) -> None:
    crash = await cut_off(tmp_path, one_then_hang(asyncio.Event()), spec("a", tasks=TWO), at=hanging)
    changed = spec("a", tasks="[{description: one}, {description: three}]")
    async with after_crash(tmp_path, lambda request: finish(), changed, crash=crash) as stage:
        closed = stage.of(ev.AgentStateChanged)[-1]
        assert (closed.after, closed.reason) == (S.FAILED, StopReason.HOST_LOST)
        assert "its spec has changed" in closed.detail
        assert stage.final() == {"a": S.PENDING}
        await stage.run()
        assert [request.context.task for request in stage.gateway.requests] == [0, 1]


async def test_without_resuming_what_was_live_has_failed(tmp_path: Path) -> None:
    text = spec("a", tasks=TWO)
    crash = await cut_off(tmp_path, one_then_hang(asyncio.Event()), text, at=hanging)
    async with after_crash(tmp_path, lambda request: finish(), text, crash=crash, resume=False) as stage:
        closed = stage.of(ev.AgentStateChanged)[-1]
        assert (closed.after, closed.reason) == (S.FAILED, StopReason.HOST_LOST)
        assert stage.final() == {"a": S.PENDING}
        assert stage.gateway.requests == []


async def test_a_second_crash_before_anything_was_done_goes_on_at_the_same_place(tmp_path: Path) -> None:
    text, hang = spec("a", tasks=TWO), asyncio.Event()
    crash = await cut_off(tmp_path, one_then_hang(asyncio.Event()), text, at=hanging)
    crash.thaw()
    async with scene(tmp_path, lambda request: hang, text) as stage:
        await stage.until(lambda: len([e for e in stage.of(ev.AgentStateChanged) if e.after is S.STARTING]) == 2)
        crash.freeze()
    async with after_crash(tmp_path, lambda request: finish(), text, crash=crash) as stage:
        await stage.until_state("a", S.COMPLETED)
        assert "hello" in str(stage.gateway.requests[0].messages)
        assert stage.gateway.requests[0].context.task == 1
