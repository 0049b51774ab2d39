"""Whether an agent that died is started again, and when: full jitter under a doubling cap, and a breaker that opens
when it dies too often. Pure."""

from __future__ import annotations

import random
import signal
from collections import deque

from toka_runtime.protocol.spec import Restart
from toka_runtime.protocol.states import StopReason

CRASHES = frozenset({StopReason.WORKER_DIED, StopReason.SPAWN_FAILED, StopReason.INTERNAL})
"""Ends of a run that are no result of its work."""


def restart_delay_s(restart: Restart, restarts: int, rng: random.Random) -> float:
    """`restarts`: this one included, from 1."""
    ceiling = min(restart.max_backoff_s, restart.backoff_s * 2.0 ** min(restarts - 1, 30))
    return rng.uniform(0.0, ceiling)


class Breaker:
    """Counts deaths. Open after `restart.crash_limit` within `restart.crash_window_s`; an operator closes it."""

    def __init__(self, restart: Restart) -> None:
        self._window_s = restart.crash_window_s
        self._deaths: deque[tuple[float, str]] = deque(maxlen=restart.crash_limit)

    def died(self, at: float, seen: str) -> None:
        """`at` in seconds of a clock that never goes back; `seen`: what is known of it, for people."""
        self._deaths.append((at, seen))

    @property
    def open(self) -> bool:
        deaths = self._deaths
        return len(deaths) == deaths.maxlen and deaths[-1][0] - deaths[0][0] <= self._window_s

    @property
    def seen(self) -> tuple[str, ...]:
        """Of each death that counts, oldest first."""
        return tuple(seen for _, seen in self._deaths)

    def close(self) -> None:
        self._deaths.clear()


def death_text(exit_code: int | None, last_words: str, detail: str) -> str:
    """`ended by SIGSEGV: the last line it wrote`."""
    if exit_code is None:
        how = detail
    elif exit_code < 0:
        how = f"ended by {_signal_name(-exit_code)}"
    else:
        how = f"exit code {exit_code}"
    return f"{how}: {last_words}" if last_words else how


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
