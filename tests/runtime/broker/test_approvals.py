"""Asking an operator: what is asked, what an answer opens, how long, and every way in which it must not open more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from fakes.asking import WAIT_S, AskingGate
from toka_runtime.broker.approvals import MAX_A_MINUTE, MAX_OPEN
from toka_runtime.errors import CommandRefused, StoreError
from toka_runtime.policy.catalogue import load_catalogue
from toka_runtime.policy.engine import decide
from toka_runtime.policy.rules import compile_rights
from toka_runtime.protocol.approval import ApprovalOutcome, GrantEnd, GrantScope
from toka_runtime.protocol.capability import Allowed, Operation, OperationKind
from toka_runtime.protocol.events import (
    ApprovalDecided,
    ApprovalRequested,
    GrantExpired,
    GrantIssued,
    GrantRevoked,
    GrantUsed,
    OperationAllowed,
    OperationDenied,
)
from toka_runtime.protocol.ids import AgentName, GrantId
from toka_runtime.protocol.spec import AgentSpec, Security

READER = compile_rights(
    AgentSpec(name=AgentName("a"), security=Security(capabilities_required=("filesystem-read",))), load_catalogue()
)
S = GrantScope


@pytest_asyncio.fixture
async def desk(tmp_path: Path) -> AsyncIterator[AskingGate]:
    found = AskingGate(tmp_path, READER)
    yield found
    found.full = False
    await found.desk.aclose()


def rules(desk: AskingGate) -> list[str]:
    return [event.denial.rule for event in desk.of(OperationDenied)]


async def granted(desk: AskingGate, scope: GrantScope, *, wide: bool = False, ttl_s: float | None = None) -> GrantId:
    """A grant to write docs/a.md, used once already."""
    call = desk.call("write_file", path="docs/a.md", content="x")
    await desk.answer(await desk.asked(), scope=scope, wide=wide, ttl_s=ttl_s)
    assert not (await call).is_error
    return desk.of(GrantIssued)[-1].grant.id


async def test_once_carries_out_that_call_with_wider_rights_and_nothing_more(desk: AskingGate) -> None:
    call = desk.call("write_file", path="docs/a.md", content="x")
    request = await desk.asked()
    assert [denial.operation.target for denial in request.denials] == ["docs/a.md"]
    assert request.denials[0].capability == "filesystem-write"
    assert request.arguments == {"path": "docs/a.md", "content": "x"}
    assert [offer.scope for offer in request.offers][:4] == [S.ONCE, S.TASK, S.TTL, S.RUN]
    assert request.offers[0].text == "write docs/a.md: this one call only"
    assert not desk.runner.requests
    await desk.answer(request)
    assert (await call).content == "carried out"
    grant = desk.of(GrantIssued)[0].grant
    (carried,) = desk.runner.requests
    assert carried.granted is not None
    exact = Operation(kind=OperationKind.WRITE, target="docs/a.md")
    beside = Operation(kind=OperationKind.WRITE, target="docs/b.md")
    assert isinstance(decide(exact, carried.granted), Allowed)
    assert not isinstance(decide(beside, carried.granted), Allowed)
    assert [event.rule for event in desk.of(OperationAllowed)] == [grant.rule]
    assert desk.of(GrantUsed)[0].targets == ("docs/a.md",)
    assert [event.why for event in desk.of(GrantExpired)] == [GrantEnd.USED]
    decided = desk.of(ApprovalDecided)[0]
    assert (decided.outcome, decided.actor, decided.grant) == (ApprovalOutcome.ALLOWED, "operator@desk", grant.id)
    # The same call again: it has to be asked anew.
    again = desk.call("write_file", path="docs/a.md", content="x")
    await desk.answer(await desk.asked(2), allow=False)
    assert (await again).is_error
    assert desk.gate.rights_of_programs == desk.gate.rights


async def test_what_is_covered_by_the_rights_is_not_asked_about(desk: AskingGate) -> None:
    assert not (await desk.call("read_file", path="a.txt")).is_error
    assert not desk.of(ApprovalRequested)
    assert desk.runner.requests[0].granted is None


@pytest.mark.parametrize(
    "path", [".netrc", ".toka/policy.toml", ".git/hooks/pre-commit", "/etc/passwd", "../x", ".ssh/id_rsa"]
)
async def test_what_is_protected_or_outside_is_never_asked_about(desk: AskingGate, path: str) -> None:
    assert (await desk.call("write_file", path=path, content="x")).is_error
    assert not desk.of(ApprovalRequested)
    assert desk.of(OperationDenied)


@pytest.mark.parametrize("command", ["echo $(id)", "cat .netrc", "ls /root", "true && cat .netrc > docs/a"])
async def test_a_command_that_cannot_be_judged_is_never_asked_about(desk: AskingGate, command: str) -> None:
    assert (await desk.call("run_command", command=command)).is_error
    assert not desk.of(ApprovalRequested)


async def test_a_grant_for_the_task_ends_with_it(desk: AskingGate) -> None:
    await granted(desk, S.TASK)
    assert not (await desk.call("write_file", path="docs/a.md", content="other")).is_error
    assert len(desk.of(ApprovalRequested)) == 1
    other = desk.call("write_file", path="docs/a.md", content="x", task=1)
    await desk.answer(await desk.asked(2), allow=False)
    assert (await other).is_error
    await desk.desk.end_task(0)
    assert [event.why for event in desk.of(GrantExpired)] == [GrantEnd.TASK]
    later = desk.call("write_file", path="docs/a.md", content="x")
    await desk.answer(await desk.asked(3), allow=False)
    assert (await later).is_error


@pytest.mark.parametrize(("wide", "asks"), [(False, True), (True, False)])
async def test_the_folder_is_opened_only_where_the_operator_chose_it(desk: AskingGate, wide: bool, asks: bool) -> None:
    await granted(desk, S.RUN, wide=wide)
    beside = desk.call("write_file", path="docs/b.md", content="x")
    if asks:
        await desk.answer(await desk.asked(2), allow=False)
    assert (await beside).is_error is asks
    assert desk.of(GrantIssued)[0].grant.text.startswith("write everything below docs/" if wide else "write docs/a.md")


async def test_a_wide_grant_does_not_open_what_is_protected_below(desk: AskingGate) -> None:
    await granted(desk, S.RUN, wide=True)
    assert (await desk.call("write_file", path="docs/.git/hooks/x", content="x")).is_error
    assert (await desk.call("write_file", path="docs/../../x", content="x")).is_error
    assert len(desk.of(ApprovalRequested)) == 1


async def test_a_file_of_the_top_folder_is_never_widened_to_everything(desk: AskingGate) -> None:
    call = desk.call("write_file", path="a.md", content="x")
    request = await desk.asked()
    assert not any(offer.wide for offer in request.offers)
    with pytest.raises(CommandRefused):
        await desk.answer(request, scope=S.RUN, wide=True)
    await desk.answer(request, allow=False)
    assert (await call).is_error


async def test_a_time_runs_out_but_not_while_frozen(desk: AskingGate) -> None:
    await granted(desk, S.TTL, ttl_s=100)
    await desk.clock.advance(60)
    desk.pause.close()
    await desk.clock.advance(1000)
    desk.pause.open()
    await desk.clock.advance(39)
    assert not desk.of(GrantExpired)
    await desk.clock.advance(2)
    await desk.until(lambda: desk.of(GrantExpired))
    assert desk.of(GrantExpired)[0].why is GrantEnd.TIME
    assert desk.narrowed == 1
    call = desk.call("write_file", path="docs/a.md", content="x")
    await desk.asked(2)
    call.cancel()
    await asyncio.wait([call])


@pytest.mark.parametrize(("scope", "ttl_s"), [(S.TTL, 0.5), (S.TTL, 1e6), (S.TTL, float("nan")), (S.RUN, 60.0)])
async def test_a_time_that_was_not_offered_is_refused(desk: AskingGate, scope: GrantScope, ttl_s: float) -> None:
    call = desk.call("write_file", path="docs/a.md", content="x")
    request = await desk.asked()
    with pytest.raises(CommandRefused):
        await desk.answer(request, scope=scope, ttl_s=ttl_s)
    await desk.answer(request, allow=False)
    await call


async def test_nobody_answers_and_the_countdown_stands_still_while_frozen(desk: AskingGate) -> None:
    call = desk.call("write_file", path="docs/a.md", content="x")
    await desk.asked()
    await desk.clock.advance(WAIT_S - 1)
    desk.pause.close()
    await desk.clock.advance(1000)
    assert not desk.of(ApprovalDecided)
    desk.pause.open()
    await desk.clock.advance(2)
    assert (await call).is_error
    assert desk.of(ApprovalDecided)[0].outcome is ApprovalOutcome.EXPIRED
    assert rules(desk) == ["approval:expired"]


async def test_the_time_limits_stand_still_while_a_person_is_waited_for(desk: AskingGate) -> None:
    assert desk.pause.counting.is_open
    call = desk.call("write_file", path="docs/a.md", content="x")
    request = await desk.asked()
    assert not desk.pause.counting.is_open
    assert desk.pause.is_open
    desk.pause.close()
    desk.pause.open()
    assert not desk.pause.counting.is_open
    await desk.answer(request)
    await call
    assert desk.pause.counting.is_open


async def test_an_approved_call_does_not_start_in_a_frozen_agent(desk: AskingGate) -> None:
    call = desk.call("write_file", path="docs/a.md", content="x")
    request = await desk.asked()
    desk.pause.close()
    await desk.answer(request)
    await desk.clock.advance(1)
    assert not desk.runner.requests
    await desk.desk.revoke(desk.of(GrantIssued)[0].grant.id, "operator")
    desk.pause.open()
    assert (await call).is_error
    assert not desk.runner.requests


async def test_a_denial_is_remembered_for_the_task(desk: AskingGate) -> None:
    call = desk.call("write_file", path="docs/a.md", content="x")
    await desk.answer(await desk.asked(), allow=False)
    assert (await call).is_error
    assert (await desk.call("write_file", path="docs/a.md", content="x")).is_error
    assert len(desk.of(ApprovalRequested)) == 1
    assert set(rules(desk)) == {"approval:denied"}
    other = desk.call("write_file", path="docs/a.md", content="another text")
    await desk.answer(await desk.asked(2), allow=False)
    await other
    await desk.desk.end_task(0)
    later = desk.call("write_file", path="docs/a.md", content="x", task=1)
    await desk.answer(await desk.asked(3), allow=False)
    await later


async def test_equal_requests_are_one_with_a_count_and_once_is_for_the_first(desk: AskingGate) -> None:
    first = desk.call("write_file", path="docs/a.md", content="x")
    await desk.asked()
    second = desk.call("write_file", path="docs/a.md", content="x")
    request = await desk.asked(2)
    assert request.count == 2
    await desk.answer(request)
    assert not (await first).is_error
    assert (await second).is_error
    assert len(desk.runner.requests) == 1
    assert rules(desk) == ["approval:once"]


async def test_an_agent_cannot_tire_the_operator(desk: AskingGate) -> None:
    open_calls = [desk.call("write_file", path=f"docs/{n}.md", content="x") for n in range(MAX_OPEN)]
    await desk.asked(MAX_OPEN)
    assert (await desk.call("write_file", path="docs/more.md", content="x")).is_error
    assert rules(desk) == ["approval:rate"]
    for event in desk.of(ApprovalRequested):
        await desk.answer(event.request, allow=False)
    await asyncio.wait(open_calls)
    for number in range(MAX_OPEN, MAX_A_MINUTE):
        call = desk.call("write_file", path=f"docs/{number}.md", content="x")
        await desk.answer(await desk.asked(number + 1), allow=False)
        await call
    assert (await desk.call("write_file", path="docs/too-many.md", content="x")).is_error
    assert len(desk.of(ApprovalRequested)) == MAX_A_MINUTE
    await desk.clock.advance(61)
    call = desk.call("write_file", path="docs/later.md", content="x")
    await desk.answer(await desk.asked(MAX_A_MINUTE + 1), allow=False)
    await call


async def test_an_answer_has_to_be_for_what_was_shown(desk: AskingGate) -> None:
    call = desk.call("write_file", path="docs/a.md", content="x")
    request = await desk.asked()
    with pytest.raises(CommandRefused, match="digest"):
        await desk.answer(request, digest="0" * 64)
    assert not desk.of(ApprovalDecided)
    await desk.answer(request)
    await call
    with pytest.raises(CommandRefused, match="any more"):
        await desk.answer(request)
    assert len(desk.of(GrantIssued)) == 1


async def test_revoking_ends_the_call_that_runs_and_acts_on_the_next(desk: AskingGate) -> None:
    identity = await granted(desk, S.RUN)
    desk.runner.hang = True
    call = desk.call("write_file", path="docs/a.md", content="x")
    await desk.until(lambda: len(desk.of(GrantUsed)) == 2)
    while len(desk.runner.requests) < 2:
        await asyncio.sleep(0)
    await desk.desk.revoke(identity, "operator")
    assert (await call).is_error
    assert desk.runner.cancelled == 1
    assert desk.narrowed == 1
    assert desk.of(GrantRevoked)[0].actor == "operator"
    with pytest.raises(CommandRefused):
        await desk.desk.revoke(identity, "operator")
    again = desk.call("write_file", path="docs/a.md", content="x")
    await desk.answer(await desk.asked(2), allow=False)
    assert (await again).is_error


async def test_a_host_is_open_for_the_proxy_while_the_grant_holds(desk: AskingGate) -> None:
    call = desk.call("fetch_url", url="https://example.org/x")
    desk.runner.hang = True
    await desk.answer(await desk.asked())
    while not desk.runner.requests:
        await asyncio.sleep(0)
    there = Operation(kind=OperationKind.CONNECT, target="example.org:443")
    other = Operation(kind=OperationKind.CONNECT, target="example.org:80")
    assert isinstance(decide(there, desk.gate.rights_of_programs), Allowed)
    assert not isinstance(decide(other, desk.gate.rights_of_programs), Allowed)
    await desk.desk.revoke(desk.of(GrantIssued)[0].grant.id, "operator")
    await call
    assert not isinstance(decide(there, desk.gate.rights_of_programs), Allowed)


async def test_a_granted_command_is_that_command_line(desk: AskingGate) -> None:
    call = desk.call("run_command", command="make docs")
    await desk.answer(await desk.asked(), scope=S.RUN)
    assert not (await call).is_error
    assert not (await desk.call("run_command", command="make  docs")).is_error
    more = desk.call("run_command", command="make docs install")
    await desk.answer(await desk.asked(2), allow=False)
    assert (await more).is_error


async def test_a_call_that_is_cancelled_withdraws_its_request(desk: AskingGate) -> None:
    call = desk.call("write_file", path="docs/a.md", content="x")
    request = await desk.asked()
    call.cancel()
    await asyncio.wait([call])
    assert desk.of(ApprovalDecided)[0].outcome is ApprovalOutcome.WITHDRAWN
    with pytest.raises(CommandRefused):
        await desk.answer(request)
    assert not desk.of(GrantIssued)


async def test_with_nobody_there_it_is_denied_at_once(tmp_path: Path) -> None:
    desk = AskingGate(tmp_path, READER, wait_s=0)
    assert (await desk.call("write_file", path="docs/a.md", content="x")).is_error
    assert rules(desk) == ["approval:nobody"]


async def test_a_grant_that_cannot_be_recorded_opens_nothing(desk: AskingGate) -> None:
    call = desk.call("write_file", path="docs/a.md", content="x")
    request = await desk.asked()
    desk.full = True
    with pytest.raises(StoreError):
        await desk.answer(request)
    with pytest.raises(StoreError):
        await call
    assert not desk.runner.requests
    assert desk.gate.rights_of_programs == desk.gate.rights


async def test_what_could_mislead_the_eye_is_written_out_and_named(desk: AskingGate) -> None:
    call = desk.call("write_file", path="docs/p\u0430y\u202etxt.md", content="s3cret \u200b")
    request = await desk.asked()
    target = request.denials[0].operation.target
    assert target == "docs/p\\u0430y\\u202etxt.md"
    assert request.arguments["content"] == "[redacted] \\u200b"
    assert any("CYRILLIC and LATIN" in warning for warning in request.warnings)
    assert any("not seen" in warning for warning in request.warnings)
    assert all(offer.text.isascii() for offer in request.offers)
    await desk.answer(request, scope=S.RUN)
    assert not (await call).is_error
    # The Latin twin is another file.
    twin = desk.call("write_file", path="docs/paytxt.md", content="x")
    await desk.answer(await desk.asked(2), allow=False)
    assert (await twin).is_error
