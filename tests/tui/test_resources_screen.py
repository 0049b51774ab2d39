"""Screen 7, Resources: what is used against which limit, over which time, with gaps where nobody looked."""

from __future__ import annotations

import pytest

from fakes import fleet
from fakes.client import FakeRuntimeClient
from fakes.clock import FakeClock
from fakes.console import Console, console
from toka_console.format import plots
from toka_console.history import Figure, Span
from toka_console.metrics import Metric, whole
from toka_console.panes.plots import PlotsPane
from toka_console.panes.resources_table import ResourcesTable
from toka_console.themes import DEFAULT, palette
from toka_runtime.protocol import commands as cmd
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.ids import CallId
from toka_runtime.protocol.states import LIVE
from toka_runtime.protocol.usage import HostUsage, TokenUsage, Usage

FIRST = fleet.NAMES[0][0]
SIZES = [(200, 50), (120, 40), (80, 24), (60, 15)]


async def use(made: Console, samples: int, cpu: float = 0.3, memory: int = 100 * fleet.MIB, processes: int = 4) -> None:
    """Two samples a second of one agent and its host, all of them folded."""
    for number in range(samples):
        usage = Usage(cpu_fraction=cpu, memory_bytes=memory, processes=processes, written_bytes=number * 102_400)
        before = made.agent(FIRST).samples
        made.client.emit(ev.AgentSampled(usage=usage), FIRST)
        host = HostUsage(cpu_fraction=0.5, cores=2, memory_total_bytes=2**34, memory_used_bytes=2**33)
        made.client.emit(ev.HostSampled(usage=host))
        await made.until(lambda before=before: made.agent(FIRST).samples > before, "the sample")
        await made.clock.advance(0.5)
    await made.drained()


async def spend(made: Console, tokens: int, cost_usd: float) -> None:
    ended = ev.ModelCallEnded(
        call=CallId("m9"), task=1, turn=2, provider="p", model="m", outcome="ok", duration_s=2,
        usage=TokenUsage(output_tokens=tokens), cost_usd=cost_usd,
    )  # fmt: skip
    made.client.emit(ended, FIRST)
    await made.drained()


async def on_first(made: Console) -> None:
    await made.put_cursor_on(FIRST)
    await made.press("7")


def row(made: Console, name: str) -> str:
    return next(line for line in made.text().splitlines() if name[:12] in line and "─" not in line)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_figures_stand_against_their_limits(size: tuple[int, int]) -> None:
    async with console(size) as made:
        await use(made, 8)
        await on_first(made)
        text = made.text()
        assert "30%/75%" in row(made, FIRST)
        assert "100M/512M" in row(made, FIRST)
        assert "CPU 30% of 75%  peak 30%" in text
        assert "╌╌" in text, "the limit is a line"
        assert len(text.splitlines()) == size[1]
        if size[1] >= 40:
            assert "50%/100%" in row(made, "▣ local")
            for words in ("MEMORY 100M of 512M", "PROCESSES 4 of 64", "I/O 200K/s", "TOKENS", "COST"):
                assert words in text, words


async def test_tokens_and_money_are_rates() -> None:
    def quiet(client: FakeRuntimeClient, clock: FakeClock) -> None:
        fleet.load(client)
        fleet.start(client, FIRST, 1)

    async with console((200, 50), script=quiet) as made:
        await use(made, 2)
        await spend(made, 600, 0.5)
        await use(made, 4)
        await on_first(made)
        text = made.text()
        assert "TOKENS 20.0/s" in text, "600 in half a minute"
        assert "COST $6.00/h" in text, "half a dollar in five minutes"


async def test_the_host_has_plots_of_its_own_and_takes_no_command() -> None:
    async with console((200, 50)) as made:
        await use(made, 4)
        await on_first(made)
        await made.press("g")
        assert "CPU 50% of 100%" in made.text()
        assert "MEMORY 8.0G of 16G" in made.text()
        live = [view.usage.processes for view in made.client.state.agents.values() if view.state in LIVE]
        assert f"PROCESSES of agents {sum(live)}" in made.text()
        await made.press("p", "K")
        assert made.client.commands == []


