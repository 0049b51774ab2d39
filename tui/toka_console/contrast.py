"""How well text can be read on its ground: WCAG 2 contrast, and colours moved until they keep a ratio. Pure.

Colours are `#rrggbb`.
"""

from __future__ import annotations

from collections.abc import Iterable

STEPS = 50
Channels = tuple[int, int, int]


def channels(colour: str) -> Channels:
    """Red, green and blue, 0–255. Raises ValueError when it is no `#rrggbb`."""
    if len(colour) != 7 or colour[0] != "#":
        raise ValueError(f"{colour!r} is no colour of the form #rrggbb")
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def luminance(colour: str) -> float:
    """Relative luminance, 0 (black) to 1 (white)."""
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (channel / 255 for channel in channels(colour))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def ratio(one: str, other: str) -> float:
    """1 (the same) to 21 (black on white)."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def mix(one: str, other: str, share: float) -> str:
    """`share` of `other` in `one`."""
    parts = (round(a + (b - a) * share) for a, b in zip(channels(one), channels(other), strict=True))
    return "#" + "".join(f"{part:02x}" for part in parts)


def readable(colour: str, grounds: Iterable[str], least: float) -> str:
    """`colour`, moved towards black or white as little as is needed for a ratio of `least` on all of `grounds`.

    When there is no such colour, black or white, whichever is better.
    """
    grounds = tuple(grounds)

    def worst(candidate: str) -> float:
        return min(ratio(candidate, ground) for ground in grounds)

    end = max("#ffffff", "#000000", key=worst)
    candidates = (mix(colour, end, step / STEPS) for step in range(STEPS + 1))
    return next((candidate for candidate in candidates if worst(candidate) >= least), end)
