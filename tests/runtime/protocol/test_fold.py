"""The fold: the same whatever the batches, repeatable, never touching what it was given."""

from datetime import timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fakes import events as fake
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.fold import fold
from toka_runtime.protocol.ids import CallId, ProcessRef
from toka_runtime.protocol.protections import Protections
from toka_runtime.protocol.snapshot import RECENT_ACTIONS, FleetState
from toka_runtime.protocol.spec import SandboxMode
from toka_runtime.protocol.states import AgentState, StopReason, TaskState, Verdict

ALPHA = fake.AGENTS[0]
KNOWN = [(ev.SpecLoaded(spec=fake.spec_of(name), rights=Rights()), name) for name in fake.AGENTS]


def folded(*happened: tuple[ev.Event, str | None]) -> FleetState:
    return fold(FleetState(), fake.number([*KNOWN, *happened]))  # type: ignore[list-item]  names are plain strings here


@given(fake.histories(), st.lists(st.integers(0, 80), max_size=8))
def test_batches_make_no_difference(history: list[ev.Envelope], cuts: list[int]) -> None:
    at_once = fold(FleetState(), history)
    bounds = [0, *sorted(min(cut, len(history)) for cut in cuts), len(history)]
    state = FleetState()
    for begin, end in pairwise(bounds):
        state = fold(state, history[begin:end])
    assert state == at_once
    one_by_one = FleetState()
    for envelope in history:
        one_by_one = fold(one_by_one, [envelope])
    assert one_by_one == at_once


@given(fake.histories(), st.integers(0, 80), st.integers(0, 80))
def test_a_resumed_stream_may_overlap(history: list[ev.Envelope], end: int, back: int) -> None:
    durable = [envelope for envelope in history if envelope.durable]
    state = fold(FleetState(), durable[:end])
    assert fold(state, durable[max(0, end - back) :]) == fold(FleetState(), durable)


@given(fake.histories(), st.integers(0, 80))
def test_the_argument_is_not_changed(history: list[ev.Envelope], end: int) -> None:
    before = fold(FleetState(), history[:end])
    kept = before.model_dump()
    fold(before, history[end:])
    assert before.model_dump() == kept


@given(fake.histories())
def test_a_state_survives_json(history: list[ev.Envelope]) -> None:
    state = fold(FleetState(), history)
    assert FleetState.model_validate_json(state.model_dump_json()) == state


def test_agents_that_nothing_touched_keep_their_view() -> None:
    before = folded()
    after = fold(before, fake.number([(fake.output("x"), ALPHA)], before.seq))
    assert after.agents[fake.AGENTS[1]] is before.agents[fake.AGENTS[1]]
    assert after.agents[ALPHA] is not before.agents[ALPHA]
    assert after.agents[ALPHA].last_activity_at == after.at


def test_a_run_from_start_to_end() -> None:
    S = AgentState
    state = folded(
        (ev.AgentBlocked(blockers=("waits for beta",)), ALPHA),
        (ev.AgentStateChanged(before=S.PENDING, after=S.STARTING), ALPHA),
        (ev.AgentStateChanged(before=S.STARTING, after=S.RUNNING), ALPHA),
        (ev.TaskStateChanged(task=0, total=2, after=TaskState.RUNNING, attempt=1), ALPHA),
        (fake.tool_started("t1"), ALPHA),
    )
    view = state.agents[ALPHA]
    assert (view.state, view.requested, view.blockers, view.run) == (S.RUNNING, True, (), "r1")
    assert (view.current_task, view.tasks_done, len(view.tasks)) == (0, 0, 2)
    assert view.last_activity == "read src/main.py"
    assert view.actions[0].outcome == ""
    state = fold(
        state,
        fake.number(
            [
                (ev.ToolCallEnded(call="t1", tool="read", outcome="ok", duration_s=1), ALPHA),
                (
                    ev.TaskStateChanged(task=0, total=2, after=TaskState.DONE, verdict=Verdict.VERIFIED, attempt=1),
                    ALPHA,
                ),
                (
                    ev.Verified(
                        subject="objective 1", objective=0, command="t", verdict=Verdict.VERIFIED, duration_s=1
                    ),
                    ALPHA,
                ),
                (ev.AgentStateChanged(before=S.RUNNING, after=S.COMPLETED), ALPHA),
            ],
            state.seq,
        ),
    )
    view = state.agents[ALPHA]
    assert (view.tasks_done, view.tasks_verified, view.objectives) == (1, 1, (Verdict.VERIFIED,))
    assert view.actions[0].outcome == "ok"
    assert view.ended_at == state.at
    again = fold(state, fake.number([(ev.AgentStateChanged(before=S.COMPLETED, after=S.PENDING), ALPHA)], state.seq))
    view = again.agents[ALPHA]
    assert (view.tasks_done, view.objectives, view.ended_at) == (0, (Verdict.NONE,), None)


