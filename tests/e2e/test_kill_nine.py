"""`kill -9` at random moments: nothing is lost, nothing is done twice, nobody is left behind.

`bench/recovery.py` does a hundred rounds and tells the figures.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.killing import VICTIMS, kill_rounds


@pytest.mark.slow
async def test_rounds_of_kill_nine(tmp_path: Path) -> None:
    figures = await kill_rounds(tmp_path, rounds=15, seed=20)
    assert sum(figures.rounds.values()) == 15
    assert set(figures.rounds) == set(VICTIMS)
    assert figures.resumed > 0
