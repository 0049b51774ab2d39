"""What agents and hosts used: bounded, packed, at ever coarser steps, with gaps where nothing was seen."""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toka_console.format import meters
from toka_console.history import CROWDED, FULL, Figure, History, Ring, Row, Scale, resample, scale_for

START = 1_767_225_600.0
"""A full minute."""


def row(number: int) -> Row:
    return Row(float(number), number, 0, 0, 0, 0, 0)


def filled(seconds: float, every: float = 0.5, scale: Scale = FULL, begin: float = START) -> History:
    """CPU counts the samples."""
    history = History()
    for number in range(int(seconds / every)):
        history.add(begin + (number + 1) * every, number % 100, 10.0, 3, number * 1000.0, scale)
    return history


@given(st.lists(st.integers(1, 12), max_size=80))
def test_a_ring_holds_the_newest_rows_however_its_capacity_changes(capacities: list[int]) -> None:
    ring, expected = Ring(), list[int]()
    for number, capacity in enumerate(capacities):
        ring.append(row(number), capacity)
        expected = [*expected, number][-capacity:]
        assert [int(found.at) for found in ring.rows()] == expected
        assert [int(ring[index].at) for index in range(len(ring))] == expected
        assert ring.figure(-1, Figure.CPU) == number
    with pytest.raises(IndexError):
        ring[len(ring)]


def test_an_hour_is_visible_and_no_step_is_told_twice() -> None:
    history = filled(7200)
    spans = history.spans()
    assert spans[-1].end - spans[0].start >= 3600
    for before, after in pairwise(spans):
        assert abs(before.end - after.start) < 0.01, "neither a hole nor an overlap"
    steps = {round(span.end - span.start, 1) for span in spans}
    assert {0.5, 10.0, 60.0} <= steps


def test_amounts_are_neither_lost_nor_doubled_by_coarser_steps() -> None:
    history = History()
    for number in range(4000):
        history.spend(7, 0.001)
        history.add(START + (number + 1) * 0.5, 0.1, 1, 1, 0, FULL)
    assert abs(sum(span.figures[Figure.TOKENS] for span in history.spans()) - 4000 * 7) <= 7, "one sample at most"
    rates = resample(history.spans(), Figure.TOKENS, START + 2000, 120, 60)
    assert [round(rate or 0, 3) for rate in rates] == [14.0] * 60
    costs = resample(history.spans(), Figure.COST, START + 2000, 900, 90)
    assert all(cost is not None and abs(cost - 7.2) < 0.02 for cost in costs)


def test_a_time_without_samples_is_a_gap_and_what_was_spent_in_it_is_no_spike() -> None:
    history = filled(60)
    history.spend(1_000_000, 9.0)
    for number in range(60):
        history.add(START + 120 + (number + 1) * 0.5, 50, 10, 3, 1e12, FULL)
    drawn = resample(history.spans(), Figure.CPU, START + 150, 150, 150)
    assert all(value is not None for value in drawn[:60])
    assert drawn[61:119] == [None] * 58
    assert all(value is not None for value in drawn[120:])
    assert max(value or 0 for value in resample(history.spans(), Figure.TOKENS, START + 150, 150, 150)) == 0
    assert max(value or 0 for value in resample(history.spans(), Figure.IO, START + 150, 150, 150)) <= 2000
    assert "\u2800" not in (drawn_rows := "".join(meters.area(drawn, 100.0, 75, 1)))
    assert drawn_rows[31:59] == " " * 28, "a gap is empty, also without the line of nothing"
    assert meters.spark(drawn, 100.0, 150)[70:110] == " " * 40


def test_peaks_survive_coarser_steps() -> None:
    history = History()
    for number in range(1000):
        history.add(START + number, 9.0 if number == 100 else 0.1, 1, 1, 0, FULL)
    assert max(value or 0 for value in resample(history.spans(), Figure.CPU, START + 1000, 900, 30)) == 9.0


def test_a_clock_that_is_set_back_begins_anew() -> None:
    history = filled(30)
    history.add(START + 29, 55, 1, 1, 0, FULL)
    assert len(history.column(Figure.CPU)) == 60, "a late sample changes nothing"
    history.add(START - 3600, 77, 1, 1, 0, FULL)
    assert list(history.column(Figure.CPU)) == [77.0]


def test_ten_thousand_agents_have_room() -> None:
    assert (scale_for(1000), scale_for(10_000)) == (FULL, CROWDED)
    history = filled(4000, scale=CROWDED)
    rings = [getattr(history, name) for name in ("_samples", "_tens", "_minutes")]
    size = sum(sys.getsizeof(ring) + sys.getsizeof(ring._bytes) for ring in rings)
    assert size < 6_000, "60 MB for all of them"
    assert history.spans()[-1].end - history.spans()[0].start >= 3500


@given(
    st.lists(st.tuples(st.floats(0.1, 30), st.floats(0, 100)), min_size=1, max_size=60),
    st.integers(1, 80),
    st.sampled_from(list(Figure)),
)
def test_what_is_drawn_lies_within_what_was_seen(
    steps: list[tuple[float, float]], columns: int, figure: Figure
) -> None:  # fmt: skip
    history, at = History(), START
    for step, value in steps:
        at += step
        history.spend(int(value), value)
        history.add(at, value, value, value, 0, FULL)
    drawn = resample(history.spans(), figure, at, 120, columns)
    assert len(drawn) == columns
    assert drawn[-1] is not None, "the last sample is the newest column"
    if figure is Figure.CPU:
        most = max(value for _, value in steps)
        assert all(value is None or 0 <= value <= most * 1.0001 for value in drawn)
    else:
        assert all(value is None or value >= 0 for value in drawn)
