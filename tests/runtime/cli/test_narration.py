"""What a headless run shows: lines, rows that fit the window, the table at the end; nothing an agent says moves it."""

from __future__ import annotations

import io
import json
import re
from datetime import timedelta

import pytest
from rich.cells import cell_len
from rich.console import Console

from fakes import events as fake
from fakes.client import FakeRuntimeClient
from fakes.clock import FakeClock
from fakes.fleet import NAMES, change, work
from toka_runtime.cli.bars import BarNarrator, rows
from toka_runtime.cli.narration import JsonNarrator, LineNarrator, told, tone
from toka_runtime.cli.render import Style
from toka_runtime.cli.summary import clock_text, summary_lines, total
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.health import Health, HealthLevel, HealthReason
from toka_runtime.protocol.ids import CallId
from toka_runtime.protocol.protections import Protections
from toka_runtime.protocol.snapshot import FleetState
from toka_runtime.protocol.spec import SandboxMode
from toka_runtime.protocol.states import AgentState

EVIL = "ok\x1b[2J\x1b]0;owned\x07\r\u202e\u0085 日本語 👩‍🔧"
PLAIN = Style(io.StringIO())


@pytest.fixture
async def fleet() -> FakeRuntimeClient:
    clock = FakeClock()
    client = FakeRuntimeClient(clock)
    await work(client, clock)
    return client


class Tty(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 250])
@pytest.mark.parametrize("height", [3, 6, 24])
@pytest.mark.parametrize("utf8", [True, False])
async def test_rows_fit_the_window(fleet: FakeRuntimeClient, width: int, height: int, utf8: bool) -> None:
    first = fleet.state.agents[NAMES[0][0]].model_copy(update={"last_activity": EVIL * 5})
    views = [first, *list(fleet.state.agents.values())[1:]]
    assert fleet.state.at is not None
    drawn = rows(views, width, height, fleet.state.at, utf8=utf8)
    assert len(drawn) <= height
    out = io.StringIO()
    Console(file=out, width=width).print(*drawn, sep="\n")
    lines = out.getvalue().splitlines()
    assert len(lines) == len(drawn), "no row takes a second line"
    assert all(cell_len(line) <= width for line in lines)
    assert "\x1b" not in out.getvalue()
    assert "\u202e" not in out.getvalue()


async def test_what_does_not_fit_is_counted_and_what_is_live_is_shown(fleet: FakeRuntimeClient) -> None:
    views = list(fleet.state.agents.values())
    assert fleet.state.at is not None
    drawn = [str(line) for line in rows(views, 100, 6, fleet.state.at)]
    assert [line.split()[0] for line in drawn[:-1]] == [NAMES[0][0], NAMES[1][0], NAMES[4][0], NAMES[6][0]]
    assert drawn[-1] == "… and 5 more: 1 completed, 1 failed, 1 killed, 2 pending"


def test_protections_are_told_in_a_line() -> None:
    probed = fake.host_protections()
    held = "enforced FS NET KILL PROCS, approximate MEM, none CPU"
    line = told(fake.envelope(1, ev.HostProbed(protections=probed), run=None))
    assert line == f"host: tier B, {probed.tier_meaning}; {held}"
    confined = Protections(asked=SandboxMode.REQUIRED, tier=probed.tier, badges=probed.badges)
    event = ev.ProtectionsInForce(protections=confined)
    assert (told(fake.envelope(1, event, "alpha")), tone(event)) == (f"alpha: confined: {held}", "")
    event = ev.ProtectionsInForce(protections=confined.model_copy(update={"unconfined": "no namespaces\x1b[2J"}))
    assert tone(event) == "red"
    assert told(fake.envelope(1, event, "alpha")) == (
        "alpha: UNCONFINED, nothing but its user's rights holds it: no namespaces\\x1b[2J"
    )


async def test_the_table_at_the_end(fleet: FakeRuntimeClient) -> None:
    lines = summary_lines(fleet.state, PLAIN)
    table = lines[1:11]
    assert table[0].split() == ["agent", "state", "done", "verified", "denied", "tokens", "time"]
    assert re.fullmatch(r"build-system-stabilization +running +1/4 +1 +2 +9,650 +\d+:\d\d", table[1])
    assert re.fullmatch(r"llm-credentials-setup +completed +3/3 +2 +0 +0 +\d+:\d\d", table[6])
    assert "kernel-events-enhancement: ran for 30m, limit 30m" in lines
    assert lines[-1].startswith("9 agents: 1 completed, 1 failed, 1 killed, 6 not ended · 4 of ")
    assert "3 verified · 16 denials · 9,650 tokens, $0.02" in lines[-1]
    narrow = summary_lines(fleet.state, PLAIN, 66)[1:11]
    assert all(len(line) <= 66 for line in narrow)
    assert any("…" in line for line in narrow)


