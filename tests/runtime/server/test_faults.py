"""What a bad link does to a front end: nothing lost, nothing doubled, nothing carried out twice, and it is told."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from fakes.relay import Relay, relay
from fakes.served import Reader, Served, ask, reading, served
from toka_runtime.aio import spawn
from toka_runtime.client.attached import AttachedClient, attach_unix
from toka_runtime.client.base import LinkState
from toka_runtime.errors import LinkDown
from toka_runtime.protocol import wire
from toka_runtime.protocol.commands import PauseFleet, ReadEvents
from toka_runtime.protocol.events import CommandHandled
from toka_runtime.protocol.ids import CommandId

FAULTS = 25


@pytest.mark.parametrize("seed", range(4))
async def test_any_row_of_faults_gives_the_fold_of_an_undisturbed_run(tmp_path: Path, seed: int) -> None:
    choose = random.Random(seed)
    async with served(tmp_path) as made, relay(tmp_path / "far.sock", made.path) as link:
        async with reading(await attach_unix(made.path)) as undisturbed:
            client = await attach_unix(link.path)
            async with reading(client) as reader:
                sent = [await _fault(choose, number, made, link, client) for number in range(FAULTS)]
                link.let_go()
                await reader.until(lambda: reader.state.seq == made.head)
                await undisturbed.until(lambda: undisturbed.state.seq == made.head)
                assert reader.state.agents == undisturbed.state.agents
                assert reader.state.notices == undisturbed.state.notices
                _whole(reader, made)
                carried_out = [e.event.command for e in reader.log if isinstance(e.event, CommandHandled)]
                assert len(carried_out) == len(set(carried_out)), "none twice"
                answered = {command for command, ok in sent if ok}
                assert answered <= set(carried_out), "what was answered was done, and its event came"
        assert link.connections > 3, "the link did break"


async def _fault(
    choose: random.Random, number: int, made: Served, link: Relay, client: AttachedClient
) -> tuple[CommandId, bool]:
    """Something happens to the link while the runtime works and a command is under way; its id, and whether it was
    answered as done."""
    identity = CommandId(f"test-{number}")
    sending = spawn(client.send(ask(PauseFleet(agents=()), identity)), name="command")
    match choose.choice(["cut", "cut in a frame", "held, then cut", "cut twice", "none"]):
        case "cut":
            await made.notice(f"{number}")
            link.cut()
        case "cut in a frame":
            link.cut_after(choose.randrange(1, 3000))
            await made.notice(*("x" * choose.randrange(10, 900) for _ in range(4)))
        case "held, then cut":
            link.hold()
            await made.notice(f"{number} while nothing moves")
            link.cut()
            link.let_go()
        case "cut twice":
            link.cut()
            await made.notice(f"{number} between")
            link.cut()
        case _:
            await made.notice(f"{number}")
    result = await sending
    assert result.ok or result.code in ("link.down", "link.unknown"), result
    return identity, result.ok


def _whole(reader: Reader, made: Served) -> None:
    if not reader.resyncs:
        assert reader.durable == list(range(reader.durable[0], made.head + 1))
    assert len(reader.durable) == len(set(reader.durable))


async def _until_down(client: AttachedClient) -> None:
    changed = asyncio.Event()
    client.on_link = changed.set
    async with asyncio.timeout(20):
        while client.link.state is not LinkState.DOWN:
            await changed.wait()
            changed.clear()


async def test_a_link_on_which_nothing_moves_is_found_and_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(wire, "STALE_S", 0.2)
    monkeypatch.setattr(wire, "LOST_S", 0.6)
    async with (
        served(tmp_path) as made,
        relay(tmp_path / "far.sock", made.path) as link,
        reading(await attach_unix(link.path)) as reader,
    ):
        client = reader._client  # pyright: ignore[reportPrivateUsage]
        link.hold()
        await made.notice("said into the dark")
        await _until_down(client)
        assert "nothing heard for" in client.link.detail
        link.let_go()
        await reader.until(lambda: reader.state.seq == made.head)
        _whole(reader, made)


async def test_a_command_on_a_link_that_is_down_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with (
        served(tmp_path) as made,
        relay(tmp_path / "far.sock", made.path) as link,
        reading(await attach_unix(link.path)) as reader,
    ):
        client = reader._client  # pyright: ignore[reportPrivateUsage]
        link.closed_to_new = True
        link.cut()
        await _until_down(client)
        answer = await client.send(ask(PauseFleet()))
        assert (answer.ok, answer.code) == (False, "link.down")
        assert "next try in" in answer.message
        link.closed_to_new = False
        await made.notice("up again")
        await reader.until(lambda: reader.state.seq == made.head)
        assert client.link.state is LinkState.UP
        handled = [each for each in reader.log if isinstance(each.event, CommandHandled)]
        assert handled == [], "it was not sent later behind the operator's back"


async def test_answers_pass_a_flood(tmp_path: Path) -> None:
    """A slow link full of events: an answer does not wait for them."""
    async with (
        served(tmp_path) as made,
        relay(tmp_path / "far.sock", made.path) as link,
        reading(await attach_unix(link.path)) as reader,
    ):
        client = reader._client  # pyright: ignore[reportPrivateUsage]
        link.delay_s = 0.05
        flood = spawn(made.notice(*("x" * 3000 for _ in range(600))), name="flood")
        await reader.until(lambda: len(reader.durable) > 20)
        answer = await client.send(ask(ReadEvents(limit=1)))
        assert answer.ok
        behind = made.head - reader.state.seq
        await flood
        link.delay_s = 0
        await reader.until(lambda: reader.state.seq == made.head)
        assert behind > 0, "the answer came before events that were there first"


async def test_a_runtime_that_is_gone_for_good_is_said_again_and_again(tmp_path: Path) -> None:
    async with served(tmp_path) as made, relay(tmp_path / "far.sock", made.path) as link:
        link.closed_to_new = True
        with pytest.raises(LinkDown, match="cannot attach"):
            await attach_unix(link.path)
