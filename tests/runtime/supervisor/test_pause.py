"""Pauses of three kinds, of agents in every state; what is never done between the word of a pause and the resume."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fakes.gateway import Answer, finish, tool_results, tool_turn
from fakes.scene import Scene, scene, spec
from toka_runtime.aio import spawn
from toka_runtime.errors import GatewayLost
from toka_runtime.llm.base import ModelRequest
from toka_runtime.protocol import commands as cmd
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.commands import PauseKind
from toka_runtime.protocol.ids import AgentName, RunId
from toka_runtime.protocol.states import AgentState, StopReason

S = AgentState
WAITS = tool_turn(("run_command", {"command": "echo up; sleep 1000"}), ("list_files", {}))


async def paused(stage: Scene, name: str = "a") -> str:
    """What the event says."""
    return (await paused_event(stage, name)).detail


async def paused_event(stage: Scene, name: str) -> ev.AgentStateChanged:

    def found() -> list[ev.AgentStateChanged]:
        return [event for event in stage.of(ev.AgentStateChanged, name) if event.after is S.PAUSED]

    await stage.until(found)
    return found()[-1]


async def pause(stage: Scene, kind: PauseKind, name: str = "a") -> cmd.CommandResult:
    return await stage.send(cmd.PauseAgent(target=stage.ref(name), kind=kind))


async def resume(stage: Scene, name: str = "a") -> None:
    answer = await stage.send(cmd.ResumeAgent(target=stage.ref(name)))
    assert answer.ok, answer


async def test_a_soft_pause_waits_for_the_next_step_and_freezes_nothing(tmp_path: Path) -> None:
    hang = asyncio.Event()

    def brain(request: ModelRequest) -> Answer:
        return finish() if hang.is_set() else hang

    async with scene(tmp_path, brain, spec("a")) as stage:
        await stage.start()
        await stage.until(lambda: stage.gateway.requests)
        asking = spawn(pause(stage, PauseKind.SOFT))
        await asyncio.sleep(0)
        assert stage.agent("a").state is S.RUNNING
        hang.set()
        answer = await asking
        assert answer.ok
        assert answer.data["proof"]["confirmed"]
        assert "soft" in answer.data["proof"]["mechanism"]
        assert "nothing is frozen" in await paused(stage)
        assert len(stage.gateway.requests) == 1
        await resume(stage)
        await stage.supervisor.settled()
        assert stage.final() == {"a": S.COMPLETED}


async def test_an_interrupt_of_a_model_call_leaves_a_valid_conversation(tmp_path: Path) -> None:
    hang = asyncio.Event()

    def brain(request: ModelRequest) -> Answer:
        return hang if len(stage.gateway.requests) == 1 else finish()

    async with scene(tmp_path, brain, spec("a")) as stage:
        await stage.start()
        await stage.until(lambda: stage.of(ev.ModelCallStarted))
        answer = await pause(stage, PauseKind.INTERRUPT)
        assert answer.ok, answer
        assert answer.data["proof"]["confirmed"]
        assert stage.gateway.cancelled == 1
        assert stage.agent("a").state is S.PAUSED
        await stage.until(lambda: stage.of(ev.ModelCallEnded))
        assert stage.of(ev.ModelCallEnded)[0].outcome == "cancelled"
        await resume(stage)
        await stage.supervisor.settled()
        assert stage.final() == {"a": S.COMPLETED}
        said = str(stage.gateway.requests[-1].messages[-1])
        assert "interrupted your answer" in said


async def test_an_interrupt_answers_every_open_tool_call(tmp_path: Path) -> None:
    def brain(request: ModelRequest) -> Answer:
        return finish() if tool_results(request) else WAITS

    async with scene(tmp_path, brain, spec("a")) as stage:
        await stage.start()
        await stage.until(lambda: stage.of(ev.ToolCallStarted))
        answer = await pause(stage, PauseKind.INTERRUPT)
        assert answer.ok, answer
        await stage.until_state("a", S.PAUSED)
        await resume(stage)
        await stage.supervisor.settled()
        assert stage.final() == {"a": S.COMPLETED}
        blocks = stage.gateway.requests[-1].messages[-1]["content"]
        results = [block for block in blocks if block["type"] == "tool_result"]
        assert len(results) == 2
        assert all(block["is_error"] and "interrupted" in block["content"] for block in results)


async def test_an_agent_that_is_to_start_is_held_before_it_asks_anything(tmp_path: Path) -> None:
    async with scene(tmp_path, lambda _: finish(), spec("a")) as stage:
        await stage.start()
        answer = await stage.send(cmd.PauseFleet())
        assert answer.ok, answer
        assert answer.data["agents"]["a"]["proof"]["confirmed"]
        await stage.until_state("a", S.PAUSED)
        assert not stage.gateway.requests
        assert (await stage.send(cmd.ResumeFleet())).ok
        await stage.supervisor.settled()
        assert stage.final() == {"a": S.COMPLETED}


async def test_a_softly_paused_agent_can_be_frozen_and_goes_on_by_one_resume(tmp_path: Path) -> None:
    async with scene(tmp_path, lambda _: finish(), spec("a")) as stage:
        await stage.start()
        await stage.send(cmd.PauseFleet())
        await stage.until_state("a", S.PAUSED)
        answer = await pause(stage, PauseKind.HARD)
        assert answer.ok, answer
        assert answer.data["proof"]["processes"] > 0
        again = await pause(stage, PauseKind.HARD)
        assert not again.ok
        await resume(stage)
        await stage.supervisor.settled()
        assert stage.final() == {"a": S.COMPLETED}


async def test_what_a_pause_of_the_fleet_did_is_told_for_each_also_when_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = asyncio.Event()
    async with scene(tmp_path, lambda _: hang, spec("a"), spec("b")) as stage:
        await stage.start()
        await stage.until(lambda: len(stage.gateway.requests) == 2)

        good = stage.gateway.hold

        async def hold(run: RunId) -> None:
            if run == stage.agent("b").run:
                raise GatewayLost("it does not answer")
            await good(run)

        monkeypatch.setattr(stage.gateway, "hold", hold)
        answer = await stage.send(cmd.PauseFleet())
        assert not answer.ok
        assert "not paused: b" in answer.message
        assert answer.data["agents"]["a"]["ok"]
        assert not answer.data["agents"]["b"]["proof"]["confirmed"]
        assert "gateway has not confirmed" in await paused(stage, "b")
        assert (await paused_event(stage, "b")).frozen_ms is None, "nobody reads FROZEN before it is proven"
        assert stage.gateway.held == {stage.agent("a").run}
        assert (await stage.send(cmd.ResumeFleet(agents=(AgentName("a"),)))).ok
        assert not stage.gateway.held
        assert stage.agent("b").reason is StopReason.OPERATOR