def test_protections_are_those_of_the_newest_process_and_of_this_runtime() -> None:
    probed = fake.host_protections()
    told = Protections(asked=SandboxMode.REQUIRED, tier=probed.tier, badges=probed.badges)
    process = ev.ProcessStarted(process=ProcessRef(pid=1, started_ticks=2))
    runtime = ev.RuntimeStarted(epoch="e", version="1", pid=1, workspace="/w", provider="rehearsal")
    state = folded(
        (ev.HostProbed(protections=probed), None), (process, ALPHA), (ev.ProtectionsInForce(protections=told), ALPHA)
    )
    assert (state.protections, state.agents[ALPHA].in_force) == (probed, told)
    later = fold(state, fake.number([(runtime, None), (process, ALPHA)], state.seq))
    assert (later.protections, later.agents[ALPHA].in_force) == (None, None)


def test_only_the_last_actions_are_kept() -> None:
    state = folded(*((fake.tool_started(f"c{number}"), ALPHA) for number in range(RECENT_ACTIONS + 5)))
    calls = [action.call for action in state.agents[ALPHA].actions]
    assert calls == [f"c{number}" for number in range(5, RECENT_ACTIONS + 5)]


def test_a_call_that_ends_is_the_newest_of_its_id() -> None:
    ended = ev.ToolCallEnded(call="c1", tool="read", outcome="error", duration_s=1)
    started = [(fake.tool_started(call), ALPHA) for call in ("c1", "c2", "c1", "c3")]
    actions = folded(*started, (ended, ALPHA)).agents[ALPHA].actions
    assert [(action.call, action.outcome) for action in actions] == [
        ("c1", ""),
        ("c2", ""),
        ("c1", "error"),
        ("c3", ""),
    ]


def test_a_spec_loaded_again_keeps_a_live_run_and_resets_an_idle_one() -> None:
    live = folded(
        (ev.AgentStateChanged(before=AgentState.PENDING, after=AgentState.STARTING), ALPHA), (KNOWN[0][0], ALPHA)
    )
    assert live.agents[ALPHA].state is AgentState.STARTING
    idle = folded((ev.OperationDenied(denial=fake.denial()), ALPHA), (KNOWN[0][0], ALPHA))
    assert idle.agents[ALPHA].denials == 0


def test_a_rejected_file_is_cleared_when_it_loads() -> None:
    rejected = ev.SpecRejected(file="alpha.yaml", problems=())
    assert list(folded((rejected, None)).rejected) == ["alpha.yaml"]
    assert folded((rejected, None), (KNOWN[0][0], ALPHA)).rejected == {}


def test_an_end_keeps_the_time_consumed_and_drops_the_rest() -> None:
    sample = ev.AgentSampled(usage=fake.Usage(cpu_s=4.5, memory_bytes=99))
    ended = ev.ProcessEnded(process=fake.ProcessRef(pid=1, started_ticks=1), survivors=(9,))
    usage = folded((sample, ALPHA), (ended, ALPHA)).agents[ALPHA].usage
    assert (usage.cpu_s, usage.memory_bytes) == (4.5, 0)


def test_events_of_an_unknown_agent_or_kind_change_nothing_but_the_place() -> None:
    before = folded()
    strange = [(fake.output("x"), "nobody"), (ev.UnknownEvent(kind="later"), ALPHA)]
    after = fold(before, fake.number(strange, before.seq))  # type: ignore[arg-type]  as above
    assert after.agents == before.agents
    assert after.seq == before.seq + 2


def test_the_reason_of_a_state_is_told_with_it() -> None:
    changed = ev.AgentStateChanged(
        before=AgentState.PENDING, after=AgentState.SKIPPED, reason=StopReason.DEPENDENCY_FAILED, detail="beta failed"
    )
    view = folded((changed, ALPHA)).agents[ALPHA]
    assert (view.reason, view.detail) == (StopReason.DEPENDENCY_FAILED, "beta failed")
    assert view.since - fake.START < timedelta(seconds=10)


def test_a_call_that_waits_for_quota_says_until_when() -> None:
    started = ev.ModelCallStarted(call=CallId("m1"), task=0, turn=1, provider="p", model="m")
    asked = ev.ModelCallRetried(call=CallId("m1"), attempt=0, delay_s=12.0, code="c", message="slow", shared=True)
    own = ev.ModelCallRetried(call=CallId("m1"), attempt=1, delay_s=3.0, code="c", message="broken")
    ended = ev.ModelCallEnded(call=CallId("m1"), task=0, turn=1, provider="p", model="m", outcome="ok", duration_s=1.0)
    view = folded((started, ALPHA), (asked, ALPHA)).agents[ALPHA]
    assert view.last_activity_at is not None
    assert view.quota_at == view.last_activity_at + timedelta(seconds=12)
    for after in (own, started, ended):
        assert folded((started, ALPHA), (asked, ALPHA), (after, ALPHA)).agents[ALPHA].quota_at is None, after
