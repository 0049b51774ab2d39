"""A tree of fifty that resists: paused, resumed and killed with proof, by every mechanism of this host and user."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from fakes.agents import RunningTool, Watched, fork_server, plan, request, running, states, tree_of
from toka_runtime.errors import ProcessError
from toka_runtime.limits import cgroup_control
from toka_runtime.limits.cgroup_files import Places, own_places
from toka_runtime.limits.enforcer import Enforcer
from toka_runtime.sandbox.plan import AgentProcess
from toka_runtime.sandbox.process import ShimProcess

PAUSED_BY = {"signals": "signals", "v2": "cgroup.freeze", "v1": "cgroup v1 freezer"}
KILLED_BY = {"signals": "signals", "v2": "cgroup.kill", "v1": "cgroup v1 freezer, signals"}
pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=["signals", "v2", "v1"])
def mechanism(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def enforcer(mechanism: str) -> Iterator[Enforcer]:
    enforcer = Enforcer()
    if mechanism != "signals":
        own = own_places()
        freezer = {name: folder for name, folder in own.v1.items() if name == "freezer"}
        enforcer = Enforcer.open(Places(own.v2, {}) if mechanism == "v2" else Places(None, freezer))
        if not enforcer._branches:  # pyright: ignore[reportPrivateUsage]  # what it found is told nowhere else
            pytest.skip(f"no freezer of cgroup {mechanism} for this user: {enforcer.problem}")
    yield enforcer
    enforcer.close()


@asynccontextmanager
async def fifty(tmp_path: Path, enforcer: Enforcer) -> AsyncGenerator[tuple[AgentProcess, RunningTool]]:
    async with fork_server(enforcer=enforcer, confine=False) as server:
        process = await server.launch(plan(tmp_path))
        tool = RunningTool(process, request(tmp_path, "fifty"))
        pids = await tool.told()
        assert len(pids) == 51
        yield process, tool
        await tool.end()


def proceeds(pids: list[int]) -> dict[int, int]:
    """Processor time that each has used, in ticks, with the switches: what a frozen process never gains."""
    found: dict[int, int] = {}
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):  # some come and go
            text = Path(f"/proc/{pid}/status").read_text()
            lines = dict(line.split(":", 1) for line in text.splitlines())
            found[pid] = int(lines["voluntary_ctxt_switches"]) + int(lines["nonvoluntary_ctxt_switches"])
    return found


async def test_fifty_are_paused_resumed_and_killed_with_proof(
    tmp_path: Path, enforcer: Enforcer, mechanism: str
) -> None:
    async with fifty(tmp_path, enforcer) as (process, _):
        proof = await process.pause()
        assert proof.confirmed, proof
        assert proof.mechanism == PAUSED_BY[mechanism]
        assert proof.processes >= 51
        everyone = tree_of(process)
        assert len(everyone) > 52
        before = proceeds(everyone[1:])
        await asyncio.sleep(0.05)  # twice the time in which each of those that fork would have forked
        assert tree_of(process) == everyone
        assert proceeds(everyone[1:]) == before
        resumed = await process.resume()
        assert resumed.confirmed, resumed
        async with asyncio.timeout(20):
            while proceeds(everyone[1:]) == before:
                await asyncio.sleep(0.001)
        watched = Watched(*tree_of(process))
        killed = await process.kill()
        assert killed.confirmed, killed
        assert killed.mechanism == KILLED_BY[mechanism]
        assert killed.duration_ms < 2000
        assert not running(everyone)
        await watched.all_gone()


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_fifty_that_are_paused_are_ended(tmp_path: Path, enforcer: Enforcer, how: str) -> None:
    async with fifty(tmp_path, enforcer) as (process, _):
        assert (await process.pause()).confirmed
        everyone = tree_of(process)
        proof = await (process.kill() if how == "kill" else process.terminate(0.1))
        assert proof.confirmed, proof
        assert not running(everyone)
        assert await process.wait() != 0


async def test_a_tool_that_is_given_up_while_frozen_ends_when_it_is_thawed(
    tmp_path: Path, enforcer: Enforcer, mechanism: str
) -> None:
    async with fifty(tmp_path, enforcer) as (process, tool):
        assert (await process.pause()).confirmed
        everyone = tree_of(process)
        async with asyncio.timeout(10):
            await tool.end()
        # Nothing is asked of a shim that cannot answer.
        later = RunningTool(process, request(tmp_path, "hang"))
        assert (await process.resume()).confirmed
        assert await later.told() == "hanging"
        assert set(states(everyone)) <= {process.process.pid, process.worker_pid}
        await later.end()


async def test_what_does_not_freeze_is_named(
    tmp_path: Path, enforcer: Enforcer, mechanism: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mechanism == "signals":
        pytest.skip("test_tree.py shows it for signals")
    async with fifty(tmp_path, enforcer) as (process, _):
        assert isinstance(process, ShimProcess)
        awake = os.getpid()

        def never(true: Callable[[], bool], _timeout_s: float) -> bool:
            true()
            return False

        def named(_freezer: object) -> tuple[int, ...]:
            return (awake,)

        monkeypatch.setattr(cgroup_control, "_until", never)
        monkeypatch.setattr(type(process.held.freezer), "awake", named)
        proof = await process.pause()
        assert not proof.confirmed
        assert proof.survivors == (awake,)
        monkeypatch.undo()
        assert (await process.resume()).confirmed


async def test_without_its_group_signals_must_do_and_are_named(
    tmp_path: Path, enforcer: Enforcer, mechanism: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fifty(tmp_path, enforcer) as (process, _):
        assert isinstance(process, ShimProcess)

        def gone(*_: object) -> bool:
            raise FileNotFoundError

        if mechanism != "signals":
            monkeypatch.setattr(type(process.held.freezer), "freeze", gone)
            monkeypatch.setattr(type(process.held.killer), "kill", gone)
        proof = await process.pause()
        assert (proof.confirmed, proof.mechanism) == (True, "signals")
        assert (await process.resume()).confirmed
        killed = await process.kill()
        assert (killed.confirmed, killed.mechanism) == (True, "signals")
        with pytest.raises(ProcessError):
            await process.pause()
