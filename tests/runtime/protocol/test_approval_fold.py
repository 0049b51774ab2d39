"""What waits for an operator and what is granted, in the snapshot: with countdowns that stand still while frozen."""

from __future__ import annotations

from datetime import timedelta

from fakes import events as fake
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.approval import ApprovalOutcome, GrantEnd, GrantScope, request_digest
from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.fold import fold
from toka_runtime.protocol.ids import ApprovalId, CallId, GrantId, RunId
from toka_runtime.protocol.snapshot import AgentView, FleetState
from toka_runtime.protocol.states import AgentState as S

NAME = fake.AGENTS[0]


def state(before: S, after: S) -> ev.AgentStateChanged:
    return ev.AgentStateChanged(before=before, after=after)


def view_after(*happened: tuple[float, ev.Event]) -> AgentView:
    """Of an agent to which these happened, each at so many seconds."""
    known: list[tuple[float, ev.Event]] = [(0, ev.SpecLoaded(spec=fake.spec_of(NAME), rights=Rights()))]
    numbered = fake.number([(event, NAME) for _, event in (*known, *happened)])
    timed = [
        envelope.model_copy(update={"at": fake.START + timedelta(seconds=seconds)})
        for envelope, (seconds, _) in zip(numbered, (*known, *happened), strict=True)
    ]
    return fold(FleetState(), timed).agents[NAME]


ASKED = (1.0, ev.ApprovalRequested(request=fake.approval(wait_s=60)))


def test_a_request_waits_until_it_is_decided_and_is_counted_not_repeated() -> None:
    waiting = view_after(ASKED, (2, ev.ApprovalRequested(request=fake.approval(wait_s=60, count=2))))
    assert [(one.request.id, one.request.count) for one in waiting.approvals] == [("a1", 2)]
    assert waiting.approvals[0].requested_at == fake.START + timedelta(seconds=1)
    decided = ev.ApprovalDecided(approval=ApprovalId("a1"), outcome=ApprovalOutcome.EXPIRED, waited_s=60)
    assert view_after(ASKED, (61, decided)).approvals == ()


def test_a_countdown_stands_still_while_frozen() -> None:
    frozen = (11.0, state(S.RUNNING, S.PAUSED))
    still = view_after(ASKED, frozen).approvals[0].countdown
    assert still.left(fake.START + timedelta(hours=1)) == 50
    again = view_after(ASKED, frozen, (500, state(S.PAUSED, S.RUNNING))).approvals[0].countdown
    assert again.left(fake.START + timedelta(seconds=510)) == 40
    assert again.left(fake.START + timedelta(hours=1)) == 0


def test_a_grant_is_listed_with_its_uses_until_it_ends() -> None:
    issued = (1.0, ev.GrantIssued(grant=fake.grant(ttl_s=100)))
    used = (2.0, ev.GrantUsed(grant=GrantId("g1"), call=CallId("c"), tool="write_file", targets=("docs/a.md",)))
    (held,) = view_after(issued, used).grants
    assert held.uses == 1
    assert held.countdown is not None
    assert held.countdown.left(fake.START + timedelta(seconds=11)) == 90
    assert view_after(issued, (3, ev.GrantRevoked(grant=GrantId("g1"), actor="o"))).grants == ()
    assert view_after(issued, (3, ev.GrantExpired(grant=GrantId("g1"), why=GrantEnd.TIME))).grants == ()
    run = ev.GrantIssued(grant=fake.grant(scope=GrantScope.RUN, ttl_s=None))
    assert view_after((1.0, run)).grants[0].countdown is None


def test_nothing_outlives_its_run() -> None:
    over = view_after(ASKED, (2, ev.GrantIssued(grant=fake.grant())), (3, state(S.RUNNING, S.FAILED)))
    assert over.approvals == over.grants == ()


def test_the_digest_is_another_for_another_agent_run_tool_or_argument() -> None:
    run, other_run = RunId("r1"), RunId("r2")
    digests = {
        request_digest(fake.AGENTS[0], run, "write_file", {"path": "a", "content": "b"}),
        request_digest(fake.AGENTS[1], run, "write_file", {"path": "a", "content": "b"}),
        request_digest(fake.AGENTS[0], other_run, "write_file", {"path": "a", "content": "b"}),
        request_digest(fake.AGENTS[0], run, "edit_file", {"path": "a", "content": "b"}),
        request_digest(fake.AGENTS[0], run, "write_file", {"path": "\u0430", "content": "b"}),
        request_digest(fake.AGENTS[0], run, "write_file", {"path": "ab", "content": ""}),
    }
    assert len(digests) == 6
    turned = request_digest(fake.AGENTS[0], run, "write_file", {"content": "b", "path": "a"})
    assert turned in digests
