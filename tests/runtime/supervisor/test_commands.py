"""What an operator may do: to the run that was meant, once, recorded, and with proof."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fakes.gateway import Answer, finish
from fakes.processes import alive
from fakes.scene import Scene, scene, spec
from toka_runtime.llm.base import ModelRequest
from toka_runtime.protocol import commands as cmd
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.ids import AgentName, ProcessRef, RunId
from toka_runtime.protocol.states import AgentState, StopReason
from toka_runtime.sandbox.process import ShimProcess

S = AgentState


class Held:
    """A brain whose first call hangs until released; later ones finish."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def __call__(self, request: ModelRequest) -> Answer:
        return finish() if self.event.is_set() else self.event


def stands_still(stage: Scene) -> bool:
    """By the kernel's word: the control group's, or without one that of the process table."""
    process = stage.agent("a").process
    if isinstance(process, ShimProcess) and process.held.freezer is not None:
        return process.held.freezer.frozen()
    worker = stage.of(ev.ProcessStarted)[-1].worker_pid
    return Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def running(stage: Scene, name: str = "a") -> None:
    await stage.start()
    await stage.until(lambda: stage.of(ev.ModelCallStarted, name))


async def test_pause_stops_the_processes_and_no_model_call_starts_until_resume(tmp_path: Path) -> None:
    held = Held()
    async with scene(tmp_path, held, spec("a", tasks="[{description: one}, {description: two}]")) as stage:
        await running(stage)
        answer = await stage.send(cmd.PauseAgent(target=stage.ref("a")))
        assert answer.ok, answer
        assert stage.agent("a").state is S.PAUSED
        assert stands_still(stage)
        held.event.set()  # the paid stream ends while paused: drained, and nothing new starts
        await stage.until(lambda: stage.of(ev.ModelCallEnded))
        assert len(stage.of(ev.ModelCallStarted)) == 1
        paused = stage.of(ev.AgentStateChanged)[-1]
        assert "confirmed" in paused.detail
        assert "UNCONFIRMED" not in paused.detail
        assert paused.frozen_ms is not None
        assert f"{paused.frozen_ms:.1f} ms" in paused.detail
        answer = await stage.send(cmd.ResumeAgent(target=stage.ref("a")))
        assert answer.ok, answer
        await stage.supervisor.settled()
        assert stage.final() == {"a": S.COMPLETED}


async def test_kill_goes_to_the_run_that_was_meant_or_nowhere(tmp_path: Path) -> None:
    async with scene(tmp_path, Held(), spec("a")) as stage:
        await running(stage)
        ref = stage.ref("a")
        for wrong in (
            ref.model_copy(update={"run": RunId("rold")}),
            ref.model_copy(update={"process": ProcessRef(pid=ref.process.pid, started_ticks=1)}),
            ref.model_copy(update={"host": "elsewhere"}),
            ref.model_copy(update={"agent": "nobody"}),
        ):
            answer = await stage.send(cmd.KillAgent(target=wrong))
            assert (answer.ok, answer.code) == (False, "command.refused")
        assert stage.agent("a").state is S.RUNNING
        answer = await stage.send(cmd.KillAgent(target=ref))
        assert answer.ok
        assert answer.data["proof"]["confirmed"]
        assert stage.agent("a").state is S.KILLED
        assert not alive({ref.process.pid})
        assert stage.gateway.cancelled == 1
        await stage.until(lambda: len(stage.of(ev.CommandHandled)) == 5)
        assert [e.ok for e in stage.of(ev.CommandHandled)] == [False] * 4 + [True]


async def test_kill_of_a_paused_agent(tmp_path: Path) -> None:
    async with scene(tmp_path, Held(), spec("a")) as stage:
        await running(stage)
        await stage.send(cmd.PauseAgent(target=stage.ref("a")))
        ref = stage.ref("a")
        answer = await stage.send(cmd.KillAgent(target=ref))
        assert answer.ok, answer
        assert stage.agent("a").state is S.KILLED
        assert not alive({ref.process.pid})


