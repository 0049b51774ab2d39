"""`x` on something that was refused cuts its agent off; `:withdraw` and `:give-back`."""

from __future__ import annotations

import pytest

from fakes import fleet
from fakes.console import Console, console
from toka_runtime.protocol import commands as cmd
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.capability import Denial, Layer, Operation, OperationKind, PathRule, Rights

FIRST = fleet.NAMES[0][0]
WRITE = "filesystem-write"


async def deny(made: Console, capability: str, target: str = "/etc/shadow") -> None:
    operation = Operation(kind=OperationKind.WRITE, target=target)
    denial = Denial(
        operation=operation, capability=capability, layer=Layer.POLICY, rule="default-deny", reason="not declared"
    )
    made.client.emit(ev.OperationDenied(denial=denial, task=0), FIRST)
    await made.drained()


async def with_rights(made: Console) -> None:
    """The first agent may write, by a capability."""
    rights = Rights(write=(PathRule(id="w", capability=WRITE, glob="**"),))
    made.client.emit(ev.SpecLoaded(spec=made.agent(FIRST).view.spec, rights=rights), FIRST)
    await made.drained()


@pytest.mark.parametrize("keys", [("5", "x"), ("5", "enter", "x")], ids=["denials", "call"])
async def test_what_was_refused_is_cut_off_at_once(keys: tuple[str, ...]) -> None:
    async with console((120, 40)) as made:
        await with_rights(made)
        await deny(made, WRITE)
        await made.press(*keys)
        await made.until(lambda: made.client.commands, "the command")
        (sent,) = made.client.commands
        assert isinstance(sent, cmd.WithdrawCapability)
        view = made.agent(FIRST).view
        assert (sent.capability, sent.target.agent, sent.target.run) == (WRITE, FIRST, view.run)
        made.client.emit(ev.CapabilityWithdrawn(capability=sent.capability, actor="me"), FIRST)
        await made.drained()
        await made.press("x")
        assert "nothing to cut" in made.text()
        assert len(made.client.commands) == 1


async def test_what_it_never_had_cannot_be_cut() -> None:
    async with console((120, 40)) as made:
        await deny(made, "launch-missiles")
        await made.press("5", "x")
        assert made.client.commands == []
        assert "does not have launch-missiles" in made.text()


async def test_by_name_and_back() -> None:
    async with console((120, 40)) as made:
        await made.put_cursor_on(FIRST)
        await with_rights(made)
        made.app.perform("capability.withdraw", "nonsense")
        await made.pilot.pause()
        assert "does not have nonsense" in made.text()
        made.app.perform("capability.withdraw", WRITE)
        made.client.emit(ev.CapabilityWithdrawn(capability=WRITE, actor="me"), FIRST)
        await made.drained()
        made.app.perform("capability.restore")
        await made.until(lambda: len(made.client.commands) == 2, "the second command")
        sent = made.client.commands
        assert [type(each) for each in sent] == [cmd.WithdrawCapability, cmd.RestoreCapability]
