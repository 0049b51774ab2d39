"""FROZEN is read when the kernel has confirmed it, with the time that took, and never before."""

from __future__ import annotations

from fakes import fleet
from fakes.console import Console, console
from toka_runtime.protocol.states import AgentState, StopReason

FIRST, PAUSED = "build-system-stabilization", "testing-infrastructure"
STOPPED = "5 processes stopped by cgroup freezer in 0.9 ms"


def row(made: Console, name: str) -> str:
    return next(line for line in made.text().splitlines() if name in line and "─" not in line)


async def test_frozen_is_read_with_its_milliseconds_when_it_is_confirmed() -> None:
    async with console(size=(200, 50)) as made:
        await made.put_cursor_on(FIRST)
        await made.press("p")
        assert "FROZEN" not in made.text()
        fleet.change(
            made.client, FIRST, AgentState.PAUSED, StopReason.OPERATOR, f"{STOPPED}, confirmed", frozen_ms=0.93
        )
        made.client.confirm(made.client.requests[-1])
        await made.drained()
        assert "FROZEN" in row(made, FIRST)
        assert "0s in 0.9 ms" in row(made, FIRST)
        await made.press("2")
        assert "‖ FROZEN since 0s" in made.text()
        assert "in 0.9 ms, operator" in made.text()
        assert "‖ FROZEN operator: 5 processes stopped" in made.text(), "in the log of what happened, too"


async def test_a_pause_without_proof_does_not_read_frozen_and_says_why() -> None:
    async with console(size=(200, 50)) as made:
        detail = f"{STOPPED}, UNCONFIRMED, not stopped: [77]"
        fleet.change(made.client, FIRST, AgentState.PAUSED, StopReason.OPERATOR, detail)
        await made.drained()
        assert "FROZEN" not in made.text()
        await made.put_cursor_on(FIRST)
        await made.press("2")
        assert "UNCONFIRMED, not stopped: [77]" in made.text().replace("\n", " ")


async def test_a_filter_for_what_is_paused_finds_what_is_frozen() -> None:
    async with console() as made:
        fleet.change(made.client, FIRST, AgentState.PAUSED, StopReason.OPERATOR, frozen_ms=0.9)
        await made.drained()
        for words in ("state:paused", "state:frozen,paused"):
            made.app.entered("filter", words)
            await made.pilot.pause()
            assert FIRST in made.text()
            assert PAUSED in made.text()
        made.app.entered("filter", "state:frozen")
        await made.pilot.pause()
        assert PAUSED not in made.text()


async def test_it_is_not_frozen_any_more_when_it_goes_on() -> None:
    async with console() as made:
        fleet.change(made.client, FIRST, AgentState.PAUSED, StopReason.OPERATOR, frozen_ms=0.9)
        fleet.change(made.client, FIRST, AgentState.RUNNING, detail="resumed")
        await made.drained()
        assert "RUNNING" in row(made, FIRST)
