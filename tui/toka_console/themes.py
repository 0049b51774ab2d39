"""Themes, and the palette of roles that panes draw with. Colour is never the only sign (see `format.glyphs`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from rich.style import Style
from textual.theme import Theme

DARK = Theme(
    name="toka-dark",
    primary="#5ccfe6",
    secondary="#73d0ff",
    accent="#d4bfff",
    success="#87d96c",
    warning="#ffcc66",
    error="#ff6666",
    foreground="#ccd0da",
    background="#11151c",
    surface="#161b24",
    panel="#1c2330",
    dark=True,
    variables={"muted": "#68758c", "faint": "#333d4d", "killed": "#df8fdf", "selection": "#24405c"},
)
LIGHT = Theme(
    name="toka-light",
    primary="#0b7285",
    secondary="#1864ab",
    accent="#6741d9",
    success="#2b8a3e",
    warning="#b35900",
    error="#c92a2a",
    foreground="#24292f",
    background="#fbfbf8",
    surface="#f1f3f5",
    panel="#e9ecef",
    dark=False,
    variables={"muted": "#66707a", "faint": "#c5ccd3", "killed": "#a61e8c", "selection": "#cfe3f7"},
)
THEMES = {theme.name: theme for theme in (DARK, LIGHT)}
DEFAULT = DARK.name


@dataclass(frozen=True)
class Palette:
    """Every style a pane uses, on the screen's background. Made once a theme."""

    base: Style
    strong: Style
    muted: Style
    faint: Style
    frame: Style
    frame_focused: Style
    title: Style
    heading: Style
    accent: Style
    good: Style
    done: Style
    info: Style
    warn: Style
    bad: Style
    killed: Style
    bar: Style
    """The header and footer rows."""
    bar_muted: Style
    bar_strong: Style
    key: Style
    banner: Style
    alert: Style
    alert_bad: Style
    selection: Style
    """Laid over a row's own styles."""
    button: Style
    button_focused: Style
    button_danger: Style
    meter_low: Style
    meter_mid: Style
    meter_high: Style
    meter_rest: Style

    def role(self, name: str) -> Style:
        """The style of a role named by `format.glyphs`."""
        return cast(Style, getattr(self, name))

    def meter(self, fraction: float) -> Style:
        """Of a gauge: green below 60 % of its limit, red from 85 %."""
        return self.meter_low if fraction < 0.6 else self.meter_mid if fraction < 0.85 else self.meter_high

    def selected(self, style: Style) -> Style:
        return _combined(style, self.selection)


@lru_cache(512)
def _combined(style: Style, over: Style) -> Style:
    return style + over


@lru_cache(8)
def palette(theme_name: str, colour: bool = True) -> Palette:
    """The palette of one of `THEMES`; without colour, weight and reverse video carry what colours would."""
    return _coloured(THEMES.get(theme_name, DARK)) if colour else _plain()


def _coloured(theme: Theme) -> Palette:
    extra = theme.variables
    ground, text = theme.background or "", theme.foreground or ""

    def on(colour: str | None, *, bg: str | None = ground, bold: bool = False, italic: bool = False) -> Style:
        # None leaves an attribute to the style below; False would switch it off in a combination.
        return Style(color=colour, bgcolor=bg, bold=bold or None, italic=italic or None)

    dark_text = ground if theme.dark else "#ffffff"
    return Palette(
        base=on(text),
        strong=on(text, bold=True),
        muted=on(extra["muted"]),
        faint=on(extra["faint"]),
        frame=on(extra["faint"]),
        frame_focused=on(theme.primary),
        title=on(theme.primary, bold=True),
        heading=on(extra["muted"], bold=True),
        accent=on(theme.accent),
        good=on(theme.success),
        done=on(theme.secondary),
        info=on(theme.primary),
        warn=on(theme.warning),
        bad=on(theme.error, bold=True),
        killed=on(extra["killed"]),
        bar=on(text, bg=theme.panel),
        bar_muted=on(extra["muted"], bg=theme.panel),
        bar_strong=on(theme.primary, bg=theme.panel, bold=True),
        key=on(theme.warning, bg=theme.panel, bold=True),
        banner=on(dark_text, bg=theme.warning, bold=True),
        alert=on(theme.warning, bg=theme.surface),
        alert_bad=on(theme.error, bg=theme.surface, bold=True),
        selection=Style(bgcolor=extra["selection"], bold=True),
        button=on(text, bg=theme.panel),
        button_focused=on(dark_text, bg=theme.primary, bold=True),
        button_danger=on(dark_text, bg=theme.error, bold=True),
        meter_low=on(theme.success),
        meter_mid=on(theme.warning),
        meter_high=on(theme.error),
        meter_rest=on(extra["faint"], bg=theme.panel),
    )


def _plain() -> Palette:
    normal, bold, dim = Style(), Style(bold=True), Style(dim=True)
    reverse = Style(reverse=True)
    loud = Style(reverse=True, bold=True)
    return Palette(
        base=normal, strong=bold, muted=dim, faint=dim, frame=dim, frame_focused=bold, title=bold, heading=bold,
        accent=normal, good=normal, done=dim, info=normal, warn=bold, bad=bold, killed=bold, bar=reverse,
        bar_muted=reverse, bar_strong=loud, key=loud, banner=loud, alert=bold, alert_bad=loud, selection=reverse,
        button=normal, button_focused=loud, button_danger=loud, meter_low=normal, meter_mid=bold, meter_high=bold,
        meter_rest=dim,
    )  # fmt: skip
