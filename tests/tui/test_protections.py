"""What confines agents, on screen: the host's tier, an agent's badges, and who has no walls at all."""

from __future__ import annotations

from fakes import fleet
from fakes.console import Console, console
from fakes.events import host_protections
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.protections import Protections
from toka_runtime.protocol.spec import SandboxMode
from toka_runtime.protocol.states import AgentState

FIRST = fleet.NAMES[0][0]


def unconfined(made: Console, why: str) -> None:
    badges = host_protections().badges
    found = Protections(asked=SandboxMode.BEST_EFFORT, unconfined=why, tier=host_protections().tier, badges=badges)
    made.client.emit(ev.ProtectionsInForce(protections=found), FIRST)


async def test_the_tier_of_the_host_is_in_the_header() -> None:
    async with console((160, 40)) as made:
        assert "tier B" in made.text().splitlines()[0]


async def test_the_agent_screen_shows_six_badges_with_why_and_what_to_do() -> None:
    async with console((200, 140)) as made:
        await made.put_cursor_on(FIRST)
        await made.press("enter")
        text = made.text()
        assert "tier B ● FS ● NET ● KILL ● PROCS ◐ MEM ○ CPU" in text
        for words in (
            "● FS", "enforced: mount namespace", "◐ MEM", "approximate: RLIMIT_DATA", "MEM in one line",
            "because: this host allows no", "fix: limit the runtime", "brokered only",
        ):  # fmt: skip
            assert words in text, words


async def test_an_agent_without_walls_is_said_loudly_as_long_as_it_lives() -> None:
    async with console((120, 110)) as made:
        assert "UNCONFINED" not in made.text()
        unconfined(made, "no user namespaces \x1b[2J here")
        await made.drained()
        banner = made.text().splitlines()[1]
        assert banner.startswith(f" ▲ UNCONFINED, with all rights of their user: {FIRST}")
        await made.put_cursor_on(FIRST)
        await made.press("enter")
        assert "UNCONFINED no user namespaces ␛[2J here" in made.text()
        fleet.change(made.client, FIRST, AgentState.FAILED)
        await made.drained()
        assert "UNCONFINED, with" not in made.text()
