"""The window on the log: whatever comes in whatever order, records and gaps together are the whole log, once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toka_console import trail as module
from toka_console.trail import Gap, Trail
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.ids import HostId


def event(seq: int) -> ev.Envelope:
    notice = ev.Noticed(level=ev.Level.INFO, code="test", message=str(seq))
    return ev.Envelope(seq=seq, at=datetime(2026, 1, 1, tzinfo=UTC), host=HostId("a"), event=notice)


class Reading(NamedTuple):
    gap: Gap
    forward: bool


def answer(trail: Trail, asked: Reading, limit: int) -> None:
    """As the log answers, whatever happened since it was asked."""
    inside = list(range(asked.gap.after + 1, asked.gap.before))
    page = inside[:limit] if asked.forward else inside[-limit:]
    trail.fill(asked.gap, [event(seq) for seq in page], forward=asked.forward, more=len(inside) > limit)


def check(trail: Trail, head: int) -> None:
    held = [record.envelope.seq for record in trail.records]
    missing = [seq for gap in trail.gaps for seq in range(gap.after + 1, gap.before)]
    assert held == sorted(held)
    assert sorted(held + missing) == list(range(1, head + 1)), (held, trail.gaps)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("live"), st.integers(1, 9)),
            st.tuples(st.just("skip"), st.integers(1, 9)),
            st.tuples(st.just("read"), st.integers(0, 9)),
            st.tuples(st.just("late"), st.integers(0, 9)),
        ),
        max_size=60,
    )
)
def test_records_and_gaps_are_the_whole_log(steps: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST", 20)
        patch.setattr(module, "TRIM", 5)
        trail, head, old = Trail(), 0, None
        for what, number in steps:
            if what == "live":
                for _ in range(number):
                    head += 1
                    trail.add(event(head))
            elif what == "skip":
                head += number
                trail.adopt(head)
            elif trail.gaps:
                gap = trail.gaps[number % len(trail.gaps)]
                asked = Reading(gap, trail.reads_forward(gap))
                # An answer may come when the gap is not the same any more.
                answer(trail, old if what == "late" and old is not None else asked, 4)
                old = asked
            check(trail, head)
            assert len(trail.records) <= 20


def test_another_log_begins_anew() -> None:
    trail = Trail()
    for seq in range(1, 6):
        trail.add(event(seq))
    trail.adopt(2)
    check(trail, 2)
    assert trail.gaps == [Gap(0, 3)]
