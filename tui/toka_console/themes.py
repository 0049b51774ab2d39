"""Themes, and the palette of roles that panes draw with. Colour is never the only sign (see `format.glyphs`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, cast
from zlib import crc32

from rich.style import Style
from textual.color import Color
from textual.theme import BUILTIN_THEMES, Theme

from toka_console.contrast import mix, ratio, readable

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
    variables={"muted": "#8f9bb0", "faint": "#333d4d", "killed": "#df8fdf", "selection": "#1d3449"},
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
CONTRAST = Theme(
    name="toka-contrast",
    primary="#6fe3ff",
    secondary="#9fd0ff",
    accent="#e0ccff",
    success="#7dff6b",
    warning="#ffe14d",
    error="#ff9c9c",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#141414",
    dark=True,
    variables={"muted": "#c8c8c8", "faint": "#8a8a8a", "killed": "#ffb3ff", "selection": "#00308f"},
)
SAFE = Theme(
    # Okabe and Ito's colours, which people who do not see red or green tell apart.
    name="toka-colour-blind",
    primary="#56b4e9",
    secondary="#56b4e9",
    accent="#e69f00",
    success="#009e73",
    warning="#f0e442",
    error="#d55e00",
    foreground="#d8dce4",
    background="#11151c",
    surface="#161b24",
    panel="#1c2330",
    dark=True,
    variables={"muted": "#8b97ab", "faint": "#3b4658", "killed": "#cc79a7", "selection": "#1e2f40"},
)
OURS = (DARK, LIGHT, CONTRAST, SAFE)
THEMES = {theme.name: theme for theme in (*OURS, *(theme for theme in BUILTIN_THEMES.values() if not theme.ansi))}
DEFAULT = DARK.name
READABLE, HIGH = 4.5, 7.0
"""Least WCAG contrast of text, and of text in the theme of high contrast."""

ACCENTS = {
    "red": "#e5534b", "orange": "#e69f00", "yellow": "#d9c94a", "green": "#57ab5a", "teal": "#39c5bb",
    "blue": "#539bf5", "violet": "#a783f0", "pink": "#e275ad",
}  # fmt: skip
"""Names of colours that tell hosts apart; each theme shifts them until they can be read."""
_SIXTEEN = {
    "red": "red", "orange": "yellow", "yellow": "bright_yellow", "green": "green", "teal": "cyan",
    "blue": "bright_blue", "violet": "magenta", "pink": "bright_magenta",
}  # fmt: skip
Depth = Literal["none", "sixteen", "full"]
"""How many colours the terminal has; 256 are drawn as `full`, each as the nearest."""


def depth_of(environ: Mapping[str, str]) -> Depth:
    """What the terminal says of itself: `NO_COLOR`, `COLORTERM`, `TERM`."""
    from rich.console import Console
    from textual.constants import COLOR_SYSTEM

    if "NO_COLOR" in environ:
        return "none"
    # Rich's own names; the same question that Textual asks, so that both agree.
    system = Console(force_terminal=True, color_system=cast(Any, COLOR_SYSTEM), _environ=environ).color_system
    return "none" if system is None else "sixteen" if system == "standard" else "full"


def is_colour(text: str) -> bool:
    """Whether it can be the accent of a host."""
    return text in ACCENTS or re.fullmatch("#[0-9a-fA-F]{6}", text) is not None


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
def palette(theme_name: str, depth: Depth = "full") -> Palette:
    """The palette of one of `THEMES`; without colours, weight and reverse video carry what they would."""
    theme = THEMES.get(theme_name, DARK)
    return _coloured(theme) if depth == "full" else _sixteen(theme.dark) if depth == "sixteen" else _plain()


@lru_cache(256)
def accent(host: str, wanted: str, theme_name: str, depth: Depth) -> Style:
    """The style of a host's name: `wanted` (see `is_colour`), else a colour that its name always gets."""
    drawn = palette(theme_name, depth)
    if depth == "none":
        return drawn.base
    name = wanted if is_colour(wanted) else list(ACCENTS)[crc32(host.encode()) % len(ACCENTS)]
    if depth == "sixteen":
        # A colour of the operator's own is drawn as the nearest that the terminal has.
        return drawn.base + Style(color=_SIXTEEN.get(name, name))
    tones = _tones(THEMES.get(theme_name, DARK))
    return drawn.base + Style(color=tones.text(ACCENTS.get(name, name)))


@dataclass(frozen=True)
class _Tones:
    """The colours of a theme, as `#rrggbb`, those it leaves open filled in."""

    ground: str
    foreground: str
    surface: str
    panel: str
    muted: str
    faint: str
    killed: str
    selection: str
    least: float

    def text(self, colour: str) -> str:
        """A colour of text that is read on the ground and in the selected row."""
        return readable(colour, (self.ground, self.selection), self.least)

    def ink(self, ground: str) -> str:
        """The colour of text on a coloured ground."""
        best = max(self.ground, self.foreground, key=lambda colour: ratio(colour, ground))
        return readable(best, (ground,), self.least)


