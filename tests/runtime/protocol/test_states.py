"""The one table of legal transitions, as a whole: properties that every change to it has to keep."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toka_runtime.errors import IllegalTransition
from toka_runtime.protocol.states import LIVE, TERMINAL, TRANSITIONS, AgentState, check_transition

S = AgentState


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(AgentState)


def test_terminal_live_and_pending_are_all_there_is() -> None:
    assert TERMINAL | LIVE | {S.PENDING} == set(AgentState)
    assert not TERMINAL & LIVE


@given(st.sampled_from(AgentState), st.sampled_from(AgentState))
def test_a_change_is_in_the_table_or_raises(before: AgentState, after: AgentState) -> None:
    if after in TRANSITIONS[before]:
        check_transition(before, after)
    else:
        with pytest.raises(IllegalTransition, match=f"{before} → {after}"):
            check_transition(before, after)


def test_an_ended_agent_only_starts_over() -> None:
    assert all(TRANSITIONS[state] == {S.PENDING} for state in TERMINAL)


def test_every_live_agent_can_be_killed_and_can_fail() -> None:
    assert all({S.KILLED, S.FAILED} <= TRANSITIONS[state] for state in LIVE | {S.PENDING})


def test_nothing_runs_without_having_started() -> None:
    assert {before for before, after in TRANSITIONS.items() if S.RUNNING in after} == {S.STARTING, S.PAUSED}
    assert S.COMPLETED not in TRANSITIONS[S.PENDING] | TRANSITIONS[S.STARTING] | TRANSITIONS[S.PAUSED]


def test_skipped_agents_never_had_a_process() -> None:
    assert {before for before, after in TRANSITIONS.items() if S.SKIPPED in after} == {S.PENDING}


def test_no_state_is_its_own_successor_and_all_can_be_reached() -> None:
    assert all(state not in after for state, after in TRANSITIONS.items())
    reached, todo = {S.PENDING}, [S.PENDING]
    while todo:
        for state in TRANSITIONS[todo.pop()] - reached:
            reached.add(state)
            todo.append(state)
    assert reached == set(AgentState)
