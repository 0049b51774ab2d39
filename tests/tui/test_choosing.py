"""What is seen of the Fleet under a pilot: sorting, marks, narrowing, removed runs, sizes. No commands."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fakes import fleet
from fakes.client import FakeRuntimeClient
from fakes.clock import FakeClock
from fakes.console import Console, console
from toka_console.dialogs.choose import ChooseDialog
from toka_console.dialogs.confirm import ConfirmDialog
from toka_console.marks import Marks
from toka_console.panes.ordering import Ordering, Sort, in_order
from toka_console.place import Place
from toka_console.views import Views, load, text_of
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.spec import Dependency
from toka_runtime.protocol.states import AgentState
from toka_runtime.protocol.usage import HostUsage, ResourceLimits
from toka_runtime.whole_file import replace_file

BUILD, PAUSED, FAILED = "build-system-stabilization", "testing-infrastructure", "kernel-events-enhancement"
SECURITY, PERFORMANCE = "security-extension", "performance-observability"


def names(made: Console) -> list[str]:
    return [key.name for key in made.app.navigator.fleet.table.order]


async def command(made: Console, line: str) -> None:
    made.app.entered("command", line)
    await made.pilot.pause()


def titles(made: Console) -> str:
    return next(line for line in made.text().splitlines() if " AGENT" in line)


# -- sorting ------------------------------------------------------------------------------------------------------


async def test_sorting_by_a_figure_begins_with_the_highest_and_flips() -> None:
    async with console() as made:
        await command(made, "sort mem")
        assert names(made)[:3] == [BUILD, SECURITY, PAUSED]
        assert "MEM▼" in titles(made)
        assert "by mem ▼" in made.text()
        await made.press("O")
        assert names(made)[0] == PERFORMANCE
        assert names(made)[4:] == [name for name in names(made)[4:] if name not in (BUILD, SECURITY, PAUSED)]
        assert "MEM▲" in titles(made)
        await command(made, "sort")
        assert "trouble first" in made.text()
        assert names(made)[1] == FAILED


async def test_what_is_not_known_comes_last_in_both_directions() -> None:
    async with console() as made:
        for line in ("sort mem desc", "sort mem asc"):
            await command(made, line)
            assert set(names(made)[:4]) == {BUILD, SECURITY, PAUSED, PERFORMANCE}, line


async def test_keys_go_through_the_columns_and_back_to_the_own_order() -> None:
    async with console() as made:
        table = made.app.navigator.fleet.table
        await made.press("shift+right")
        assert table.sort == Sort("agent", descending=False)
        assert names(made) == [*sorted(names(made)[:-1]), "configs/agents/broken.yaml"]
        await made.press("shift+left")
        assert table.sort is None
        await made.press("shift+left")
        assert table.sort == Sort("age", descending=True)


async def test_a_click_on_a_title_sorts_and_another_one_flips() -> None:
    async with console() as made:
        lines = made.text().splitlines()
        y = next(number for number, line in enumerate(lines) if " AGENT" in line)
        for marked in ("DEN▼", "DEN▲"):
            await made.pilot.click(offset=(lines[y].index("DENY"), y))
            assert marked in titles(made)
        assert made.app.navigator.fleet.table.sort == Sort("denials", descending=False)


async def test_an_unknown_column_changes_nothing_and_names_those_there_are() -> None:
    async with console() as made:
        await command(made, "sort weight")
        assert "no column weight; this list sorts by" in made.text()
        await command(made, "sort mem sideways")
        assert "sideways is neither asc nor desc" in made.text()
        assert made.app.navigator.fleet.table.sort is None


async def test_the_cursor_stays_with_its_agent_when_sorted() -> None:
    async with console() as made:
        await made.put_cursor_on(PERFORMANCE)
        await command(made, "sort mem")
        assert made.app.session.focus is not None
        assert made.app.session.focus.name == PERFORMANCE


async def test_rows_do_not_jump_while_the_cursor_is_moved() -> None:
    async with console() as made:
        await command(made, "sort cpu")
        before = names(made)
        assert before[0] == BUILD
        await made.clock.advance(5)
        await made.press("j")
        fleet.sample(made.client, SECURITY, 3.0, fleet.MIB)
        await made.until(lambda: made.agent(SECURITY).view.usage.cpu_fraction == 3.0, "the sample")
        made.app.repaint()
        assert names(made) == before
        await made.clock.advance(1.1)
        made.app.repaint()
        assert names(made)[0] == SECURITY


async def test_trouble_does_not_move_rows_under_a_moving_cursor_either() -> None:
    async with console() as made:
        await made.clock.advance(5)
        await made.press("j")
        before = names(made)
        fleet.change(made.client, PERFORMANCE, AgentState.FAILED)
        await made.drained()
        assert names(made) == before
        await made.clock.advance(1.1)
        made.app.repaint()
        assert names(made).index(PERFORMANCE) < 3


async def test_denials_and_requests_are_sorted_too() -> None:
    async with console() as made:
        await made.press("5")
        await command(made, "sort target desc")
        text = made.text()
        assert "TARGET▼" in text
        assert "crates.io" in next(line for line in text.splitlines() if "×" in line), "letters after signs"
        await made.press("O")
        assert "/etc/passwd" in next(line for line in made.text().splitlines() if "×" in line)


@given(st.lists(st.tuples(st.integers(), st.none() | st.integers(0, 5)), unique_by=lambda row: row[0]), st.booleans())
def test_equal_rows_stay_as_they_were(rows: list[tuple[int, int | None]], descending: bool) -> None:
    found = in_order(rows, lambda row: row[1], descending=descending)
    assert sorted(found, key=lambda row: row[0]) == sorted(rows, key=lambda row: row[0])
    for value in {row[1] for row in rows}:
        assert [row for row in found if row[1] == value] == [row for row in rows if row[1] == value]
    known = [row[1] for row in found if row[1] is not None]
    assert known == sorted(known, reverse=descending)
    assert all(row[1] is None for row in found[len(known) :])


def test_many_rows_are_sorted_now_and_then() -> None:
    base = list(range(10_000))
    counted = 0

    def value(row: int) -> float:
        nonlocal counted
        counted += 1
        return -row

    ordering: Ordering[int] = Ordering()
    by = Sort("cpu", descending=False)
    for step in range(8):
        ordering.arrange(base, by, value, step / 4, held=False)
    assert counted == 2 * len(base), "in two seconds of four paints each"


def test_rows_that_come_and_go_do_so_while_others_are_held() -> None:
    ordering: Ordering[int] = Ordering()
    by = Sort("cpu", descending=True)
    ordering.arrange([1, 2, 3], by, float, 0.0, held=False)
    assert ordering.arrange([1, 3, 9], by, float, 0.1, held=True) == [3, 1, 9]
    assert ordering.arrange([1, 3, 9], None, None, 0.2, held=True) == [1, 3, 9], "the operator chose another order"


# -- kept views ---------------------------------------------------------------------------------------------------


async def test_how_one_sees_things_is_there_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "state" / "console-views.json"
    async with console(views_file=file) as made:
        await command(made, "sort mem asc")
        await made.press("$", "_", "_")
        await made.until(lambda: file.exists() and '"fleet": -2' in file.read_text(), "the file")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    async with console(views_file=file) as made:
        assert made.app.navigator.fleet.table.sort == Sort("memory", descending=False)
        assert "MEM▲" in titles(made)
        assert "$/H" in titles(made)


async def test_a_damaged_file_is_told_and_ignored(tmp_path: Path) -> None:
    file = tmp_path / "console-views.json"
    file.write_text('{"sorts": {"fleet-table": ["cpu"]}}')
    async with console(views_file=file) as made:
        await made.until(lambda: "damaged and ignored: the sort of fleet-table" in made.text(), "the notice")
        await command(made, "sort mem")
        await made.until(lambda: "memory" in file.read_text(), "the new file")
    assert load(file)[0].sorts == {"fleet-table": Sort("memory", descending=True)}


async def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    async with console(views_file=tmp_path / "file" / "views.json") as made:
        await command(made, "sort mem")
        await made.until(lambda: "how you see things is not kept" in made.text(), "the notice")


@given(
    st.dictionaries(st.text(max_size=9), st.builds(Sort, st.text(max_size=9), st.booleans())),
    st.dictionaries(st.text(max_size=9), st.integers(-1000, 1000)),
    st.booleans(),
)
def test_views_come_back_as_they_were(sorts: dict[str, Sort], sizes: dict[str, int], costs: bool) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "views.json"
        replace_file(file, text_of(Views(sorts, sizes, costs)).encode())
        assert load(file) == (Views(sorts, sizes, costs), "")


WORDS = st.sampled_from(["sorts", "sizes", "costs", "column", "descending"])
PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=5)


@given(st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3)))
def test_any_other_file_is_refused_or_read(raw: object) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "views.json"
        file.write_text(json.dumps(raw))
        views, problem = load(file)
        assert views == Views() if problem else isinstance(views, Views)


# -- marks --------------------------------------------------------------------------------------------------------


async def test_marks_survive_filter_and_sort_and_say_how_many_are_not_shown() -> None:
    async with console() as made:
        for name in (BUILD, FAILED):
            await made.put_cursor_on(name)
            await made.press("space")
        assert sum("│■" in line for line in made.text().splitlines()) == 2
        await command(made, "sort mem")
        made.app.entered("filter", "state:running")
        await made.pilot.pause()
        assert "■ 2 marked, 1 of them not shown" in made.text()
        await made.press("escape")
        assert "■ 2 marked " in made.text()
        await made.put_cursor_on(BUILD)
        await made.press("space")
        assert "■ 1 marked" in made.text()
        await made.press("ctrl+backslash")
        assert "marked" not in made.text()


async def test_a_range_is_marked_from_the_last_mark() -> None:
    async with console() as made:
        await made.press("g", "j", "space", "j", "j", "ctrl+space")
        table = made.app.navigator.fleet.table
        assert [key.name for key in table.marks] == names(made)[1:4]


async def test_a_rejected_spec_cannot_be_marked() -> None:
    async with console() as made:
        await made.press("g", "space")
        assert "only agents can be marked" in made.text()
        await made.press("j", "j", "space", "g", "ctrl+space")
        assert [key.kind for key in made.app.navigator.fleet.table.marks] == ["agent", "agent"]


@given(st.lists(st.tuples(st.sampled_from(["toggle", "extend"]), st.integers(0, 9))))
def test_marks_are_those_of_the_order(steps: list[tuple[str, int]]) -> None:
    marks: Marks[int] = Marks()
    order = list(range(10))
    expected: set[int] = set()
    last: int | None = None
    for step, key in steps:
        if step == "toggle":
            marks.toggle(key)
            expected ^= {key}
        else:
            start = key if last is None else last
            marks.extend(key, order, lambda each: each % 2 == 0)
            expected |= {each for each in range(min(start, key), max(start, key) + 1) if each % 2 == 0}
        last = key
    assert set(marks) == expected


# -- narrowing ----------------------------------------------------------------------------------------------------


async def test_trouble_only_is_said_and_taken_back() -> None:
    async with console() as made:
        await made.press("ctrl+z")
        assert "trouble only" in made.text()
        assert PERFORMANCE not in names(made)
        assert FAILED in names(made)
        await made.press("ctrl+z")
        assert PERFORMANCE in names(made)
        assert "trouble only" not in made.text()


async def test_a_host_is_asked_for() -> None:
    async with console() as made:
        await made.press("@")
        assert "/host:" in made.text()
        await made.type("local")
        await made.press("enter")
        assert len(names(made)) == 10
        await command(made, "host elsewhere")
        assert names(made) == []
        assert "no agent matches /host:=elsewhere" in made.text()


async def test_money_comes_before_all_else_when_asked_for() -> None:
    async with console((80, 24)) as made:
        assert "TOKENS" not in titles(made)
        await made.press("$")
        for title in ("TOKENS", "$", "$/H", "CAP"):
            assert title in titles(made)
        row = next(line for line in made.text().splitlines() if "build" in line)
        assert "9.7k" in row
        assert "5%" in row, "of its cap of 200,000 tokens"
        await made.press("$")
        assert "TOKENS" not in titles(made)


async def test_a_finished_run_is_removed_after_a_question_and_restored() -> None:
    async with console() as made:
        await made.put_cursor_on(BUILD)
        await made.press("D")
        assert "only a finished run can be removed; it is running" in made.text()
        await made.put_cursor_on(FAILED)
        await made.press("D")
        assert "kernel-events-enhancement on local, run r0000000002, failed" in made.text()
        await made.press("enter")
        assert FAILED in names(made), "Cancel is the default"
        await made.press("D", "tab", "enter")
        assert FAILED not in names(made)
        assert "1 removed" in made.text()
        assert made.client.commands == []
        await command(made, "restore")
        assert FAILED in names(made)
        assert "removed" not in made.text()


async def test_a_new_run_of_a_removed_agent_is_shown() -> None:
    async with console() as made:
        await made.put_cursor_on(FAILED)
        await made.press("D", "tab", "enter")
        fleet.change(made.client, FAILED, AgentState.PENDING)
        fleet.start(made.client, FAILED, 77)
        await made.drained()
        await made.clock.advance(2)
        made.app.repaint()
        assert FAILED in names(made)
        assert "removed" not in made.text()


async def test_marked_runs_are_removed_together_and_lose_their_marks() -> None:
    async with console() as made:
        for name in (FAILED, "storage-advancement", BUILD):
            await made.put_cursor_on(name)
            await made.press("space")
        await made.press("D")
        assert "1 marked agent: not finished" in made.text()
        await made.press("tab", "enter")
        assert {FAILED, "storage-advancement"} & set(names(made)) == set()
        assert [key.name for key in made.app.navigator.fleet.table.marks] == [BUILD]


# -- looking ------------------------------------------------------------------------------------------------------


async def test_the_live_output_stays_with_a_followed_agent() -> None:
    async with console() as made:
        await made.put_cursor_on(BUILD)
        await made.press("F")
        await made.put_cursor_on(SECURITY)
        assert "Live build-system-stabilization, followed (F lets go)" in made.text()
        fleet.say(made.client, BUILD, "a word of the followed one\n")
        await made.drained()
        assert "a word of the followed one" in made.text()
        await made.press("F")
        assert "Live security-extension" in made.text()
        assert "followed" not in made.text()


async def test_neighbours_are_listed_and_opened() -> None:
    async with console() as made:
        spec = fleet.spec(SECURITY).model_copy(
            update={"dependencies": (Dependency(agent=AgentName(BUILD), reason="it builds"),)}
        )
        made.client.emit(ev.SpecLoaded(spec=spec, rights=fleet.rights()))
        await made.drained()
        await made.put_cursor_on(BUILD)
        await made.press("u")
        assert isinstance(made.app.screen, ChooseDialog)
        assert "security-extension" in made.text().split("Around")[1]
        assert "it builds" in made.text()
        await made.press("down", "enter")
        assert made.app.current.ID == "agent"
        assert made.app.session.focus is not None
        assert made.app.session.focus.name == SECURITY
        await made.press("u")
        assert "needs" in made.text()
        await made.press("enter")
        assert made.app.session.focus.name == SECURITY, "Cancel is the default"


async def test_nobody_around_is_said() -> None:
    async with console() as made:
        await made.put_cursor_on(PAUSED)
        await made.press("u")
        assert "waits for nobody, and nobody waits for it" in made.text()


async def test_describe_and_spec() -> None:
    async with console() as made:
        await made.put_cursor_on(BUILD)
        focus = made.app.session.focus
        await made.press("d")
        assert made.app.navigator.history.here == Place("agent", focus)
        await made.press("y")
        assert made.app.navigator.history.here == Place("specs", focus)


async def test_a_pane_is_zoomed_and_given_back() -> None:
    for size in ((200, 50), (120, 40), (80, 24), (60, 15)):
        async with console(size) as made:
            await made.put_cursor_on(BUILD)
            await made.until(lambda made=made: made.agent(BUILD).output.history_seq is None, "the history")
            await made.pilot.pause()
            before = made.text()
            await made.press("f")
            zoomed = made.app.navigator.fleet.table
            assert zoomed.size.height == made.app.navigator.fleet.container.size.height
            assert not made.app.navigator.fleet.gauges.display
            await made.press("escape")
            assert made.text() == before, size
            assert not isinstance(made.app.screen, ConfirmDialog)


async def test_zoom_survives_another_screen_and_a_new_size() -> None:
    async with console() as made:
        await made.put_cursor_on(BUILD)
        await made.until(lambda: made.agent(BUILD).output.history_seq is None, "the history")
        await made.pilot.pause()
        before = made.text()
        await made.press("tab", "f")
        fleet_screen = made.app.navigator.fleet
        assert fleet_screen.zoomed is fleet_screen.tail
        await made.press("o", "f", "f", "1")
        await made.pilot.resize_terminal(90, 30)
        await made.pilot.pause()
        assert fleet_screen.tail.size.height == fleet_screen.container.size.height
        await made.pilot.resize_terminal(120, 40)
        await made.press("f", "tab")
        assert made.text() == before


async def test_a_double_click_on_a_title_zooms() -> None:
    async with console() as made:
        y = next(number for number, line in enumerate(made.text().splitlines()) if "╭─ Agents" in line)
        await made.pilot.click(offset=(30, y), times=2)
        await made.until(lambda: made.app.navigator.fleet.zoomed is made.app.navigator.fleet.table, "the zoom")


async def test_the_table_grows_and_shrinks_within_bounds() -> None:
    async with console() as made:
        table, tail = made.app.navigator.fleet.table, made.app.navigator.fleet.tail
        rows = table.size.height
        await made.press("+", "+", "+")
        assert table.size.height == rows + 3
        await made.press(*["_"] * 40)
        least = table.size.height
        assert 4 <= least < rows
        await made.press("+")
        assert table.size.height == least + 1, "nothing is owed for the keys that did nothing"
        await made.press(*["+"] * 40)
        assert tail.size.height >= 4


# -- figures ------------------------------------------------------------------------------------------------------


async def test_an_agent_without_a_limit_is_held_against_its_host_visibly() -> None:
    def script(client: FakeRuntimeClient, clock: FakeClock) -> None:
        fleet.load(client)
        free = fleet.spec("free")
        security = free.security.model_copy(update={"limits": ResourceLimits()})
        client.emit(ev.SpecLoaded(spec=free.model_copy(update={"security": security}), rights=fleet.rights()))
        for number, name in enumerate(("free", BUILD)):
            fleet.start(client, name, number)

    async with console((250, 40), script=script) as made:
        made.client.emit(ev.HostSampled(usage=HostUsage(cores=4, memory_total_bytes=2**34)))
        for step in range(12):
            for name in ("free", BUILD):
                fleet.sample(made.client, name, 0.5, 2**32 if name == "free" else 2**28)
            await made.until(lambda done=step + 1: made.agent("free").samples == done, "the sample")
        await made.clock.advance(1)
        made.app.repaint()
        rows = {
            name: next(line for line in made.text().splitlines() if f"● {name}" in line) for name in ("free", BUILD)
        }
        assert "━" in rows["free"], "a bar of the host's memory"
        assert "▅" not in rows["free"]
        assert "4.0G" in rows["free"]
        assert "▅▅▅" in rows[BUILD], "its history against half a gigabyte"
        assert "256M/512M" in rows[BUILD]