async def test_keys_act_on_the_row_and_enter_opens_it() -> None:
    async with console() as made:
        await on_first(made)
        await made.press("p")
        [command] = made.client.commands
        assert isinstance(command, cmd.PauseAgent)
        assert command.target.agent == FIRST
        await made.press("enter")
        assert made.app.current.ID == "agent"


async def test_the_window_goes_round_and_takes_a_name() -> None:
    async with console() as made:
        await on_first(made)
        pane = made.app.current.query_one(PlotsPane)
        seen = [pane.window]
        for _ in range(3):
            await made.press("t")
            seen.append(pane.window)
        assert seen == ["2m", "15m", "1h", "2m"]
        await made.press(*":window 1h", "enter")
        assert pane.window == "1h"
        assert "-1h" in made.text()
        await made.press(*":window 3d", "enter")
        assert pane.window == "1h"
        assert "there are 2m, 15m, 1h" in made.text()


async def test_plots_that_have_no_room_are_reached_by_scrolling() -> None:
    async with console((60, 15)) as made:
        await use(made, 4)
        await on_first(made)
        assert "1–1 of 6" in made.text()
        await made.press("tab", "G")
        assert "COST" in made.text()
        assert "6–6 of 6" in made.text()
        await made.press("k", "k")
        assert "I/O" in made.text()


async def test_rows_are_sorted_by_any_column() -> None:
    async with console() as made:
        await use(made, 2)
        await made.press("7")
        table = made.app.current.query_one(ResourcesTable)
        assert set(table.sort_keys()) >= {"agent", "state", "cpu", "memory", "procs", "io", "tokens", "cost"}
        values = {key: table.sort_keys()["cpu"](key) for key in table.order}
        known = {getattr(key, "name", "host"): value for key, value in values.items() if value is not None}
        assert known[FIRST] == 0.3
        assert "host" not in known


async def test_a_plot_that_is_on_screen_goes_on_with_time() -> None:
    async with console((200, 50)) as made:
        await use(made, 6)
        await on_first(made)
        before = made.text()
        await made.clock.advance(20)
        made.app.repaint()
        await made.pilot.pause()
        assert "CPU unknown of 75%" in made.text(), "the last sample is 20 s old: it says nothing about now"
        assert made.text() != before


def test_a_gap_is_empty_and_what_is_over_the_limit_stands_above_its_line() -> None:
    spans = [Span(0.0, 40.0, (0, 0, 90.0, 0, 0, 0)), Span(80.0, 120.0, (0, 0, 10.0, 0, 0, 0))]
    colours = palette(DEFAULT)
    lines = plots.plot(Metric("PROCESSES", Figure.PROCESSES, whole, 64), spans, 120.0, 120.0, 69, 9, colours)
    assert len(lines) == 9
    assert {line.cell_length for line in lines} == {69}
    rows = [line.text[plots.AXIS :] for line in lines[1:]]
    at = next(number for number, line in enumerate(lines[1:]) if line.text.lstrip().startswith("64"))
    assert rows[at][25:38].strip("╌") == "", "the limit goes through the gap"
    assert all(other[25:38].strip() == "" for number, other in enumerate(rows) if number != at), "nothing else does"
    above = [segment for line in lines[1 : at + 1] for segment in line if segment.text.strip("0123456789 ")]
    assert above
    assert all(segment.style == colours.bad for segment in above)


def test_a_figure_of_which_nothing_is_known_says_so() -> None:
    lines = plots.plot(Metric("CPU", Figure.CPU, whole), [], 120.0, 120.0, 40, 4, palette(DEFAULT, "none"))
    assert lines[0].text.startswith(" CPU unknown")
