"""Each screen as it looks: text at the sizes operators have, pictures of a few, with a frozen clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot

from fakes import fleet
from fakes.client import FakeRuntimeClient
from fakes.clock import FakeClock
from fakes.console import Console, console, make_app
from toka_console.app import ConsoleApp
from toka_runtime.client.base import RuntimeClient
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.usage import HostUsage

FIRST = fleet.NAMES[0][0]
SIZES = [(200, 50), (120, 40), (80, 24), (60, 15)]
KEYS = {
    "fleet": [],
    "agent": ["enter"],
    "output": ["o"],
    "denials": ["5"],
    "call": ["5", "j", "enter"],
    "specs": ["g", "enter"],
    "logs": ["4"],
    "resources": ["7"],
    "graph": ["8"],
    "hosts": [":", *"hosts", "enter"],
    "help": ["?"],
    "kill": ["K"],
    "freeze": ["!"],
    "quit": ["q"],
    "command": [":", "k", "i"],
    "filter": ["/", "s"],
}


async def show(made: Console, keys: list[str]) -> None:
    await made.put_cursor_on(FIRST)
    await made.until(lambda: made.agent(FIRST).output.history_seq is None, "the history")
    await made.press(*keys)
    await made.pilot.pause()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("screen", list(KEYS))
async def test_text(screen: str, size: tuple[int, int], snapshot: SnapshotAssertion) -> None:
    async with console(size) as made:
        await show(made, KEYS[screen])
        text = made.text()
    assert len(text.splitlines()) == size[1]
    assert text == snapshot


@pytest.mark.parametrize("screen", ["fleet", "agent", "output", "denials", "help", "kill"])
def test_picture(screen: str, snap_compare: Callable[..., bool]) -> None:
    clock = FakeClock()
    client = FakeRuntimeClient(clock)
    app = make_app(client, clock)

    async def open_client() -> RuntimeClient:
        await fleet.work(client, clock)
        return client

    app._open_client = open_client

    async def prepare(pilot: Pilot[Any]) -> None:
        assert isinstance(pilot.app, ConsoleApp)
        made = Console(pilot.app, pilot, client, clock)
        await made.until(
            lambda: pilot.app.bridge is not None and not pilot.app.session.phase and client.listening, "the start"
        )
        for step in range(60):
            client.emit(ev.HostSampled(usage=HostUsage(cpu_fraction=(step % 20) / 25, cores=2, memory_total_bytes=2**34,
                                                       memory_used_bytes=5 * 2**30)))  # fmt: skip
            fleet.sample(client, FIRST, (step % 12) / 16, (100 + 5 * step) * fleet.MIB, 5)
            await made.until(lambda done=step + 1: made.agent(FIRST).samples == done, "the sample")
        await made.until(lambda: made.agent(FIRST).view.usage.memory_bytes == 395 * fleet.MIB, "the samples")
        await clock.advance(1)
        pilot.app.repaint()
        await show(made, KEYS[screen])
        await made.pilot.pause(0.1)

    assert snap_compare(app, terminal_size=(120, 40), run_before=prepare)


# -- what must hold at any size -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_a_rehearsal_is_said_on_every_screen(size: tuple[int, int]) -> None:
    async with console(size) as made:
        for screen in ("fleet", "agent", "output", "denials", "specs", "help"):
            await show(made, KEYS[screen]) if made.app.current.ID == "fleet" else None
            assert made.text().splitlines()[1].startswith(" ▲ REHEARSAL: no model is used"), screen
            await made.press("1")


async def test_a_model_makes_no_banner() -> None:
    async with console(script=lambda client, clock: fleet.load(client, "anthropic", "")) as made:
        assert "REHEARSAL" not in made.text()


async def test_a_rejected_spec_is_a_red_row_with_its_problem() -> None:
    async with console((200, 50)) as made:
        row = next(line for line in made.text().splitlines() if "broken.yaml" in line)
        assert "REJECTED" in row
        assert "max_memory must be a size such as 512MB, not [1, 2]" in row
        assert "broken.yaml:14:7" in row


async def test_what_is_unknown_says_so() -> None:
    async with console(script=lambda client, clock: fleet.load(client)) as made:
        assert "unknown" in made.text(), "no sample of the host has come yet"


# -- the table under change ---------------------------------------------------------------------------------------


def many(client: FakeRuntimeClient, clock: FakeClock) -> None:
    client.emit(ev.RuntimeStarted(epoch="e", version="1", pid=1, workspace="/w", provider="anthropic"))
    for number in range(300):
        client.emit(ev.SpecLoaded(spec=fleet.spec(f"agent-{number:03}"), rights=fleet.rights()))


async def test_only_visible_rows_are_drawn() -> None:
    async with console(script=many) as made:
        table = made.app.navigator.fleet.table
        drawn: list[str] = []
        cells = table.cells

        def count(key: Any, row: Any, layout: Any) -> None:
            drawn.append(key.name)
            cells(key, row, layout)

        table.cells = count  # type: ignore[method-assign] # counted
        for number in range(300):
            fleet.sample(made.client, f"agent-{number:03}", 0.5, 10)
        await made.until(lambda: len(made.agent("agent-299").cpu) == 1, "the samples")
        await made.clock.advance(1)
        made.app.repaint()
        assert 0 < len(set(drawn)) <= table.inner_height
        drawn.clear()
        made.app.repaint()
        assert drawn == [], "rows that did not change are not drawn again"


async def test_the_cursor_keeps_its_agent_when_rows_move() -> None:
    async with console(script=many) as made:
        await made.put_cursor_on("agent-150")
        table = made.app.navigator.fleet.table
        assert table.top > 100
        for number in range(120, 200):
            fleet.start(made.client, f"agent-{number:03}", number)
        await made.drained()
        assert made.app.session.focus is not None
        assert made.app.session.focus.name == "agent-150"
        assert table.cursor is not None
        assert table.cursor.name == "agent-150"
        assert any("agent-150" in line for line in made.text().splitlines()), "and it is in view"


async def test_moving_through_a_long_list() -> None:
    async with console(script=many) as made:
        names: list[str] = []
        for key in ("G", "ctrl+u", "g", "ctrl+d", "pagedown", "k", "j", "home", "end"):
            await made.press(key)
            assert made.app.session.focus is not None
            names.append(made.app.session.focus.name)
        height = made.app.navigator.fleet.table.inner_height - 1
        assert names[0] == "agent-299"
        assert names[1] == f"agent-{299 - height // 2:03}"
        assert names[2] == "agent-000"
        assert names[3] == f"agent-{height // 2:03}"
        assert names[4] == f"agent-{height // 2 + height:03}"
        assert (names[5], names[6]) == (f"agent-{height // 2 + height - 1:03}", names[4])
        assert (names[7], names[8]) == ("agent-000", "agent-299")


async def test_clicks_choose_and_open() -> None:
    async with console() as made:
        y = next(number for number, line in enumerate(made.text().splitlines()) if FIRST in line)
        await made.pilot.click(offset=(10, y))
        assert made.app.session.focus is not None
        assert made.app.session.focus.name == FIRST
        await made.pilot.click(offset=(10, y), times=2)
        await made.until(lambda: made.app.current.ID == "agent", "the screen")


async def test_an_agent_that_loses_its_row_leaves_the_cursor_at_its_place() -> None:
    async with console(script=many) as made:
        await made.put_cursor_on("agent-007")
        agents = {name: view for name, view in made.client.state.agents.items() if name != "agent-007"}
        made.client.state = made.client.state.model_copy(update={"agents": agents})
        made.client.resync(missed=1)
        await made.until(
            lambda: AgentName("agent-007") not in {key.name for key in made.app.session.known.agents}, "it"
        )
        await made.pilot.pause()
        assert made.app.session.focus is not None
        assert made.app.session.focus.name == "agent-008"


# -- output -------------------------------------------------------------------------------------------------------


async def test_scrolling_up_pauses_the_view_not_the_intake() -> None:
    async with console() as made:
        await made.put_cursor_on(FIRST)
        await made.press("o")
        for number in range(200):
            fleet.say(made.client, FIRST, f"line {number}\n", call=f"m{number}")
        await made.drained()
        assert "line 199" in made.text()
        await made.press("ctrl+u", "k")
        before = made.text().splitlines()[4:-3]
        fleet.say(made.client, FIRST, "the newest\n")
        await made.drained()
        assert made.text().splitlines()[4:-3] == before
        assert "view paused, 1 new below (F follows)" in made.text()
        await made.press("F")
        assert "the newest" in made.text()
        assert "following" in made.text()


async def test_down_to_the_end_follows_again() -> None:
    async with console() as made:
        await made.put_cursor_on(FIRST)
        await made.press("o")
        for number in range(100):
            fleet.say(made.client, FIRST, f"line {number}\n", call=f"m{number}")
        await made.drained()
        await made.press("k", "k", "j", "j")
        assert "following" in made.text()


async def first_row_after(made: Console, key: str) -> str:
    await made.press(key)
    lines = made.text().splitlines()
    return lines[next(number for number, line in enumerate(lines) if line.startswith("╭")) + 1].strip("│ ")


async def test_turns_are_jumped_between() -> None:
    async with console((120, 24)) as made:
        await made.put_cursor_on(FIRST)
        await made.press("o")
        await made.until(lambda: "turn 2" in made.text() or "task 2/4" in made.text(), "the history")
        heads = [await first_row_after(made, key) for key in ("{", "{", "}")]
        assert [head.split("  ")[0].split(" ━")[0].strip("─━ ") for head in heads] == [
            "turn 1",
            "● task 1/3 running",
            "turn 1",
        ]
        await made.press("G")
        assert "following" in made.text()


async def test_a_gap_is_shown_as_a_gap() -> None:
    async with console() as made:
        await made.put_cursor_on(FIRST)
        await made.press("o")
        ring = made.agent(FIRST).output
        ring.capacity = 4_000
        for number in range(400):
            fleet.say(made.client, FIRST, f"line {number} of many\n", call=f"m{number}")
        await made.drained()
        await made.press("g")
        assert f"⋯ {ring.dropped_lines:,} lines not shown" in made.text()


async def test_a_line_without_end_is_cut_and_says_so() -> None:
    async with console() as made:
        await made.put_cursor_on(FIRST)
        await made.press("o")
        for _ in range(45):
            fleet.say(made.client, FIRST, "x" * 2000)
        await made.drained()
        assert "… +86K" in made.text()
