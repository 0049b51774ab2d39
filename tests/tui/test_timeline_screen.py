"""Screen 9, Timeline: every act from the log, newest last, filtered, paged back, exported whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fakes import fleet
from fakes.client import HOST, FakeRuntimeClient
from fakes.clock import FakeClock
from fakes.console import Console, console
from toka_console.panes.trail_table import TrailTable
from toka_console.screens.timeline import TimelineScreen
from toka_runtime.protocol import commands as cmd
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.fold import fold
from toka_runtime.protocol.ids import CommandId
from toka_runtime.protocol.snapshot import FleetState

FIRST, SECOND = fleet.NAMES[0][0], fleet.NAMES[1][0]
SIZES = [(200, 50), (80, 24), (60, 15)]


def table(made: Console) -> TrailTable:
    return made.app.current.query_one(TrailTable)


async def opened(made: Console) -> TrailTable:
    await made.press("9")
    shown = table(made)
    await made.until(lambda: shown.order and not any(key.gap for key in shown.order), "the log")
    await made.pilot.pause()
    return shown


def operate(made: Console, reason: str = "it loops") -> None:
    made.client.emit(
        ev.CommandHandled(
            command=CommandId("k1"), actor="ann@desk (console)", name="agent.kill", target=FIRST, ok=True, reason=reason
        ),
        FIRST,
    )


def many(count: int) -> tuple[FakeRuntimeClient, FakeClock]:
    """A log of `count` notices that no console has seen."""
    clock = FakeClock()
    client = FakeRuntimeClient(clock, FleetState(host=HOST))
    fleet.load(client)
    for number in range(count):
        client.emit(ev.Noticed(level=ev.Level.INFO, code="test", message=f"notice {number:06}"))
    return client, clock


def nothing(client: FakeRuntimeClient, clock: FakeClock) -> None:
    """The log is as it was made."""


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_shows_what_was_before_and_what_comes_newest_last(size: tuple[int, int]) -> None:
    async with console(size) as made:
        await opened(made)
        operate(made)
        await made.drained()
        text = made.text()
        rows = [line for line in text.splitlines() if "agent.kill" in line]
        assert rows, text
        assert "operator" in rows[0]
        assert "chain: unavailable" in text
        assert len(text.splitlines()) == size[1]
        if size[0] == 200:
            assert "ann@desk" in rows[0]
            assert "reason: it loops" in rows[0]
        last = table(made).selected()
        assert last is not None
        assert isinstance(last.envelope.event, ev.CommandHandled), "the view follows"


async def test_a_view_that_looks_back_stays_where_it_is() -> None:
    async with console((120, 40)) as made:
        shown = await opened(made)
        await made.press("k", "k")
        chosen = shown.cursor
        operate(made)
        await made.drained()
        assert shown.cursor == chosen
        assert not shown.following
        await made.press("G")
        assert shown.following
        assert "agent.kill" in made.text()


async def test_filters_name_agent_kind_actor_layer_and_time() -> None:
    async with console((200, 50)) as made:
        shown = await opened(made)
        operate(made)
        await made.drained()
        await made.press("/")
        await made.type("kind:operator actor:ann")
        await made.press("enter")
        kinds = {shown.held[key].envelope.event.kind for key in shown.order}
        assert kinds == {"command.handled"}
        await made.press("escape", "/")
        await made.type("layer:policy")
        await made.press("enter")
        found = [shown.held[key].envelope.event for key in shown.order]
        assert found
        assert all(isinstance(event, ev.OperationDenied) for event in found)
        await made.press("escape")
        await made.clock.advance(3600)
        operate(made)
        await made.drained()
        await made.press("/")
        await made.type("since:10m")
        await made.press("enter")
        assert len(shown.order) == 1


async def test_audit_of_an_agent_shows_it_alone() -> None:
    async with console((120, 40)) as made:
        await made.put_cursor_on(FIRST)
        await made.press("e")
        shown = table(made)
        await made.until(lambda: shown.order and not any(key.gap for key in shown.order), "the log")
        await made.pilot.pause()
        assert {shown.held[key].envelope.agent for key in shown.order} == {FIRST}


async def test_enter_opens_the_record_with_every_field() -> None:
    async with console((80, 24)) as made:
        await opened(made)
        operate(made, reason="z" * 30)
        await made.drained()
        await made.press("enter")
        text = made.text()
        assert "proof      unavailable" in text
        assert "command.handled" in text
        assert "z" * 30 in text
        await made.press("escape")
        assert isinstance(made.app.current, TimelineScreen)
        assert "Timeline" in made.text().splitlines()[2] + made.text().splitlines()[3]


async def test_goes_from_trouble_to_trouble() -> None:
    async with console((120, 40)) as made:
        shown = await opened(made)
        await made.press("g", ".")
        first = shown.selected()
        assert first is not None
        assert first.is_problem
        await made.press(".")
        second = shown.selected()
        assert second is not None
        assert second.envelope.seq > first.envelope.seq
        assert second.is_problem
        await made.press(",")
        assert shown.selected() is first


async def test_pages_back_as_far_as_somebody_looks() -> None:
    client, clock = many(3_000)
    async with console((120, 40), script=nothing, client=client, clock=clock) as made:
        await made.press("9")
        shown = table(made)
        await made.until(lambda: len(shown.order) > 100, "the first page")
        assert shown.order[0].gap is not None, "the rest is a gap, and said to be one"
        read = [request for request in client.requests if isinstance(request.command, cmd.ReadEvents)]
        assert len(read) < 5, "not the whole log"
        await made.press("g")
        await made.until(lambda: len(shown.order) > 600, "the second page")
        while any(key.gap for key in shown.order):
            before = len(shown.order)
            await made.press("g")
            await made.until(lambda before=before: len(shown.order) > before or shown.order[0].gap is None, "a page")
        await made.press("g")
        assert "runtime 0.1.0 started" in made.text()
        assert [key.seq for key in shown.order] == sorted(key.seq for key in shown.order)
        assert len(shown.order) == client.state.seq


async def test_what_the_stream_could_not_deliver_is_read_from_the_log() -> None:
    async with console((120, 40)) as made:
        shown = await opened(made)
        missed = made.client.envelope(ev.Noticed(level=ev.Level.ERROR, code="test", message="while nobody listened"))
        made.client.state = fold(made.client.state, [missed])
        made.client.log.append(missed)
        made.client.resync(missed=1)
        await made.until(lambda: any(key.seq == missed.seq and not key.gap for key in shown.order), "the gap's record")
        assert "while nobody listened" in made.text()


async def test_export_is_complete_and_says_its_digest(tmp_path: Path) -> None:
    client, clock = many(5_000)
    async with console((240, 40), script=nothing, client=client, clock=clock) as made:
        target = tmp_path / "audit.jsonl"
        await made.press("9", ":")
        await made.type(f"export-timeline {target}")
        await made.press("enter")
        await made.until(target.exists, "the file")
        records = [json.loads(line) for line in target.read_text(encoding="ascii").splitlines()]
        assert [each["seq"] for each in records] == list(range(1, client.state.seq + 1))
        assert {each["proof"] for each in records} == {"unavailable"}
        await made.until(lambda: "sha256" in made.text(), "the digest")
        assert target.stat().st_mode & 0o777 == 0o600
        before = target.read_bytes()
        await made.press(":")
        await made.type(f"export-timeline {target}")
        await made.press("enter")
        await made.until(lambda: "nothing was written" in made.text(), "the refusal")
        assert target.read_bytes() == before
