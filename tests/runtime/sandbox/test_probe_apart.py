"""The probe for a runtime: in a process of its own, once, seen through, and clear about why it failed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from fakes.processes import processes_naming
from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.errors import ProcessError
from toka_runtime.protocol.protections import Area
from toka_runtime.sandbox import probe_apart as apart
from toka_runtime.sandbox.probe_apart import probe_apart


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "_found", None)


async def test_it_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = await probe_apart()
    assert [badge.area for badge in first.badges] == list(Area)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert await probe_apart() is first


async def test_cancelled_it_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    probing = spawn(probe_apart())
    async with asyncio.timeout(10):
        while not processes_naming(str(tmp_path)):
            await asyncio.sleep(0)
        await cancel_and_wait(probing)
    assert processes_naming(str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []
    assert apart._found is not None, "what it found is kept all the same"


@pytest.mark.parametrize(
    ("program", "said"),
    [("raise OSError('no process left')", "OSError: no process left"), ("pass", "no answer")],
)
async def test_why_it_failed_is_told(program: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "_PROGRAM", program)
    with pytest.raises(ProcessError, match=f"could not be probed: {said}"):
        await probe_apart()


async def test_one_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(apart, "_PROGRAM", "import time; time.sleep(60)")
    monkeypatch.setattr(apart, "_DEADLINE_S", 0.2)
    with pytest.raises(ProcessError, match=r"within 0\.2 s"):
        await probe_apart()
    assert processes_naming(str(tmp_path)) == []
