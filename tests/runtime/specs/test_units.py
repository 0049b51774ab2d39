"""Units: what people write, to typed numbers and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toka_runtime.specs import units
from toka_runtime.specs.units import UnitError


@pytest.mark.parametrize(
    ("written", "size_bytes"),
    [
        ("512MB", 512_000_000),
        ("1GB", 1_000_000_000),
        ("256MiB", 256 * 2**20),
        ("1.5 GiB", 3 * 2**29),
        ("64k", 64_000),
        ("0.1GB", 100_000_000),
        ("12 bytes", 12),
        (" 1024 ", 1024),
        (2048, 2048),
        ("9PB", 9 * 10**15),
    ],
)
def test_sizes(written: str | int, size_bytes: int) -> None:
    assert units.parse_size(written) == size_bytes


@pytest.mark.parametrize(
    ("written", "fraction"),
    [
        ("75%", 0.75),
        ("0.5", 0.5),
        (0.5, 0.5),
        (2, 2.0),
        ("150%", 1.5),
        ("2 cores", 2.0),
        ("16 CPUs", 16.0),
        ("500m", 0.5),
    ],
)
def test_cpu(written: str | float, fraction: float) -> None:
    assert units.parse_cpu(written) == fraction


def test_a_bare_cpu_number_that_may_mean_per_cent_is_refused() -> None:
    with pytest.raises(UnitError) as caught:
        units.parse_cpu(75)
    assert caught.value.hint == "write 75% or 75 cores"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("30m", 1800),
        ("2h", 7200),
        ("1d", 86400),
        ("1w", 604800),
        ("1h30m", 5400),
        ("2 hours 5 minutes", 7500),
        ("1800", 1800),
        (90, 90),
        (0.01, 0.01),
        ("250ms", 0.25),
        ("1.5h", 5400),
    ],
)
def test_durations(written: str | float, seconds: float) -> None:
    assert units.parse_duration(written) == seconds


@pytest.mark.parametrize(("written", "seconds"), [("2-4h", 14400), ("1h – 2h", 7200), ("~30m", 1800), ("4h", 14400)])
def test_estimates(written: str, seconds: float) -> None:
    assert units.parse_estimate(written) == seconds


@pytest.mark.parametrize(
    ("written", "rate"),
    [("100Mbps", 12_500_000), ("8 bps", 1), ("1Gbit/s", 125_000_000), ("10MB/s", 10_000_000), ("1MiB/s", 2**20)],
)
def test_bandwidth(written: str, rate: int) -> None:
    assert units.parse_bandwidth(written) == rate


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "much",
        "-5MB",
        "5 furlongs",
        "1e3",
        "٥MB",
        "1..2GB",
        "12345678901234567890B",
        True,
        float("inf"),
        float("nan"),
        -1,
        10**30,
    ],
)
def test_what_is_no_quantity_says_so_with_a_hint(bad: str | float) -> None:
    for parse in (units.parse_size, units.parse_cpu, units.parse_duration, units.parse_estimate, units.parse_bandwidth):
        with pytest.raises(UnitError) as caught:
            parse(bad)
        assert caught.value.hint
        assert len(caught.value.message) < 120


anything = st.text(max_size=40) | st.from_regex(r"\A[0-9.]{0,6} ?[a-zA-Z%/]{0,5}\Z") | st.integers() | st.floats()


@given(anything)
def test_never_anything_but_a_number_or_a_unit_error(value: str | float) -> None:
    for parse in (units.parse_size, units.parse_cpu, units.parse_duration, units.parse_estimate, units.parse_bandwidth):
        try:
            result = parse(value)
        except UnitError:
            continue
        assert 0 <= result < 2**63


@given(st.integers(0, units.MAX_BYTES // 10))
def test_sizes_round_trip(size_bytes: int) -> None:
    assert units.parse_size(units.format_size(size_bytes)) == size_bytes


@given(st.integers(0, 10**12))
def test_bandwidths_round_trip(rate: int) -> None:
    assert units.parse_bandwidth(units.format_bandwidth(rate)) == rate


@given(st.integers(0, units.MAX_DURATION_S * 1000))
def test_durations_round_trip(milliseconds: int) -> None:
    assert units.parse_duration(units.format_duration(milliseconds / 1000)) == milliseconds / 1000


@given(st.integers(0, units.MAX_CORES * 10_000))
def test_cpu_round_trips(hundredths: int) -> None:
    assert units.parse_cpu(units.format_cpu(hundredths / 10_000)) == hundredths / 10_000
