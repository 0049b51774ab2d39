"""Themes: text can be read in each, roles are told apart in sixteen colours and without, hosts keep their colour."""

from __future__ import annotations

from dataclasses import fields

import pytest
from rich.color import ColorSystem
from rich.style import Style

from fakes.console import console
from toka_console import contrast, themes

NO_TEXT = {"faint", "frame", "meter_rest", "selection"}
"""Lines and fillings."""
TEXT = [field.name for field in fields(themes.Palette) if field.name not in NO_TEXT]
IN_ROWS = ["base", "strong", "muted", "accent", "good", "done", "info", "warn", "bad", "killed"]
STATES = ["base", "good", "warn", "bad", "killed", "info"]


def ratio(style: Style) -> float:
    assert style.color is not None
    assert style.bgcolor is not None
    return contrast.ratio(style.color.get_truecolor().hex, style.bgcolor.get_truecolor().hex)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("#000000", "#ffffff", 21.0),
        ("#ffffff", "#ffffff", 1.0),
        ("#777777", "#ffffff", 4.48),
        ("#ff0000", "#000000", 5.25),
    ],
)
def test_contrast_is_that_of_wcag(one: str, other: str, expected: float) -> None:
    assert abs(contrast.ratio(one, other) - expected) < 0.01
    assert contrast.ratio(other, one) == contrast.ratio(one, other)


@pytest.mark.parametrize("name", list(themes.THEMES))
def test_all_text_can_be_read(name: str) -> None:
    palette = themes.palette(name)
    least = 7.0 if name == "toka-contrast" else 4.5
    low = {role: ratio(palette.role(role)) for role in TEXT if ratio(palette.role(role)) < least}
    assert low == {}
    selected = {role: ratio(palette.selected(palette.role(role))) for role in IN_ROWS}
    assert {role: found for role, found in selected.items() if found < least} == {}


def test_the_shipped_themes_are_those_promised() -> None:
    assert list(themes.THEMES)[:4] == ["toka-dark", "toka-light", "toka-contrast", "toka-colour-blind"]
    assert "nord" in themes.THEMES
    assert not any(name.startswith("ansi") for name in themes.THEMES)


@pytest.mark.parametrize("name", ["toka-dark", "toka-light", "toka-contrast", "toka-colour-blind"])
def test_states_differ_also_in_256_colours(name: str) -> None:
    palette = themes.palette(name)
    drawn = [palette.role(role).color.downgrade(ColorSystem.EIGHT_BIT).number for role in STATES]  # type: ignore[union-attr] # each has one
    assert len(set(drawn)) == len(STATES)
    grounds = [palette.base.bgcolor, palette.selection.bgcolor]
    assert len({ground.downgrade(ColorSystem.EIGHT_BIT).number for ground in grounds if ground is not None}) == 2


@pytest.mark.parametrize("name", ["toka-dark", "toka-light"])
def test_states_differ_in_sixteen_colours(name: str) -> None:
    palette = themes.palette(name, "sixteen")
    drawn = [palette.role(role) for role in STATES]
    assert len(set(drawn)) == len(STATES)
    for role in TEXT:
        style = palette.role(role)
        for colour in (style.color, style.bgcolor):
            assert colour is None or (colour.number is not None and colour.number < 16), role
    assert palette.selected(palette.base) != palette.base


@pytest.mark.parametrize(
    ("environ", "depth"),
    [
        ({"TERM": "xterm", "NO_COLOR": "1"}, "none"),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, "full"),
        ({"TERM": "xterm-256color"}, "full"),
        ({"TERM": "xterm"}, "sixteen"),
        ({"TERM": "linux"}, "sixteen"),
        ({"TERM": "dumb"}, "none"),
    ],
)
def test_what_a_terminal_says_of_its_colours(environ: dict[str, str], depth: str) -> None:
    assert themes.depth_of(environ) == depth


@pytest.mark.parametrize("name", ["toka-dark", "toka-light", "toka-contrast", "nord"])
def test_a_host_keeps_its_colour_and_it_can_be_read(name: str) -> None:
    hosts = [f"host-{number}" for number in range(40)]
    styles = [themes.accent(host, "", name, "full") for host in hosts]
    assert styles == [themes.accent(host, "", name, "full") for host in hosts]
    assert len({style.color for style in styles}) >= 5, "they are told apart"
    assert all(ratio(style) >= (7.0 if name == "toka-contrast" else 4.5) for style in styles)
    assert themes.accent("a", "pink", name, "full") == themes.accent("b", "pink", name, "full")


@pytest.mark.parametrize("wanted", ["", "pink", "#ff0000", "nonsense"])
def test_an_accent_is_drawn_with_what_the_terminal_has(wanted: str) -> None:
    sixteen = themes.accent("a", wanted, "toka-dark", "sixteen")
    assert sixteen.color is not None
    assert themes.accent("a", wanted, "toka-dark", "none") == themes.palette("toka-dark", "none").base


async def test_a_theme_is_changed_by_name_and_an_unknown_one_is_refused() -> None:
    async with console((100, 30)) as made:
        await made.type(":theme toka-contrast")
        await made.press("enter")
        assert made.app.session.theme == "toka-contrast"
        await made.type(":theme nrod")
        await made.press("enter")
        assert made.app.session.theme == "toka-contrast"
        assert "no theme nrod; did you mean nord?" in made.text()
