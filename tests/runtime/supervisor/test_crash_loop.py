"""When an agent that died is started again, and when no more."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from toka_runtime.protocol.spec import Restart
from toka_runtime.supervisor.crash_loop import Breaker, death_text, restart_delay_s


def test_delays_are_drawn_under_a_doubling_ceiling_with_a_cap() -> None:
    restart, rng = Restart(backoff_s=1.0, max_backoff_s=10.0), random.Random(1)
    for restarts, ceiling in ((1, 1.0), (2, 2.0), (4, 8.0), (5, 10.0), (5000, 10.0)):
        delays = [restart_delay_s(restart, restarts, rng) for _ in range(300)]
        assert 0.9 * ceiling < max(delays) <= ceiling
        assert min(delays) < 0.1 * ceiling


def test_it_opens_after_so_many_deaths_in_the_window_and_an_operator_closes_it() -> None:
    breaker = Breaker(Restart(crash_limit=3, crash_window_s=60.0))
    for at in (0.0, 50.0, 61.0):
        breaker.died(at, f"death at {at:g}")
        assert not breaker.open
    breaker.died(80.0, "the last")
    assert breaker.open
    assert breaker.seen == ("death at 50", "death at 61", "the last")
    breaker.close()
    assert not breaker.open


@given(st.lists(st.floats(0, 100), max_size=30), st.integers(1, 6), st.floats(0, 50))
def test_it_is_open_when_the_window_holds_enough_deaths(gaps: list[float], limit: int, window: float) -> None:
    breaker, at, deaths = Breaker(Restart(crash_limit=limit, crash_window_s=window)), 0.0, list[float]()
    for gap in gaps:
        at += gap
        deaths.append(at)
        breaker.died(at, "")
        assert breaker.open == (sum(at - death <= window for death in deaths) >= limit)


def test_a_death_is_told_by_its_signal_or_code_and_last_words() -> None:
    assert death_text(-11, "Fatal Python error", "it died") == "ended by SIGSEGV: Fatal Python error"
    assert death_text(3, "", "it died") == "exit code 3"
    assert death_text(None, "", "the fork server is gone") == "the fork server is gone"
    assert death_text(-250, "", "") == "ended by signal 250"
