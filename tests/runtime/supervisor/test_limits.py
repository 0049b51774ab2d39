"""A limit that is reached: told with its culprit, obeyed as the spec says, and nobody else notices."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.cell import system_python
from fakes.gateway import Answer, finish, tool_results, tool_turn
from fakes.scene import Scene, scene, spec
from toka_runtime.llm.base import ModelRequest
from toka_runtime.protocol import commands as cmd
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.capability import Layer
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.limits import LimitName, LimitOutcome, Strength
from toka_runtime.protocol.states import AgentState, StopReason

S = AgentState
MIB = 1 << 20
BOMB = f"""{system_python()} -c '
import os, time
for _ in range(4):
    if os.fork() == 0:
        held = bytearray(60 << 20)
        held[::4096] = b"x" * (len(held) // 4096)
        time.sleep(60)
time.sleep(60)
'"""
FILL = "n=0; while [ $n -lt 200 ]; do n=$((n+1)); head -c 1M /dev/zero > f$n; sleep 0.01; done; sleep 60"


def limits(text: str, more: str = "") -> str:
    return f"  resource_limits: {{{text}}}\n{more}"


def runs(command: str, *, only: str = "a") -> object:
    def brain(request: ModelRequest) -> Answer:
        if request.context.agent != only or tool_results(request):
            return finish()
        return tool_turn(("run_command", {"command": command}))

    return brain


def reached(stage: Scene, limit: LimitName) -> ev.LimitReached:
    return next(event for event in stage.of(ev.LimitReached) if event.limit is limit)


@pytest.mark.parametrize(
    ("command", "limit", "name", "reason"),
    [
        (BOMB, "max_memory: 128MiB", LimitName.MEMORY, StopReason.MEMORY_LIMIT),
        (FILL, "max_disk_usage: 8MiB", LimitName.DISK, StopReason.DISK_LIMIT),
    ],
    ids=["memory", "disk"],
)
async def test_it_ends_with_the_reason_and_its_neighbour_goes_on(
    tmp_path: Path, command: str, limit: str, name: LimitName, reason: StopReason
) -> None:
    specs = (spec("a", security=limits(limit)), spec("b", security=limits(limit)))
    async with scene(tmp_path, runs(command), *specs) as stage:
        await stage.run()
        assert stage.final() == {"a": S.FAILED, "b": S.COMPLETED}
        assert stage.agent("a").reason is reason
        event = reached(stage, name)
        assert event.outcome in (LimitOutcome.KILLED, LimitOutcome.EXCEEDED)
        assert event.used >= 0.9 * event.allowed
        assert event.culprit is not None
        assert event.culprit.pid not in (0, 1)
        detail = next(e.detail for e in stage.of(ev.AgentStateChanged, "a") if e.after is S.FAILED)
        assert detail.startswith(f"{name} limit of ")
        assert stage.of(ev.LimitReached, "b") == []
        assert stage.supervisor.snapshot().agents[AgentName("a")].limits_reached == len(stage.of(ev.LimitReached))


async def test_it_pauses_where_its_spec_says_so(tmp_path: Path) -> None:
    text = spec("a", security=limits("max_disk_usage: 8MiB", "  on_limit: pause\n"))
    async with scene(tmp_path, runs(FILL), text) as stage:
        await stage.start()
        await stage.until(lambda: stage.agent("a").state is S.PAUSED)
        assert stage.agent("a").reason is StopReason.DISK_LIMIT
        await stage.until(lambda: any(e.after is S.PAUSED for e in stage.of(ev.AgentStateChanged)))
        assert len(stage.of(ev.LimitReached)) == 1
        await stage.send(cmd.KillAgent(target=stage.ref("a")))
        await stage.supervisor.settled()
        assert stage.agent("a").reason is StopReason.OPERATOR


async def test_what_holds_each_limit_is_said_before_the_start(tmp_path: Path) -> None:
    text = spec("a", security=limits("max_memory: 512MiB, timeout: 60"))
    async with scene(tmp_path, lambda request: finish(), text) as stage:
        await stage.run()
        kinds = [type(e.event) for e in stage.log]
        assert kinds.index(ev.LimitsInForce) < kinds.index(ev.ProcessStarted)
        said = {limit.limit: limit for limit in stage.supervisor.snapshot().agents[AgentName("a")].limits}
        assert said[LimitName.MEMORY].declared
        assert said[LimitName.MEMORY].figure == 512 * MIB
        held = stage.supervisor.services.guard.enforcer.mechanism(LimitName.MEMORY)
        assert said[LimitName.MEMORY].strength is (Strength.ENFORCED if held else Strength.APPROXIMATE)
        assert bool(said[LimitName.MEMORY].reason) is not bool(held)
        assert not said[LimitName.DESCRIPTORS].declared
        assert LimitName.CPU not in said


async def test_strict_refuses_what_is_not_exact_and_starts_nothing(tmp_path: Path) -> None:
    text = spec("a", security=limits("max_disk_usage: 1GB", "  strict: true\n"))
    async with scene(tmp_path, lambda request: finish(), text, spec("b")) as stage:
        await stage.run()
        assert stage.final() == {"a": S.FAILED, "b": S.COMPLETED}
        assert stage.agent("a").reason is StopReason.SANDBOX_UNAVAILABLE
        assert stage.of(ev.ProcessStarted, "a") == []
        detail = next(e.detail for e in stage.of(ev.AgentStateChanged, "a") if e.after is S.FAILED)
        assert "limits.unenforceable" in detail
        assert "disk of 953.7 MiB is approximate" in detail


async def test_a_refused_fork_is_a_denial_and_the_agent_goes_on(tmp_path: Path) -> None:
    command = f"""{system_python()} -c '
import os, time
try:
    for _ in range(100):
        if os.fork() == 0:
            time.sleep(2)
            os._exit(0)
except BlockingIOError:
    time.sleep(1)
'"""
    async with scene(tmp_path, runs(command), spec("a", security=limits("max_processes: 20"))) as stage:
        if not stage.supervisor.services.guard.enforcer.mechanism(LimitName.PROCESSES):
            pytest.skip("no control group counts refused forks here")
        await stage.run()
        assert stage.final() == {"a": S.COMPLETED}
        denied = [event for event in stage.of(ev.OperationDenied) if event.denial.layer is Layer.LIMIT]
        assert denied
        assert denied[0].denial.rule == "limit:processes"
        assert reached(stage, LimitName.PROCESSES).outcome is LimitOutcome.REFUSED


async def test_an_agent_without_walls_is_limited_too(tmp_path: Path) -> None:
    text = spec("a", security=limits("max_memory: 128MiB")).replace("sandbox: true", "sandbox: false")
    async with scene(tmp_path, runs(BOMB), text, allow_unconfined=True) as stage:
        await stage.run()
        assert stage.agent("a").reason is StopReason.MEMORY_LIMIT
