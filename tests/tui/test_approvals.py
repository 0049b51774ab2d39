"""Requests for approval and grants on screen: what is shown, which command goes out, and what never does."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from fakes import asked, fleet
from fakes.client import HOST, FakeRuntimeClient
from fakes.clock import FakeClock
from fakes.console import Console, console
from toka_console.answering import parse_offer
from toka_console.dialogs.choose import ChooseDialog
from toka_console.dialogs.confirm import ConfirmDialog
from toka_console.panes.table import TablePane
from toka_runtime.protocol import commands as cmd
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.approval import ApprovalOutcome, GrantScope
from toka_runtime.protocol.ids import AgentName, ApprovalId, GrantId, ProcessRef, RunId, RunRef
from toka_runtime.protocol.states import AgentState, StopReason

SIZES = [(200, 50), (80, 24), (60, 15)]
WRITER_REF = RunRef(
    host=HOST, agent=AgentName(asked.WRITER), run=RunId("r0000000000"),
    process=ProcessRef(pid=5000, started_ticks=880000),
)  # fmt: skip


@asynccontextmanager
async def asking(size: tuple[int, int] = (120, 40), **options: object) -> AsyncGenerator[Console]:
    """Two requests and a grant, with the Approvals on screen long enough to be read."""
    clock = FakeClock()
    client = FakeRuntimeClient(clock)
    await asked.work(client, clock)
    async with console(size, script=lambda client, clock: None, client=client, clock=clock, **options) as made:
        await made.press("6")
        await read(made)
        yield made


async def read(made: Console) -> None:
    """The operator looks for a second."""
    made.app.repaint()
    await made.clock.advance(1)
    made.app.repaint()
    await made.pilot.pause()


def answer(made: Console, identity: str = "a1", **fields: object) -> cmd.DecideApproval:
    request = next(
        each.request
        for view in made.client.state.agents.values()
        for each in view.approvals
        if each.request.id == identity
    )
    return cmd.DecideApproval.model_validate(
        {"target": WRITER_REF, "approval": request.id, "digest": request.digest, "allow": True} | fields
    )


# -- as it looks --------------------------------------------------------------------------------------------------

KEYS = {
    "approvals": [],
    "once": ["a"],
    "choose": ["A"],
    "chosen": ["A", "down", "down", "down", "down", "down", "down", "down"],
    "grant": ["tab", "tab"],
    "deny-all": ["X"],
}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("look", list(KEYS))
async def test_text(look: str, size: tuple[int, int], snapshot: SnapshotAssertion) -> None:
    async with asking(size) as made:
        await made.press(*KEYS[look])
        text = made.text()
    assert len(text.splitlines()) == size[1]
    assert text == snapshot


async def test_everything_about_a_request_is_on_screen() -> None:
    async with asking((200, 50)) as made:
        text = made.text()
        request = made.client.state.agents[AgentName(asked.WRITER)].approvals[0].request
        for words in (
            "4:31", asked.WRITER, "fs.write docs/decisions.md", "filesystem-write", "write_file, task 2",
            request.digest, "serde comes from the workspace", "no declared capability allows it", "1:51",
            "crates.io:443", "×3",
        ):  # fmt: skip
            assert words in text, words
        places = [text.index(f"{offer.text}") for offer in request.offers]
        assert places == sorted(places), "every offer in words, the narrowest first"
        assert "write everything below docs/: for 10 min" in text.split("Grants 1")[1]
        assert "×1" in text.split("Grants 1")[1]


async def test_it_is_told_on_every_screen_with_the_countdown_that_ends_first() -> None:
    async with asking((200, 50)) as made:
        for key in ("1", "2", "3", "5", "6"):
            await made.press(key)
            assert "2 approvals pending 1:51" in made.text().splitlines()[0], key
            assert "2 approvals pending 1:51 (6 shows them)" in made.text().splitlines()[2], key
        await made.press("1")
        assert "PENDING approval 4:31" in made.text()


def row(made: Console, name: str) -> str:
    """Of the first table on screen."""
    return next(line for line in made.text().splitlines() if name[:12] in line and "─" not in line)


async def test_the_countdown_runs_and_stands_still_while_the_agent_is_frozen() -> None:
    async with asking() as made:
        assert "4:31" in row(made, asked.WRITER)
        await read(made)
        assert "4:30" in row(made, asked.WRITER)
        fleet.change(made.client, asked.WRITER, AgentState.PAUSED, StopReason.OPERATOR)
        await made.drained()
        for _ in range(3):
            await read(made)
        assert "‖ 4:30" in row(made, asked.WRITER)
        await made.press("1")
        assert "PAUSED" in row(made, asked.WRITER)
        fleet.change(made.client, asked.WRITER, AgentState.RUNNING)
        await made.drained()
        await read(made)
        assert "4:29" in row(made, asked.WRITER)


async def test_nothing_is_drawn_again_while_nothing_waits() -> None:
    async with console() as made:
        await made.press("6")
        await read(made)
        drawn: list[object] = []
        table = made.app.current.query_one("#requests")
        table.refresh = lambda *args, **kwargs: drawn.append(args)  # type: ignore[method-assign,assignment] # counted
        for _ in range(3):
            await read(made)
        assert drawn == []
        asked.request(made.client)
        await made.drained()
        assert drawn, "and the count works"


async def test_a_request_that_is_over_leaves_the_screen() -> None:
    async with asking() as made:
        decided = ev.ApprovalDecided(approval=ApprovalId("a1"), outcome=ApprovalOutcome.EXPIRED, waited_s=300)
        made.client.emit(decided, asked.WRITER)
        await made.drained()
        assert "Requests 1" in made.text()
        assert "1 approval pending" in made.text()


async def test_what_an_agent_wrote_cannot_act_or_hide() -> None:
    async with asking((200, 50)) as made:
        asked.request(
            made.client, identity="a3", target="docs/\x1b[2J\u202egnp.md\nnext", warnings=("mixes \x9b letters",),
            content="\x1b]52;c;ZXZpbA==\x07\u200b",
        )  # fmt: skip
        await made.drained()
        await made.press("G")
        text = made.text()
        assert not set(text) & {"\x1b", "\x9b", "\u202e", "\u200b", "\x07"}
        assert "docs/␛[2J⟨RLO⟩gnp.md" in text
        assert "▲ warning  mixes ⟨U+009B⟩ letters" in text
        assert "␛]52;c;ZXZpbA==␇⟨ZWSP⟩" in text


# -- answers ------------------------------------------------------------------------------------------------------


async def test_once_takes_two_keys_and_sends_exactly_what_was_shown() -> None:
    async with asking() as made:
        await made.press("a")
        assert isinstance(made.app.screen, ConfirmDialog)
        assert made.client.commands == []
        assert "write docs/decisions.md: this one call only" in made.text()
        await made.press("enter")
        assert made.client.commands == [answer(made)]
        assert "⋯ allow" in row(made, asked.WRITER), "it is pending until the event has come back"
        assert made.agent(asked.WRITER).view.approvals, "and nothing else has changed"
        await made.press("x")
        assert len(made.client.commands) == 1
        assert "allowing is not confirmed yet" in made.text()


@pytest.mark.parametrize("key", ["A", "a", "X"])
async def test_no_single_key_opens_anything(key: str) -> None:
    async with asking() as made:
        await made.press(key, "escape")
        assert made.client.commands == []


async def test_more_than_once_has_cancel_as_its_default() -> None:
    async with asking() as made:
        await made.press("A")
        assert isinstance(made.app.screen, ChooseDialog)
        await made.press("enter")
        assert made.client.commands == []
        for scope in ("task", "ttl", "run", "task wide"):
            await made.press(":")
            await made.type(f"allow {scope}")
            await made.press("enter")
            assert isinstance(made.app.screen, ConfirmDialog), scope
            await made.press("enter")
        assert made.client.commands == []


@pytest.mark.parametrize(
    ("downs", "fields"),
    [
        (1, {"scope": GrantScope.ONCE}),
        (2, {"scope": GrantScope.TASK}),
        (3, {"scope": GrantScope.TTL}),
        (4, {"scope": GrantScope.RUN}),
        (5, {"scope": GrantScope.TASK, "wide": True}),
        (7, {"scope": GrantScope.RUN, "wide": True}),
    ],
)
async def test_each_offer_can_be_chosen(downs: int, fields: dict[str, Any]) -> None:
    async with asking() as made:
        await made.press("A", *["down"] * downs, "enter")
        assert made.client.commands == [answer(made, **fields)]


async def test_another_time_than_the_one_offered() -> None:
    async with asking() as made:
        await made.press(":")
        await made.type("allow ttl 90s")
        await made.press("enter")
        assert "1 m 30 s of running time" in made.text()
        await made.press("tab", "enter")
        assert made.client.commands == [answer(made, scope=GrantScope.TTL, ttl_s=90.0)]


def test_offers_in_words() -> None:
    offers = asked.offers("write x", "write everything below y")
    assert parse_offer("run", offers) == (offers[3], None)
    assert parse_offer("ttl wide 2h", offers) == (offers[5], 7200.0)
    for text in ("once wide", "for ever", "run 90s", "ttl 90", "ttl 0s", "ttl 1m 2m"):
        with pytest.raises(ValueError, match=r"is not offered|a time such as"):
            parse_offer(text, offers)


async def test_deny_is_one_key() -> None:
    async with asking() as made:
        await made.press("j")
        await read(made)
        await made.press("x")
        (command,) = made.client.commands
        assert isinstance(command, cmd.DecideApproval)
        assert (command.approval, command.allow, command.target.agent) == ("a2", False, asked.FETCHER)


async def test_revoke_is_the_same_key_on_a_grant() -> None:
    async with asking() as made:
        await made.press("tab", "tab")
        await read(made)
        await made.press("x")
        assert made.client.commands == [cmd.RevokeGrant(target=WRITER_REF, grant=GrantId("g1"))]
        assert "⋯ revok" in made.text()
        made.client.emit(ev.GrantRevoked(grant=GrantId("g1"), actor="me"), asked.WRITER)
        made.client.confirm(made.client.requests[-1])
        await made.drained()
        assert "Grants" not in made.text()


async def test_a_request_is_not_allowed_by_a_key_meant_for_a_grant() -> None:
    async with asking() as made:
        await made.press("tab", "tab")
        await read(made)
        await made.press("a", "A")
        assert made.client.commands == []
        assert "no request is selected" in made.text()


async def test_deny_all_denies_and_revokes_everything_of_this_agent_alone() -> None:
    async with asking() as made:
        await made.press("X")
        assert "1 request" in made.text()
        await made.press("enter")
        assert made.client.commands == [
            answer(made, allow=False),
            cmd.RevokeGrant(target=WRITER_REF, grant=GrantId("g1")),
        ]


# -- what moves under the operator --------------------------------------------------------------------------------


async def test_a_request_that_has_just_come_under_the_cursor_takes_no_key() -> None:
    async with asking() as made:
        over = ev.ApprovalDecided(approval=ApprovalId("a1"), outcome=ApprovalOutcome.WITHDRAWN, waited_s=30)
        made.client.emit(over, asked.WRITER)
        await made.drained()
        for key in ("a", "A", "x"):
            await made.press(key)
            assert "has just changed: look again" in made.text(), key
        assert made.client.commands == []
        await read(made)
        await made.press("x")
        assert [command.op for command in made.client.commands] == ["approval.decide"]


async def test_coming_back_to_the_screen_means_looking_again() -> None:
    async with asking() as made:
        await made.press("1", "6", "x")
        assert "has just changed: look again" in made.text()
        assert made.client.commands == []


async def test_an_answer_goes_to_what_was_shown_at_the_key_press() -> None:
    async with asking() as made:
        expected = answer(made)
        await made.press("a")
        over = ev.ApprovalDecided(approval=ApprovalId("a1"), outcome=ApprovalOutcome.EXPIRED, waited_s=300)
        made.client.emit(over, asked.WRITER)
        await made.drained()
        assert "it waits no more: this answer will be refused" in made.text()
        made.client.answer = lambda request: (
            cmd.CommandResult(id=request.id, ok=False, message="request a1 does not wait for an answer any more")
            if request.command.op == "approval.decide"
            else None
        )
        await made.press("enter")
        assert made.client.commands == [expected]
        assert "allowing: request a1 does not wait for an answer any more" in made.text()


async def test_a_new_run_is_not_answered_for_the_old_one() -> None:
    async with asking() as made:
        await made.press("a")
        fleet.change(made.client, asked.WRITER, AgentState.FAILED, StopReason.WORKER_DIED)
        fleet.change(made.client, asked.WRITER, AgentState.PENDING)
        fleet.start(made.client, asked.WRITER, 99)
        await made.drained()
        await made.press("enter")
        (command,) = made.client.commands
        assert isinstance(command, cmd.DecideApproval)
        assert command.target == WRITER_REF


async def test_read_only_links_answer_nothing() -> None:
    clock = FakeClock()
    client = FakeRuntimeClient(clock)
    client.read_only = "you may only look"
    await asked.work(client, clock)
    async with console(script=lambda client, clock: None, client=client, clock=clock) as made:
        await made.press("6")
        await read(made)
        for key in ("a", "A", "x", "X"):
            await made.press(key)
            assert "you may only look" in made.text(), key
        assert client.commands == []


async def test_an_unconfirmed_answer_does_not_stand_in_the_way_of_a_pause() -> None:
    async with asking() as made:
        made.client.hold()
        await made.press("a", "enter", "p")
        assert [command.op for command in made.client.commands] == ["approval.decide", "agent.pause"]


# -- attention ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bell", [True, False])
async def test_the_bell_rings_once_a_request_if_settings_say_so(bell: bool) -> None:
    async with console() as made:
        rung: list[bool] = []
        made.app.bell = lambda: rung.append(True)  # type: ignore[method-assign] # counted
        settings = made.app.session.settings
        made.app.session.settings = type(settings)(bell=bell)
        made.app.repaint()
        first = asked.request(made.client)
        await made.drained()
        made.client.emit(ev.ApprovalRequested(request=first.model_copy(update={"count": 2})), asked.WRITER)
        await made.drained()
        made.app.repaint()
        assert rung == ([True] if bell else [])


async def test_only_the_list_that_the_keys_are_about_shows_a_cursor() -> None:
    async with asking() as made:
        requests, grants = made.app.current.query(TablePane)
        assert (requests.marks_cursor, grants.marks_cursor) == (True, False)
        await made.press("tab", "tab")
        assert (requests.marks_cursor, grants.marks_cursor) == (False, True)


async def test_a_long_target_hides_neither_what_is_opened_nor_that_something_has_no_room() -> None:
    async with console((60, 15)) as made:
        asked.request(made.client, target=f"docs/{'x' * 900}.md")
        await made.drained()
        await made.press("6")
        await read(made)
        await made.press("a")
        assert "allow      once" in made.text()
        assert "opens      write " in made.text()
        assert "more lines below, ↓ shows them" in made.text()
        assert "▸Allow" in made.text()