async def test_the_same_id_is_carried_out_once(tmp_path: Path) -> None:
    async with scene(tmp_path, Held(), spec("a")) as stage:
        await running(stage)
        command = cmd.PauseAgent(target=stage.ref("a"))
        first, second = await asyncio.gather(stage.send(command, "x:1"), stage.send(command, "x:1"))
        assert first == second
        assert first.ok
        other = await stage.send(cmd.ResumeAgent(target=stage.ref("a")), "x:1")
        assert other.code == "command.reused_id"
        assert stage.agent("a").state is S.PAUSED


async def test_restart_is_a_new_run(tmp_path: Path) -> None:
    held = Held()
    async with scene(tmp_path, held, spec("a")) as stage:
        await running(stage)
        before = stage.ref("a")
        held.event.set()
        answer = await stage.send(cmd.RestartAgent(target=before))
        assert answer.ok, answer
        await stage.supervisor.settled()
        assert stage.agent("a").state is S.COMPLETED
        assert stage.agent("a").run != before.run


async def test_a_waiting_agent_can_be_killed_before_it_starts(tmp_path: Path) -> None:
    needy = spec("b", body="dependencies: {required: {a: order}}\n")
    held = Held()
    async with scene(tmp_path, held, needy, spec("a")) as stage:
        await running(stage)
        answer = await stage.send(cmd.KillAgent(target=stage.ref("b")))
        assert answer.ok
        assert stage.agent("b").state is S.KILLED
        held.event.set()
        await stage.supervisor.settled()
        assert stage.agent("a").state is S.COMPLETED
        assert not stage.of(ev.ProcessStarted, "b")


async def test_stop_gives_grace_and_then_ends(tmp_path: Path) -> None:
    async with scene(tmp_path, Held(), spec("a")) as stage:
        await running(stage)
        answer = await stage.send(cmd.StopAgent(target=stage.ref("a"), grace_s=5))
        assert answer.ok, answer
        assert stage.agent("a").state is S.KILLED
        await stage.until(lambda: S.STOPPING in [e.after for e in stage.of(ev.AgentStateChanged)])


async def test_freeze_all_and_thaw_all(tmp_path: Path) -> None:
    async with scene(tmp_path, Held(), spec("a"), spec("b"), spec("c")) as stage:
        await stage.start()
        await stage.until(lambda: len(stage.of(ev.ModelCallStarted)) == 3)
        answer = await stage.send(cmd.PauseFleet())
        assert answer.ok, answer
        assert set(stage.final().values()) == {S.PAUSED}
        assert set(answer.data["agents"]) == {"a", "b", "c"}
        answer = await stage.send(cmd.ResumeFleet(agents=(AgentName("a"),)))
        assert answer.ok
        assert stage.final() == {"a": S.RUNNING, "b": S.PAUSED, "c": S.PAUSED}


async def test_events_and_diff_can_be_read(tmp_path: Path) -> None:
    async with scene(tmp_path, lambda request: finish(), spec("a")) as stage:
        await stage.run()
        answer = await stage.send(cmd.ReadEvents(kinds=("agent.state_changed",), agent=AgentName("a"), limit=2))
        assert answer.ok
        assert [e["event"]["after"] for e in answer.data["events"]] == ["starting", "running"]
        assert answer.data["more"]
        answer = await stage.send(cmd.ReadDiff(agent=AgentName("a")))
        assert answer.ok
        assert answer.data == {"diff": "", "truncated": False}


async def test_closing_ends_everything_with_the_reason(tmp_path: Path) -> None:
    async with scene(tmp_path, Held(), spec("a")) as stage:
        await running(stage)
        pid = stage.ref("a").process.pid
        await stage.supervisor.aclose("enough")
        assert (stage.agent("a").state, stage.agent("a").reason) == (S.KILLED, StopReason.SHUTDOWN)
        assert not alive({pid})
