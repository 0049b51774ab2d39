"""`toka-runtime budget` and the options that set caps, as a person at a shell uses them."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from e2e.test_serve import serving
from toka_runtime.client.arguments import caps
from toka_runtime.errors import UsageError
from toka_runtime.llm.prices import read_prices
from toka_runtime.protocol.usage import TokenUsage


def test_caps_are_set_shown_and_lifted(tmp_path: Path) -> None:
    with serving(tmp_path, "alpha") as shell:
        assert "no cap is set" in shell("budget")
        assert "100,000 tokens and $2.50" in shell("budget", "agent:alpha", "100k,$2.50")
        shell("budget", "day", "2M")
        rows = {row["account"]: row for row in shell.json("budget")}
        assert (rows["agent:alpha"]["max_tokens"], rows["agent:alpha"]["max_cost_usd"]) == (100_000, 2.5)
        assert rows["day"]["max_tokens"] == 2_000_000
        assert "no cap" in shell("budget", "day", "none")
        assert "day" not in {row["account"] for row in shell.json("budget")}
        assert "no agent" in shell("budget", "agent:nobody", "5", code=1)
        assert "no account" in shell("budget", "week", "5", code=2)
        assert "which cap" in shell("budget", "fleet", code=2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2000000", {"max_tokens": 2_000_000}),
        ("2M", {"max_tokens": 2_000_000}),
        ("1_500k,$0.50", {"max_tokens": 1_500_000, "max_cost_usd": 0.5}),
        ("5usd", {"max_cost_usd": 5.0}),
        ("none", {}),
    ],
)
def test_words_for_caps(text: str, expected: dict[str, float]) -> None:
    assert caps(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-5", "$", "many", "5,6", "$1,$2", "nan", "inf"])
def test_words_that_are_no_caps(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        caps(text)


def test_own_prices(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text('[models."llama 3"]\ninput = 0.5\noutput = 2\ncache_read = 0.1\n')
    (price,) = read_prices(file)
    usage = TokenUsage(input_tokens=1_000_000, output_tokens=500_000, cache_read_tokens=1_000_000)
    assert price.cost_usd(usage) == pytest.approx(1.6)  # pyright: ignore[reportUnknownMemberType]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models = 5", "only a table"),
        ("[models.a]\ninput = 1", "models.a: output"),
        ("[models.a]\ninput = 'dear'\noutput = 1", "models.a: input"),
        ("[models.a", "end of document"),
        ("x = 1", "only a table"),
        ("[models]\na = 5", "models.a: is no table"),
    ],
)
def test_prices_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_prices(file)
    with pytest.raises(UsageError, match="cannot be read"):
        read_prices(tmp_path / "nothing.toml")
