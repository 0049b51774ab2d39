"""Rounds of `kill -9` at random moments against a runtime, its workers, its fork server and its gateway.

    python bench/recovery.py [ROUNDS] [SEED]

Raises on anything lost, done twice, or left behind; prints how long it takes until every agent is at work again.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from e2e.killing import Figures, kill_rounds


def report(figures: Figures, took_s: float) -> None:
    kills = ", ".join(f"{victim} {count}" for victim, count in sorted(figures.rounds.items()))
    print(
        f"kills: {sum(figures.rounds.values())} ({kills}) in {took_s:.0f} s, {figures.fleets} fleets run to their end"
    )
    print(f"runs that went on: {figures.resumed}; calls of unknown outcome: {figures.unknown}, asked {figures.asked}")
    print(f"side effects: {figures.steps}, each exactly once")
    if figures.restarts_s:
        ordered = sorted(figures.restarts_s)
        print(
            f"start to all agents at work again: median {statistics.median(ordered):.2f} s, "
            f"p90 {ordered[int(len(ordered) * 0.9)]:.2f} s, most {ordered[-1]:.2f} s of {len(ordered)}"
        )


def main() -> None:
    words = sys.argv[1:]
    rounds = int(words[0]) if words else 100
    seed = int(words[1]) if words[1:] else 1
    with tempfile.TemporaryDirectory(prefix="toka-recovery-") as folder:
        began = time.monotonic()
        figures = asyncio.run(kill_rounds(Path(folder), rounds, seed))
        report(figures, time.monotonic() - began)


if __name__ == "__main__":
    main()
