"""Numbers as people read them, short enough for a column."""

from __future__ import annotations

import math
from datetime import datetime

UNKNOWN = "unknown"


def duration(seconds: float) -> str:
    """At most five characters: `0.4s` `42s` `7m` `3h05` `12d`. Coarse on purpose: what changes each second is
    repainted each second."""
    seconds = max(0.0, seconds)
    if seconds < 60:
        return f"{int(seconds)}s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02}"
    return f"{hours // 24}d"


def countdown(seconds: float) -> str:
    """Time that is left, rounded up: `0:09` `4:32` `1:02:03`."""
    left = math.ceil(max(0.0, seconds))
    minutes, rest = divmod(left, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def elapsed(seconds: float) -> str:
    """How long something took: `12 ms` `1.2 s` `3 m 20 s`."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} m"


def age(since: datetime | None, now: datetime) -> str:
    return "" if since is None else duration((now - since).total_seconds())


def size(count: float) -> str:
    """Bytes in at most five characters: `512B` `41K` `1.5M` `512M` `3.9G`."""
    if count < 1000:
        return f"{int(count)}B"
    value = float(count)
    for unit in "KMGTP":
        value /= 1024
        if value < 9.95:
            return f"{value:.1f}{unit}"
        if value < 999.5:
            return f"{value:.0f}{unit}"
    return f"{value:.0f}E"


def count(number: int) -> str:
    """A count in at most five characters: `980` `12.3k` `1.2M`."""
    if number < 1000:
        return str(number)
    value = number / 1000
    for unit in "kMG":
        if value < 99.95:
            return f"{value:.1f}{unit}"
        if value < 999.5:
            return f"{value:.0f}{unit}"
        value /= 1000
    return f"{value:.0f}T"


def percent(fraction: float) -> str:
    """Of one core; may pass 100 %."""
    return f"{fraction * 100:.0f}%"


def money(usd: float) -> str:
    """`0` when nothing was spent; small sums keep two figures that mean something."""
    if usd <= 0:
        return "0"
    if usd < 0.01:
        return f"{usd:.4f}"
    if usd < 100:
        return f"{usd:.2f}"
    return f"{usd:.0f}"


def plural(number: int, noun: str) -> str:
    if number != 1:
        noun += "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}"


def clock_time(at: datetime | None) -> str:
    """Local wall time, `12:03:11`."""
    return "" if at is None else at.astimezone().strftime("%H:%M:%S")
