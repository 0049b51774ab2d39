"""F12: how the console itself does; counters that are right also when much happens."""

from __future__ import annotations

import io

import pytest

from fakes import fleet
from fakes.console import Console, console
from toka_console.diagnostics import Diagnostics
from toka_console.driver import TimedFile
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.usage import Usage

FIRST = fleet.NAMES[0][0]


def test_a_stall_is_counted_once_whoever_caused_it() -> None:
    health = Diagnostics(clock=lambda: 50.0)
    health.drained(10, 0.099)
    health.painted(0.02)
    assert (health.stalls, health.last) == (0, None)
    health.painted(0.3)
    health.tick(1.0, 0.35)
    assert health.stalls == 1, "the late tick is that paint's doing"
    health.tick(2.0, 0.25)
    assert (health.stalls, health.last) == (2, (50.0, 0.25, "loop"))
    health.drained(10, 0.2)
    assert health.worst is not None
    assert (health.worst.seconds, health.worst.what) == (0.3, "paint")


def test_rates_are_those_of_the_last_seconds() -> None:
    health = Diagnostics()
    for second in range(30):
        health.drained(100 if second < 15 else 500, 0.001)
        health.tick(float(second), 0.0, written=second * 2048)
    assert health.events_per_s() == 500
    assert health.written_per_s() == 2048
    assert health.drains.count == 30


def test_percentiles_of_nothing_are_nothing() -> None:
    health = Diagnostics()
    assert health.folds.percentile(0.99) == 0.0
    health.folded(0.25)
    assert health.folds.percentile(0.5) == health.folds.percentile(0.99) == 0.25


def test_the_terminal_counts_bytes_and_not_characters() -> None:
    file = TimedFile(io.StringIO())
    file.write("a─")
    file.write("b")
    assert file.written == 5


def value(made: Console, label: str) -> str:
    return next(line for line in made.text().splitlines() if f" {label} " in line).split(label, 1)[1]


@pytest.mark.parametrize("size", [(200, 50), (80, 24), (60, 15)], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_everything_is_said_at_every_size(size: tuple[int, int]) -> None:
    async with console(size) as made:
        await made.press("f12")
        seen = ""
        for _ in range(12):
            seen += made.text()
            await made.press("pagedown")
        for label in ("events", "batches", "folds", "paints", "frames", "stalls", "memory", "dropped", "coalesced",
                      "reconnects", "missed", "terminal", "delay" if "delay" in seen else "unknown"):  # fmt: skip
            assert label in seen, label
        assert "p99" in seen


async def test_samples_that_newer_ones_replace_are_counted() -> None:
    async with console((120, 40)) as made:
        before = made.app.session.diagnostics.coalesced
        batch = [made.client.envelope(ev.AgentSampled(usage=Usage(processes=n)), FIRST) for n in range(40)]
        samples = made.agent(FIRST).samples
        made.client.deliver(batch)
        await made.until(lambda: made.agent(FIRST).samples > samples, "the sample")
        assert made.app.session.diagnostics.coalesced - before == 39
        await made.press("f12")
        assert f"{made.app.session.diagnostics.coalesced:,} samples" in value(made, "coalesced")


async def test_losses_are_those_of_their_host() -> None:
    async with console((120, 40)) as made:
        made.client.resync(missed=1234)
        await made.until(lambda: made.app.session.known.hosts[made.client.host].missed, "the resync")
        made.client.end_stream()
        await made.until(lambda: made.app.session.known.hosts[made.client.host].link.state.value == "down", "the end")
        await made.clock.advance(5)
        await made.until(lambda: made.client.streams > 1, "the next stream")
        await made.press("f12")
        assert "1,234 events missed" in value(made, "seq")
        assert value(made, "reconnects").strip("│ ") == "1"


async def test_a_stall_is_shown_with_its_cause() -> None:
    async with console((120, 40)) as made:
        await made.press("f12")
        assert "none over 100 ms" in value(made, "stalls") or "worst" in value(made, "stalls")
        made.app.session.diagnostics.drained(1, 7.5)
        made.app.repaint()
        await made.pilot.pause()
        assert "worst 7.5 s (drain)" in value(made, "stalls")