def _tones(theme: Theme) -> _Tones:
    least = HIGH if theme is CONTRAST else READABLE
    if theme in OURS:
        own = theme.variables
        return _Tones(
            ground=theme.background or "", foreground=theme.foreground or "", surface=theme.surface or "",
            panel=theme.panel or "", muted=own["muted"], faint=own["faint"], killed=own["killed"],
            selection=own["selection"], least=least,
        )  # fmt: skip
    made = theme.to_color_system().generate()
    ground, text, surface, panel, primary = (
        _hex(made[name]) for name in ("background", "foreground", "surface", "panel", "primary")
    )
    return _Tones(
        ground=ground, foreground=text, surface=surface, panel=panel, muted=mix(text, ground, 0.35),
        faint=mix(text, ground, 0.75), killed="#d070d0", selection=mix(ground, primary, 0.25), least=least,
    )  # fmt: skip


def _hex(colour: str) -> str:
    return Color.parse(colour).hex[:7].lower()


def _coloured(theme: Theme) -> Palette:
    tones = _tones(theme)
    ground = tones.ground
    primary, secondary, success, warning, error, lilac = (
        _hex(colour or theme.primary)
        for colour in (theme.primary, theme.secondary, theme.success, theme.warning, theme.error, theme.accent)
    )

    def on(colour: str, *, bg: str = ground, bold: bool = False) -> Style:
        # None leaves an attribute to the style below; False would switch it off in a combination.
        grounds = (bg, tones.selection) if bg == ground else (bg,)
        return Style(color=readable(colour, grounds, tones.least), bgcolor=bg, bold=bold or None)

    def button(colour: str) -> Style:
        return Style(color=tones.ink(colour), bgcolor=colour, bold=True)

    return Palette(
        base=on(tones.foreground),
        strong=on(tones.foreground, bold=True),
        muted=on(tones.muted),
        faint=Style(color=tones.faint, bgcolor=ground),
        frame=Style(color=tones.faint, bgcolor=ground),
        frame_focused=on(primary),
        title=on(primary, bold=True),
        heading=on(tones.muted, bold=True),
        accent=on(lilac),
        good=on(success),
        done=on(secondary),
        info=on(primary),
        warn=on(warning),
        bad=on(error, bold=True),
        killed=on(tones.killed),
        bar=on(tones.foreground, bg=tones.panel),
        bar_muted=on(tones.muted, bg=tones.panel),
        bar_strong=on(primary, bg=tones.panel, bold=True),
        key=on(warning, bg=tones.panel, bold=True),
        banner=button(warning),
        alert=on(warning, bg=tones.surface),
        alert_bad=on(error, bg=tones.surface, bold=True),
        selection=Style(bgcolor=tones.selection, bold=True),
        button=on(tones.foreground, bg=tones.panel),
        button_focused=button(primary),
        button_danger=button(error),
        meter_low=on(success),
        meter_mid=on(warning),
        meter_high=on(error),
        meter_rest=Style(color=tones.faint, bgcolor=tones.panel),
    )


def _sixteen(dark: bool) -> Palette:
    """The terminal's own sixteen colours, which its owner has chosen: no ground but black or white, one grey."""
    ground, text, grey = ("black", "white", "bright_black") if dark else ("bright_white", "black", "bright_black")
    tone = "bright_" if dark else ""

    def on(colour: str, *, bold: bool = False, named: bool = False) -> Style:
        return Style(color=colour if named else tone + colour, bgcolor=ground, bold=bold or None)

    def bar(colour: str, *, bold: bool = False) -> Style:
        return Style(color=colour, bgcolor="blue" if dark else "white", bold=bold or None)

    bar_text = "bright_white" if dark else "black"
    plain = on(text, named=True)
    faint = on(grey, named=True)
    # Yellow on white is not read.
    warning = on("yellow") if dark else on("magenta", bold=True)
    loud = Style(color=ground, bgcolor="bright_yellow" if dark else "magenta", bold=True)
    danger = Style(color="bright_white", bgcolor="red", bold=True)
    return Palette(
        base=plain, strong=on(bar_text, bold=True, named=True), muted=on("cyan", named=True), faint=faint, frame=faint,
        frame_focused=on("cyan"), title=on("cyan", bold=True), heading=on("cyan", named=True, bold=True),
        accent=on("magenta"), good=on("green"), done=on("blue"), info=on("cyan"), warn=warning,
        bad=on("red", bold=True), killed=on("magenta"), bar=bar(bar_text), bar_muted=bar("cyan" if dark else "blue"),
        bar_strong=bar("bright_cyan" if dark else "blue", bold=True),
        key=bar("bright_yellow" if dark else "magenta", bold=True), banner=loud, alert=warning,
        alert_bad=danger, selection=Style(reverse=True, bold=True), button=bar(bar_text), button_focused=loud,
        button_danger=danger, meter_low=on("green"), meter_mid=warning, meter_high=on("red", bold=True),
        meter_rest=faint,
    )  # fmt: skip


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