def test_a_fleet_of_which_nothing_was_asked_has_no_table() -> None:
    assert summary_lines(FleetState(), PLAIN) == []


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (67.9, "1:07"), (3727, "1:02:07"), (-5, "0:00")])
def test_times(seconds: float, text: str) -> None:
    assert clock_text(timedelta(seconds=seconds).total_seconds()) == text


@pytest.mark.parametrize("event", fake.every_kind(), ids=lambda event: event.kind)
def test_every_kind_is_one_clean_line_or_none(event: ev.Event) -> None:
    line = told(fake.envelope(1, event, "alpha"))
    assert line.isprintable()


def test_what_agents_say_cannot_steer_the_terminal() -> None:
    denied = ev.OperationDenied(denial=fake.denial(EVIL), task=0)
    notice = ev.Noticed(level=ev.Level.ERROR, code="x", message=EVIL, hint=EVIL)
    for event in (denied, notice):
        line = told(fake.envelope(1, event, "alpha"))
        assert line.isprintable()
        assert "日本語" in line
        assert r"\x1b" in line


async def test_lines_for_a_pipe(fleet: FakeRuntimeClient) -> None:
    out = io.StringIO()
    narrator = LineNarrator(out)
    narrator.events(fleet.log)
    narrator.say("SIGINT: stopping the fleet")
    narrator.close()
    text = out.getvalue()
    assert "\x1b" not in text
    assert re.search(r"^\d\d:\d\d:\d\d build-system-stabilization: DENIED .*/etc/passwd", text, re.M)
    assert re.search(r"^\d\d:\d\d:\d\d kernel-events-enhancement: running → failed \(timeout\) ran for 30m", text, re.M)
    assert text.rstrip().splitlines()[-1] == total(fleet.state)


async def test_envelopes_on_one_stream_and_the_tale_on_the_other(fleet: FakeRuntimeClient) -> None:
    out, err = io.StringIO(), io.StringIO()
    narrator = JsonNarrator(out, err)
    narrator.events(fleet.log)
    narrator.close()
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["seq"] for line in lines] == [envelope.seq for envelope in fleet.log]
    assert "DENIED" in err.getvalue()


async def test_bars_on_a_terminal_end_with_the_table(fleet: FakeRuntimeClient) -> None:
    out = Tty()
    narrator = BarNarrator(out, {"TERM": "xterm"})
    try:
        narrator.events(fleet.log)
        change(fleet, NAMES[4][0], AgentState.FAILED)
        narrator.events(fleet.log[-1:])
    finally:
        narrator.close()
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "security-extension: running → failed" in text
    assert text.rstrip().endswith(total(fleet.state))
    assert out.getvalue().rstrip("\n").endswith("\x1b[0m"), "colours do not leak into the shell"
    assert out.getvalue().count("\x1b[?25l") == out.getvalue().count("\x1b[?25h"), "the cursor is back"


def test_health_and_waits_for_quota_are_told() -> None:
    since = fake.START - timedelta(minutes=3)
    stalled = Health(
        level=HealthLevel.STALLED, reason=HealthReason.TOOL_SILENT, since=since, subject="tool run_command"
    )
    bad, well = (
        ev.HealthChanged(health=stalled),
        ev.HealthChanged(health=Health(level=HealthLevel.OK, since=fake.START)),
    )
    assert (told(fake.envelope(0, bad, "alpha")), tone(bad)) == ("alpha: stalled 3m: tool run_command silent", "yellow")
    assert (told(fake.envelope(0, well, "alpha")), tone(well)) == ("alpha: gets on again", "green")
    wait = ev.ModelCallRetried(
        call=CallId("m1"), attempt=0, delay_s=12.0, code="model.cooling_down", message="slow down", shared=True
    )
    assert told(fake.envelope(0, wait, "alpha")) == "alpha: waiting for quota 12 s: slow down"
