"""The scheduler is a pure function: who starts, who waits for what, who never can."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.spec import Dependency, DependencyCondition, Priority
from toka_runtime.protocol.states import LIVE, AgentState
from toka_runtime.supervisor.scheduler import Candidate, schedule

S = AgentState


def candidate(
    name: str,
    *needs: Dependency,
    state: AgentState = S.PENDING,
    priority: Priority = Priority.MEDIUM,
    memory: int | None = None,
    verified: bool = False,
    requested: bool = True,
    holding: str = "",
) -> Candidate:
    return Candidate(AgentName(name), state, priority, needs, memory, verified, requested, holding)


def needs(name: str, *, required: bool = True, condition: str = "completed") -> Dependency:
    return Dependency(agent=AgentName(name), required=required, condition=DependencyCondition(condition))


def test_dependant_waits_and_says_for_what() -> None:
    plan = schedule([candidate("b", needs("a")), candidate("a")], slots=8)
    assert plan.start == ("a",)
    assert plan.blockers == {"b": ("a to be completed",)}


def test_dependant_starts_once_it_completed() -> None:
    plan = schedule([candidate("b", needs("a")), candidate("a", state=S.COMPLETED)], slots=8)
    assert plan.start == ("b",)
    assert not plan.blockers


@pytest.mark.parametrize("state", [S.FAILED, S.KILLED, S.SKIPPED])
def test_failed_required_dependency_skips_with_the_reason(state: AgentState) -> None:
    plan = schedule([candidate("b", needs("a")), candidate("a", state=state)], slots=8)
    assert plan.start == ()
    assert plan.skip == {"b": f"required agent a is {state}"}


@pytest.mark.parametrize("state", [S.FAILED, S.KILLED, S.SKIPPED, S.COMPLETED])
def test_optional_dependency_only_has_to_end(state: AgentState) -> None:
    plan = schedule([candidate("b", needs("a", required=False)), candidate("a", state=state)], slots=8)
    assert plan.start == ("b",)


def test_optional_dependency_that_runs_is_waited_for() -> None:
    plan = schedule([candidate("b", needs("a", required=False)), candidate("a", state=S.RUNNING)], slots=8)
    assert plan.blockers == {"b": ("a to be completed",)}


def test_absent_or_unrequested_optional_dependency_is_no_reason_to_wait() -> None:
    plan = schedule(
        [candidate("b", needs("x", required=False), needs("a", required=False)), candidate("a", requested=False)],
        slots=8,
    )
    assert plan.start == ("b",)


def test_missing_required_agent_is_a_skip() -> None:
    assert schedule([candidate("b", needs("x"))], slots=8).skip == {"b": "required agent x is not loaded"}


@pytest.mark.parametrize(
    ("state", "starts"), [(S.STARTING, False), (S.RUNNING, True), (S.PAUSED, True), (S.COMPLETED, True)]
)
def test_condition_started(state: AgentState, starts: bool) -> None:
    plan = schedule([candidate("b", needs("a", condition="started")), candidate("a", state=state)], slots=8)
    assert (plan.start == ("b",)) is starts


def test_condition_verified_needs_proof() -> None:
    asks = candidate("b", needs("a", condition="verified"))
    assert schedule([asks, candidate("a", state=S.COMPLETED, verified=True)], slots=8).start == ("b",)
    plan = schedule([asks, candidate("a", state=S.COMPLETED)], slots=8)
    assert plan.skip == {"b": "required agent a completed, but its work is not verified"}


def test_priority_takes_the_slot_and_the_other_says_so() -> None:
    plan = schedule([candidate("low", priority=Priority.LOW), candidate("top", priority=Priority.CRITICAL)], slots=1)
    assert plan.start == ("top",)
    assert plan.blockers == {"low": ("a free slot (1 agents run at most)",)}


def test_memory_admission_and_the_one_that_is_too_big_alone() -> None:
    plan = schedule([candidate("a", memory=600 << 20), candidate("b", memory=600 << 20)], slots=8, memory_bytes=1 << 30)
    assert plan.start == ("a",)
    assert plan.blockers == {"b": ("memory: 600 MiB declared, 424 MiB free",)}
    assert schedule([candidate("huge", memory=4 << 30)], slots=8, memory_bytes=1 << 30).start == ("huge",)


def test_back_off_holds() -> None:
    assert schedule([candidate("a", holding="a restart in 4 s")], slots=8).blockers == {"a": ("a restart in 4 s",)}


names = st.sampled_from(["a", "b", "c", "d", "e"])
fleets = st.lists(
    st.builds(
        candidate,
        names,
        st.builds(needs, names, required=st.booleans(), condition=st.sampled_from(list(DependencyCondition))),
        state=st.sampled_from(list(AgentState)),
        priority=st.sampled_from(list(Priority)),
        memory=st.none() | st.integers(0, 1 << 32),
        verified=st.booleans(),
        requested=st.booleans(),
    ),
    unique_by=lambda agent: agent.name,
)


@given(fleets, st.integers(1, 4))
def test_every_waiting_agent_is_started_skipped_or_told_why(fleet: list[Candidate], slots: int) -> None:
    plan = schedule(fleet, slots=slots, memory_bytes=1 << 31)
    waiting = {agent.name for agent in fleet if agent.requested and agent.state is S.PENDING}
    groups = [set(plan.start), set(plan.skip), set(plan.blockers)]
    assert set().union(*groups) == waiting
    assert sum(map(len, groups)) == len(waiting)
    assert all(plan.blockers.values())
    assert all(plan.skip.values())
    live = sum(agent.state in LIVE for agent in fleet)
    assert len(plan.start) <= max(0, slots - live)
