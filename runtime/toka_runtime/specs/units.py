"""Quantities as people write them in spec files, to typed numbers and back.

Sizes are SI and IEC: `1MB` is 1,000,000 bytes, `1MiB` is 1,048,576. CPU is a fraction of one core. Durations are
seconds. Bandwidth is written in bits (`100Mbps`) or bytes (`10MB/s`) per second and kept in bytes per second. What is
not plainly one of these forms raises `UnitError`, whose hint shows a form that would do.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NoReturn

from toka_runtime.errors import SpecError

Raw = str | int | float

MAX_BYTES = 2**63 - 1
MAX_CORES = 1024
MAX_DURATION_S = 3650 * 86400
_SHOWN = 40


class UnitError(SpecError):
    """A quantity that cannot be read."""

    code = "spec.bad_value"


_DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40, "pi": 2**50}
_PREFIXES = _DECIMAL | _BINARY
_SECONDS = {
    Fraction(1, 1000): ("ms", "millisecond", "milliseconds"),
    Fraction(1): ("s", "sec", "secs", "second", "seconds"),
    Fraction(60): ("m", "min", "mins", "minute", "minutes"),
    Fraction(3600): ("h", "hr", "hrs", "hour", "hours"),
    Fraction(86400): ("d", "day", "days"),
    Fraction(604800): ("w", "week", "weeks"),
}
_DURATION_UNITS = {name: seconds for seconds, names in _SECONDS.items() for name in names}

# Digits are ASCII and bounded, so that no text makes the arithmetic slow.
_NUMBER = r"[0-9]{1,18}(?:\.[0-9]{1,18})?"
_SIZE = re.compile(rf"({_NUMBER})\s*([kmgtp]i?)?(?:b|bytes?)?", re.IGNORECASE | re.ASCII)
_CORES = re.compile(rf"({_NUMBER})\s*(%|m|cores?|cpus?)?", re.IGNORECASE | re.ASCII)
_STEP = re.compile(rf"({_NUMBER})\s*([a-z]+)", re.IGNORECASE | re.ASCII)
_BARE = re.compile(_NUMBER, re.ASCII)
_RATE = re.compile(rf"({_NUMBER})\s*([kmgtpKMGTP]i?)?(bps|bit/s|bits/s|b/s|Bps|B/s)", re.ASCII)
_RANGE = re.compile(rf"~?\s*({_NUMBER})\s*([a-z]*)\s*(?:-|–|to)\s*({_NUMBER}\s*[a-z]+)", re.IGNORECASE | re.ASCII)

SIZE_HINT = "write a size such as 512MB, 1GB or 256MiB"
CPU_HINT = "write a share of one core such as 75% or 0.5, or 2 cores"
DURATION_HINT = "write a duration such as 30m, 2h, 1d, or seconds as a bare number"
BANDWIDTH_HINT = "write a rate such as 100Mbps or 10MB/s"


def _fail(what: str, value: Raw, hint: str) -> NoReturn:
    shown = repr(value)
    raise UnitError(f"{shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '…'} is not {what}", hint=hint)


def _text(value: Raw, what: str, hint: str) -> str:
    """The value as the text it would have been written as; booleans and infinities are no quantities."""
    if isinstance(value, bool) or (isinstance(value, float) and not 0 <= value < 1e18):
        _fail(what, value, hint)
    if isinstance(value, float):
        return f"{value:.9f}".rstrip("0").rstrip(".")
    if isinstance(value, int):
        if not 0 <= value < 10**18:
            _fail(what, "a number that is negative or that large", hint)
        return str(value)
    return value.strip()


def parse_size(value: Raw) -> int:
    """Bytes. `512MB`, `1.5 GiB`, `64k`; a bare number is bytes."""
    text = _text(value, "a size", SIZE_HINT)
    if (match := _SIZE.fullmatch(text)) is None:
        _fail("a size", value, SIZE_HINT)
    amount = int(Fraction(match[1]) * _PREFIXES[(match[2] or "").lower()])
    if amount > MAX_BYTES:
        _fail("a size that any machine has", value, SIZE_HINT)
    return amount


def parse_cpu(value: Raw) -> float:
    """Fraction of one core: `75%` and `0.75` are 0.75, `2 cores` is 2.0, `500m` is 0.5."""
    text = _text(value, "a share of CPU", CPU_HINT)
    if (match := _CORES.fullmatch(text)) is None:
        _fail("a share of CPU", value, CPU_HINT)
    amount, unit = Fraction(match[1]), (match[2] or "").lower()
    if not unit and amount >= 10:
        _fail("clear: per cent or cores?", value, f"write {text}% or {text} cores")
    amount /= {"%": 100, "m": 1000}.get(unit, 1)
    if amount > MAX_CORES:
        _fail("a share of CPU that any machine has", value, CPU_HINT)
    return float(amount)


def parse_duration(value: Raw) -> float:
    """Seconds. `30m`, `2h`, `1d`, `1h30m`, `500ms`, `2 hours`; a bare number is seconds."""
    text = _text(value, "a duration", DURATION_HINT)
    total = Fraction(text) if _BARE.fullmatch(text) else _steps(text, value)
    if total > MAX_DURATION_S:
        _fail("a duration below ten years", value, DURATION_HINT)
    return float(total)


def _steps(text: str, value: Raw) -> Fraction:
    total, position = Fraction(0), 0
    rest = text.rstrip()
    while position < len(rest):
        match = _STEP.match(rest, position)
        if match is None or (seconds := _DURATION_UNITS.get(match[2].lower())) is None:
            _fail("a duration", value, DURATION_HINT)
        total += Fraction(match[1]) * seconds
        position = match.end()
        while position < len(rest) and rest[position].isspace():
            position += 1
    if not rest:
        _fail("a duration", value, DURATION_HINT)
    return total


def parse_estimate(value: Raw) -> float:
    """Seconds, for plans only: a duration, `~4h`, or a range such as `2-4h`, of which the longer end counts."""
    text = _text(value, "a duration", DURATION_HINT)
    if (match := _RANGE.fullmatch(text)) is not None:
        return parse_duration(match[3])
    return parse_duration(text.removeprefix("~"))


def parse_bandwidth(value: Raw) -> int:
    """Bytes per second. `100Mbps` and `100Mbit/s` count bits, `10MB/s` and `10MBps` count bytes."""
    match = _RATE.fullmatch(_text(value, "a bandwidth", BANDWIDTH_HINT))
    if match is None:
        _fail("a bandwidth", value, BANDWIDTH_HINT)
    amount = Fraction(match[1]) * _PREFIXES[(match[2] or "").lower()]
    if not match[3].startswith("B"):
        amount /= 8
    if amount > MAX_BYTES:
        _fail("a bandwidth that any link has", value, BANDWIDTH_HINT)
    return int(amount)


def format_size(size_bytes: int) -> str:
    """Exact: the largest unit that leaves a whole number, e.g. `512MB`, `256MiB`, `1001B`."""
    units = [(factor, name.upper() + "B") for name, factor in _DECIMAL.items()]
    units += [(factor, name.capitalize() + "B") for name, factor in _BINARY.items()]
    whole = [(factor, unit) for factor, unit in units if size_bytes % factor == 0 and size_bytes >= factor]
    factor, unit = max(whole, default=(1, "B"))
    return f"{size_bytes // factor}{unit}"


def format_cpu(fraction: float) -> str:
    """`75%`; above one core too: `150%`."""
    return f"{fraction * 100:.6f}".rstrip("0").rstrip(".") + "%"


def format_duration(seconds: float) -> str:
    """Exact to the millisecond: `1h30m`, `45s`, `1s500ms`, `0s`."""
    left = round(seconds * 1000)
    parts: list[str] = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def format_bandwidth(bytes_per_s: int) -> str:
    """Exact, in bits: `100Mbps`."""
    bits = bytes_per_s * 8
    whole = [(factor, name) for name, factor in _DECIMAL.items() if bits % factor == 0 and bits >= factor]
    factor, name = max(whole, default=(1, ""))
    return f"{bits // factor}{name.upper() if name != 'k' else 'k'}bps"
