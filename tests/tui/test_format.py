"""Cells, figures and columns: always exactly as wide as asked, never a lie."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.style import Style

from toka_console import settings
from toka_console.format import meters, units
from toka_console.format.cells import Row, clip, clip_left, wrap
from toka_console.navigation import History
from toka_console.panes.columns import fit_columns
from toka_console.panes.denials_table import DenialsTable
from toka_console.panes.fleet_table import COLUMNS, HOST
from toka_console.place import Place

TEXT = st.text("aé漢 \n\t\x1b😀─", max_size=80)


@given(TEXT, st.integers(0, 40))
def test_clipped_text_fits(text: str, width: int) -> None:
    text = text.replace("\n", "").replace("\t", "").replace("\x1b", "")
    for clipped in (clip(text, width), clip_left(text, width)):
        assert cell_len(clipped) <= width
    if cell_len(text) <= width:
        assert clip(text, width) == text


@given(st.lists(st.tuples(TEXT, st.none() | st.integers(0, 30), st.booleans())), st.integers(0, 90))
def test_a_row_is_exactly_as_wide_as_asked_and_printable(parts: list[tuple[str, int | None, bool]], width: int) -> None:
    row = Row(width, Style())
    for text, size, right in parts:
        row.add(text, width=size, right=right)
    strip = row.strip()
    assert sum(cell_len(segment.text) for segment in strip) == width
    assert strip.text.isprintable()


@given(st.text("abc 漢é", max_size=200), st.integers(2, 40))
def test_wrapping_loses_nothing_but_spaces(text: str, width: int) -> None:
    rows = wrap(text, width)
    assert all(cell_len(row) <= width for row in rows)
    assert "".join(rows).replace(" ", "") == text.replace(" ", "")


@given(st.sampled_from([COLUMNS, (HOST, *COLUMNS), DenialsTable.columns]), st.integers(1, 300))
def test_columns_never_take_more_than_there_is(columns: tuple, width: int) -> None:  # type: ignore[type-arg] # of columns
    fitted = fit_columns(columns, width)
    assert sum(size for _, size in fitted) + len(fitted) - 1 <= max(width, 1)
    assert [column.id for column, _ in fitted] == [c.id for c in columns if c.id in {f.id for f, _ in fitted}]


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (60, ["agent", "state", "task", "cpu", "memory", "denials", "age"]),
        (120, [column.id for column in COLUMNS]),
        (250, [column.id for column in COLUMNS]),
    ],
)
def test_what_a_width_shows(width: int, expected: list[str]) -> None:
    assert [column.id for column, _ in fit_columns(COLUMNS, width - 4)] == expected


@given(st.floats(0, 1e8))
def test_durations_are_short(seconds: float) -> None:
    assert len(units.duration(seconds)) <= 5


@given(st.integers(0, 10**15))
def test_counts_and_sizes_are_short(number: int) -> None:
    assert len(units.count(number)) <= 5
    assert len(units.size(number)) <= 5


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (units.duration(59.9), "59s"),
        (units.duration(61), "1m"),
        (units.duration(3 * 3600 + 5 * 60), "3h05"),
        (units.duration(90_000), "1d"),
        (units.duration(-5), "0s"),
        (units.size(512), "512B"),
        (units.size(512 * 2**20), "512M"),
        (units.size(1536), "1.5K"),
        (units.count(12_345), "12.3k"),
        (units.money(0), "0"),
        (units.money(0.0004), "0.0004"),
        (units.money(12.5), "12.50"),
        (units.elapsed(0.012), "12 ms"),
        (units.elapsed(59.99), "1 m 00 s"),
        (units.plural(1, "process"), "1 process"),
        (units.plural(1200, "process"), "1,200 processes"),
    ],
)
def test_figures(shown: str, text: str) -> None:
    assert shown == text


@given(st.lists(st.floats(0, 10)), st.floats(0, 5), st.integers(0, 60))
def test_sparks_and_graphs_have_their_size(values: list[float], ceiling: float, width: int) -> None:
    assert len(meters.spark(values, ceiling, width)) == width
    rows = meters.area(values, ceiling, width, 3)
    assert [len(row) for row in rows] == [width] * 3


@given(st.floats(-1, 3), st.integers(0, 60))
def test_bars_have_their_width(fraction: float, width: int) -> None:
    filled, rest = meters.bar(fraction, width)
    assert len(filled) + len(rest) == width
    assert (len(rest) == width) == (round(max(0.0, min(1.0, fraction)) * width * 2) == 0)


# -- places -------------------------------------------------------------------------------------------------------


def test_back_goes_where_one_came_from() -> None:
    history = History()
    history.visit(Place("agent"))
    history.visit(Place("output"))
    assert history.up() == Place("agent")
    assert history.up() == Place("fleet")
    assert history.step(-1) is None
    assert history.step(1) == Place("agent")
    history.visit(Place("denials"))
    assert history.step(1) is None, "what lay ahead is forgotten"
    assert history.up() == Place("agent"), "opened from there"


# -- settings -----------------------------------------------------------------------------------------------------


def test_no_file_is_no_problem(tmp_path: Path) -> None:
    loaded = settings.load(tmp_path / "none.yaml")
    assert (loaded.settings, loaded.problems) == (settings.Settings(), [])


def test_the_shipped_settings_are_the_defaults(repo_root: Path) -> None:
    loaded = settings.load(repo_root / "configs/console.yaml")
    assert (loaded.settings, loaded.problems) == (settings.Settings(), [])


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("theme: toka-dark\nrefresh_hz: 900\n", 2, "refresh_hz must be a whole number from 1 to 60"),
        ("\n\ntheme: pink\n", 3, "theme must be one of toka-dark, toka-light, toka-contrast"),
        ("colour: red\n", 1, "no setting 'colour'"),
        ("- a\n", 1, "must be a map"),
        ("theme: [\n", 2, ""),
        ("keys:\n  agent.kill: {a: b}\n", 2, "the keys of agent.kill must be text"),
        ("keys: 3\n", 1, "keys must be a map"),
        ("keys:\n  view.theme: on\n", 2, "in quotes"),
        ("them: x\n", 1, "no setting 'them'; did you mean theme?"),
        ("keys:\n  agent.pause: j\n", 2, "key j on every screen: both agent.pause and cursor.down (cursor.down has"),
        ("keys:\n  view.theme: z\n  view.redraw: z\n", 2, "key z on every screen: both view.theme and view.redraw"),
        ("keys:\n  agent.kil: z\n", 2, "no action agent.kil; did you mean agent.kill?"),
        ("keys:\n  view.theme: ctrl-pagup\n", 2, "no key 'ctrl-pagup'"),
        ("keys:\n  agent.kill: ctrl-k\n", 2, "its key is a capital letter"),
        ("keys:\n  turn.next: a\n", 2, "key a changes state on screen approvals (approval.once)"),
        ("hosts: 3\n", 1, "hosts must be a map"),
        ("hosts:\n  a: x\n", 2, "host a must be a map with address, accent, group"),
        ("hosts:\n  a:\n    colour: red\n", 3, "host a has no field 'colour'"),
        ("hosts:\n  a:\n    accent: purpel\n", 3, "accent of host a must be '#rrggbb'"),
        ("hosts:\n  a: {accent: 3}\n", 2, "accent of host a must be text"),
    ],
)
def test_a_mistake_has_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    file = tmp_path / "console.yaml"
    file.write_text(text)
    problems = settings.load(file).problems
    assert [(problem.line, message in problem.message) for problem in problems] == [(line, True)]


def test_an_unreadable_file_is_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "console.yaml"
    file.write_bytes(b"\xff\xfe\x00theme")
    assert settings.load(file).problems[0].line == 0


def test_ages_of_the_future_are_zero(repo_root: Path) -> None:
    from datetime import UTC, datetime

    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert units.age(now + timedelta(hours=1), now) == "0s"
    assert units.age(None, now) == ""
