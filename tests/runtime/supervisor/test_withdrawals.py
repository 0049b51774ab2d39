"""An operator takes a declared capability away from a running agent: policy, kernel and proxy keep to it at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fakes.approving import Script, folder, view, write
from fakes.gateway import Answer, finish, tool_turn
from fakes.processes import processes_naming
from fakes.scene import Scene, scene, spec
from toka_runtime.policy.catalogue import load_catalogue
from toka_runtime.policy.rules import compile_rights
from toka_runtime.protocol import commands as cmd
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.spec import AgentSpec, Security
from toka_runtime.protocol.states import AgentState

WRITE = "filesystem-write"


def withdraw(stage: Scene, capability: str = WRITE) -> cmd.WithdrawCapability:
    return cmd.WithdrawCapability(target=stage.ref("a"), capability=capability)


def command(line: str) -> Answer:
    return tool_turn(("run_command", {"command": line}))


def calls(stage: Scene) -> list[str]:
    return [event.outcome for event in stage.of(ev.ToolCallEnded)]


async def ended(stage: Scene) -> None:
    await stage.supervisor.settled()
    await stage.until(lambda: stage.log[-1].seq >= stage.supervisor.store.head)


async def test_from_the_answer_on_nothing_is_written(tmp_path: Path) -> None:
    held = asyncio.Event()
    brain = Script(write("one.md"), held, write("two.md"), command("echo three > three.md"), finish())
    async with scene(tmp_path, brain, spec("a")) as stage:
        await stage.start()
        await stage.until(lambda: calls(stage) == ["ok"])
        answer = await stage.send(withdraw(stage))
        assert answer.ok, answer
        assert (await stage.send(withdraw(stage))).code == "command.refused"
        held.set()
        await ended(stage)
        assert (folder(stage) / "one.md").exists()
        assert not (folder(stage) / "two.md").exists(), "policy"
        assert not (folder(stage) / "three.md").exists(), "kernel"
        assert view(stage).withdrawn == (WRITE,)
        (told,) = stage.of(ev.CapabilityWithdrawn)
        assert (told.capability, told.actor) == (WRITE, "test")
        refused = [event.denial for event in stage.of(ev.OperationDenied) if event.denial.operation.target == "two.md"]
        assert refused[0].capability == WRITE


async def test_a_call_in_progress_is_ended(tmp_path: Path) -> None:
    brain = Script(command(f"echo begun > begun; sleep 600 {tmp_path}"))
    async with scene(tmp_path, brain, spec("a")) as stage:
        await stage.start()
        await stage.until(lambda: stage.of(ev.WorkspaceReady))
        while not (folder(stage) / "begun").exists():
            await asyncio.sleep(0.01)
        assert (await stage.send(withdraw(stage, "script-execution"))).ok
        assert processes_naming(f"sleep\x00600\x00{tmp_path}") == []
        await ended(stage)
        assert calls(stage)[0] == "denied"


async def test_later_runs_keep_to_it_until_it_is_restored(tmp_path: Path) -> None:
    brain = Script(finish(), write("two.md"), finish(), write("three.md"), finish())
    async with scene(tmp_path, brain, spec("a")) as stage:
        await stage.run()
        assert (await stage.send(withdraw(stage))).ok
        await stage.run("a")
        assert calls(stage) == ["ok", "denied", "ok"]
        restore = cmd.RestoreCapability(target=stage.ref("a"), capability=WRITE)
        assert (await stage.send(restore)).ok
        assert (await stage.send(restore)).code == "command.refused"
        await stage.run("a")
        assert (folder(stage) / "three.md").exists()
        assert view(stage).withdrawn == ()


async def test_another_runtime_on_the_same_state_keeps_to_it(tmp_path: Path) -> None:
    async with scene(tmp_path, Script(finish()), spec("a")) as stage:
        await stage.run()
        assert (await stage.send(withdraw(stage))).ok
    async with scene(tmp_path, Script(write("two.md"), finish()), spec("a")) as stage:
        await stage.run()
        assert "denied" in calls(stage)
        assert not (folder(stage) / "two.md").exists()


async def test_what_is_frozen_keeps_to_it_from_the_thaw_on(tmp_path: Path) -> None:
    held = asyncio.Event()
    async with scene(tmp_path, Script(held, write("one.md"), finish()), spec("a")) as stage:
        await stage.start()
        await stage.until(lambda: stage.of(ev.ModelCallStarted))
        assert (await stage.send(cmd.PauseAgent(target=stage.ref("a")))).ok
        assert (await stage.send(withdraw(stage))).ok
        assert stage.agent("a").state is AgentState.PAUSED
        held.set()
        assert (await stage.send(cmd.ResumeAgent(target=stage.ref("a")))).ok
        await stage.supervisor.settled()
        assert not (folder(stage) / "one.md").exists()


async def test_what_it_does_not_have_cannot_be_withdrawn(tmp_path: Path) -> None:
    async with scene(tmp_path, Script(finish()), spec("a")) as stage:
        answer = await stage.send(withdraw(stage, "network-access"))
        assert (answer.ok, answer.code) == (False, "command.refused")
        assert not stage.of(ev.CapabilityWithdrawn)


def test_rights_without_a_capability_are_less_in_everything() -> None:
    catalogue = load_catalogue()
    declared = tuple(name for name in catalogue.capabilities if name not in catalogue.baseline)
    whole = AgentSpec(name=AgentName("a"), security=Security(capabilities_required=declared))
    full = compile_rights(whole, catalogue)
    for name in declared:
        less = compile_rights(whole, catalogue, {name})
        for kind in ("read", "write", "execute", "network"):
            kept, before = getattr(less, kind), getattr(full, kind)
            assert {rule.id for rule in kept} <= {rule.id for rule in before}
            assert name not in {rule.capability for rule in kept}
        assert set(less.tools) <= set(full.tools)
        assert set(less.environment) <= set(full.environment)
        assert _denied(less) >= _denied(full)


def _denied(rights: Rights) -> set[str]:
    return {rule.glob for rule in (*rights.deny_read, *rights.deny_write)}
