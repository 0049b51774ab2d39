"""Circles are found, work is not mistaken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toka_runtime.protocol.health import HealthReason
from toka_runtime.supervisor.stuck import MAX_PERIOD, Act, StuckDetector, rounds

N = 4


def act(action: str, result: str = "same", *, denied: bool = False) -> Act:
    return Act(action=action, result=result, shown=f"run {action}", denied=denied)


def after(*acts: Act, repeats: int = N) -> StuckDetector:
    detector = StuckDetector(repeats)
    for each in acts:
        detector.act(each)
    return detector


def test_the_same_action_with_the_same_result() -> None:
    assert after(*[act("ls")] * (N - 1)).finding is None
    found = after(*[act("ls")] * N).finding
    assert found is not None
    assert (found.reason, found.count, found.evidence) == (HealthReason.REPEATED_ACTION, N, ("run ls",))


@pytest.mark.parametrize("period", range(2, MAX_PERIOD + 1))
def test_rounds_of_actions(period: int) -> None:
    acts = [act(f"step {number}") for number in range(period)] * N
    assert after(*acts[:-1]).finding is None
    found = after(*acts).finding
    assert found is not None
    assert (found.reason, found.count) == (HealthReason.ALTERNATING, N)
    assert found.evidence == tuple(f"run step {number}" for number in range(period))


def test_tests_run_again_after_each_edit_are_work() -> None:
    acts = [one for number in range(30) for one in (act(f"edit {number}"), act("pytest", "2 failed"))]
    assert after(*acts).finding is None


def test_a_result_that_changes_is_work() -> None:
    assert after(*[act("poll", f"{number} %") for number in range(30)]).finding is None


def test_something_new_ends_it_and_all_starts_afresh() -> None:
    detector = after(*[act("ls")] * (N + 2))
    assert detector.lasting == 2
    detector.act(act("cat"))
    assert (detector.finding, detector.lasting) == (None, 0)
    for _ in range(N - 1):
        detector.act(act("ls"))
    assert detector.finding is None
    detector.act(act("ls"))
    assert (detector.finding is not None, detector.findings) == (True, 2)


def test_denials_of_one_thing_count_whatever_is_done_between() -> None:
    refused = act("connect", denied=True)
    acts = [one for number in range(N) for one in (act(f"work {number}"), refused)]
    assert after(*acts[:-2]).finding is None
    found = after(*acts).finding
    assert found is not None
    assert (found.reason, found.count, found.evidence) == (HealthReason.REPEATED_DENIAL, N, ("run connect",))


def test_denials_of_different_things_are_a_search() -> None:
    assert after(*[act(f"connect {number}", denied=True) for number in range(30)]).finding is None


def test_talk_without_acting() -> None:
    detector = StuckDetector(N)
    for number in range(N - 1):
        detector.turn(f"text {number}", 0)
    assert detector.finding is None
    detector.turn("text", 0)
    assert detector.finding is not None
    assert detector.finding.reason is HealthReason.MONOLOGUE


def test_the_same_words_beside_new_results_are_a_habit() -> None:
    detector = StuckDetector(N)
    for number in range(30):
        detector.turn("let me look", 1)
        detector.act(act(f"read {number}"))
    assert detector.finding is None


def test_the_same_words_beside_old_results_are_a_circle() -> None:
    detector = StuckDetector(N)
    for number in range(6):
        detector.act(act(f"read {number}"))
    for number in (4, 1, 5, 0):
        detector.turn("let me look", 1)
        detector.act(act(f"read {number}"))
    assert detector.finding is not None
    assert detector.finding.reason is HealthReason.MONOLOGUE


def test_an_operator_gives_another_chance() -> None:
    detector = after(*[act("ls")] * N)
    detector.reset()
    detector.act(act("ls"))
    assert (detector.finding, detector.findings) == (None, 0)


STEPS = st.lists(st.builds(act, st.sampled_from("abc"), st.sampled_from("xy")), max_size=40)


@given(STEPS, st.lists(st.builds(act, st.sampled_from("abc")), min_size=1, max_size=MAX_PERIOD), st.integers(2, 6))
def test_whatever_came_before_a_round_often_enough_is_found(before: list[Act], circle: list[Act], repeats: int) -> None:
    # Its first pass may be news, which makes it start afresh.
    assert after(*before, *circle * (repeats + 1), repeats=repeats).finding is not None


@given(STEPS)
def test_each_step_being_new_is_never_a_circle(steps: list[Act]) -> None:
    fresh = [act(f"{step.action} {number}", step.result) for number, step in enumerate(steps)]
    assert after(*fresh, repeats=2).finding is None


@given(STEPS, st.integers(1, MAX_PERIOD))
def test_rounds_counts_what_is_there(steps: list[Act], period: int) -> None:
    times = rounds(steps, period)
    assert steps[len(steps) - period * times :] == steps[len(steps) - period :][:period] * times
    assert times <= len(steps) // period
