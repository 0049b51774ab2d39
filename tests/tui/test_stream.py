"""The bridge: events in, whatever becomes of the stream; history; settings; a start that fails."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fakes import fleet
from fakes.client import FakeRuntimeClient
from fakes.clock import FakeClock
from fakes.console import console, make_app
from toka_console import bridge as bridge_module
from toka_console.actions import ACTIONS
from toka_runtime.client.base import RuntimeClient
from toka_runtime.errors import StoreLocked
from toka_runtime.protocol import commands as cmd
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.ids import CallId
from toka_runtime.protocol.states import AgentState, StopReason

FIRST = fleet.NAMES[0][0]


async def test_events_reach_the_screen() -> None:
    async with console() as made:
        await made.put_cursor_on(FIRST)
        fleet.say(made.client, FIRST, "now I look at the kernel\n")
        await made.drained()
        assert "now I look at the kernel" in made.text()


@pytest.mark.parametrize("error", [None, OSError("connection reset"), RuntimeError("a defect")])
async def test_a_stream_that_ends_is_said_and_asked_for_again(error: Exception | None) -> None:
    async with console() as made:
        made.client.end_stream(error)
        await made.until(lambda: "link down" in made.text(), "the alert")
        assert str(error or "the event stream ended") in made.text()
        assert "last seen" in made.text()
        await made.put_cursor_on(FIRST)
        await made.press("p")
        assert "host local is not reachable" in made.text()
        assert made.client.commands == []
        missed = made.client.emit(ev.Noticed(level=ev.Level.WARNING, code="x", message="said meanwhile"))
        await made.clock.until_sleeping()
        await made.clock.advance(1)
        await made.until(lambda: made.seq() == missed.seq, "the resumed stream")
        await made.until(lambda: "link down" not in made.text(), "the end of the alert")
        await made.press("p")
        assert len(made.client.commands) == 1


async def test_the_next_tries_come_ever_more_slowly_and_never_end_the_console() -> None:
    async with console() as made:
        made.client.refuse_streams = OSError("no route")
        made.client.end_stream()
        for _ in range(9):
            await made.clock.until_sleeping()
            await made.clock.advance(20)
            await made.pilot.pause()
        assert made.app.session.diagnostics.reconnects.total() >= 9
        assert made.app.bridge is not None
        assert made.app.bridge._retry_s == bridge_module.RETRY_MOST_S
        made.client.refuse_streams = None
        await made.clock.until_sleeping()
        await made.clock.advance(20)
        await made.until(lambda: "link down" not in made.text(), "the link")


async def test_another_runtime_behind_the_link_is_taken_over_whole() -> None:
    async with console() as made:
        made.client.end_stream()
        await made.until(lambda: "link down" in made.text(), "the alert")
        other = FakeRuntimeClient(made.clock)
        fleet.load(other)
        assert other.state.runtime is not None
        runtime = other.state.runtime.model_copy(update={"epoch": "e2"})
        made.client.state = other.state.model_copy(update={"runtime": runtime})
        made.client.log = []
        await made.clock.until_sleeping()
        await made.clock.advance(1)
        await made.until(lambda: "LOADED" in made.text(), "the new fleet")
        assert "RUNNING" not in made.text()


async def test_a_resync_shows_the_gap() -> None:
    async with console() as made:
        await made.put_cursor_on(FIRST)
        fleet.change(made.client, FIRST, AgentState.PAUSED, StopReason.OPERATOR)
        made.client.resync(missed=412)
        await made.until(lambda: "412 events of this host not shown" in made.text(), "the gap")
        assert "PAUSED" in made.text()


async def test_an_event_of_an_unknown_kind_is_kept() -> None:
    async with console() as made:
        made.client.emit(ev.UnknownEvent(kind="agent.dreamt", body={"of": "sheep"}), FIRST)
        await made.drained()
        await made.press("f12")
        assert "agent.dreamt ×1" in made.text()


async def test_a_flood_is_drained_in_slices_and_the_screen_keeps_up() -> None:
    async with console() as made:
        batch = [
            made.client.envelope(ev.ToolCallEnded(call=CallId("none"), tool="t", outcome="ok", duration_s=0.1), FIRST)
            for _ in range(20_000)
        ]
        drains = made.app.session.diagnostics.drains.count
        batch = [envelope.model_copy(update={"durable": False}) for envelope in batch]
        for queue in made.client._queues:
            queue.put_nowait(batch)
        await made.put_cursor_on(FIRST)
        await made.press("p")
        assert len(made.client.commands) == 1, "keys are heard while the flood is drained"
        await made.until(lambda: not made.app.bridge._inbox, "the end")  # type: ignore[union-attr] # it is open
        assert made.app.session.diagnostics.drains.count - drains > 5


async def test_what_was_said_before_is_paged_in_once() -> None:
    async with console() as made:
        await made.put_cursor_on(FIRST)
        await made.press("o")
        await made.until(lambda: "I begin with the manifests" in made.text(), "the history")
        reads = [r.command for r in made.client.requests if isinstance(r.command, cmd.ReadEvents) and r.command.agent]
        assert [read.agent for read in reads if read.agent == FIRST] == [FIRST]


async def test_the_call_behind_a_denial_is_found_in_the_log() -> None:
    async with console() as made:
        await made.press("5", "j", "enter")
        await made.until(lambda: "THE CALL" in made.text() and "c9" in made.text(), "the call")
        assert made.app.current.ID == "call"
        assert "filesystem-read" in made.text()
        await made.press("escape")
        assert made.app.current.ID == "denials"


async def test_a_call_that_is_nowhere_says_so() -> None:
    async with console() as made:
        await made.press("5")
        await made.press("enter")
        await made.until(lambda: "the call is not in the runtime's log" in made.text(), "the page")


# -- starting and settings ----------------------------------------------------------------------------------------


async def test_a_start_that_fails_ends_the_console_with_the_reason() -> None:
    async def refuse() -> RuntimeClient:
        raise StoreLocked("another runtime holds /tmp/state", hint="end it, or use --state-dir")

    app = make_app(FakeRuntimeClient(), FakeClock())
    app._open_client = refuse
    async with app.run_test() as pilot:
        for _ in range(400):
            await pilot.pause(0.01)
            if app.failure is not None:
                break
    assert app.failure is not None
    assert (app.failure.code, app.failure.message, app.failure.hint) == (
        "store.locked",
        "another runtime holds /tmp/state",
        "end it, or use --state-dir",
    )
    assert app.return_code == 1


async def test_leaving_while_the_runtime_opens_closes_it_all_the_same() -> None:
    client, gate = FakeRuntimeClient(), asyncio.Event()

    async def slow() -> RuntimeClient:
        await gate.wait()
        return client

    app = make_app(client, FakeClock())
    app._open_client = slow
    async with app.run_test() as pilot:
        await pilot.pause()
        await pilot.press("q")
        await pilot.pause()
        assert app.stopping
        gate.set()
    await app.finish()
    assert client.closed


async def test_settings_change_keys(tmp_path: Path) -> None:
    file = tmp_path / "console.yaml"
    file.write_text("theme: toka-light\nkeys:\n  agent.toggle: P\n")
    async with console(settings_file=file) as made:
        await made.put_cursor_on(FIRST)
        await made.press("p")
        assert made.client.commands == []
        await made.press("P")
        assert len(made.client.commands) == 1
        assert made.app.theme == "toka-light"
        assert "P pause" in made.text() or "P resume" in made.text()


async def test_a_bad_settings_file_is_said_and_the_defaults_stay(tmp_path: Path) -> None:
    file = tmp_path / "console.yaml"
    file.write_text("theme: toka-light\nrefresh: 3\n")
    async with console(settings_file=file, size=(200, 50)) as made:
        assert f"{file}:2: no setting 'refresh'" in made.text()
        assert made.app.theme == "toka-dark"


async def test_help_and_footer_come_from_the_registry() -> None:
    async with console(size=(160, 120)) as made:
        await made.press("?")
        text = made.text()
        for action in ACTIONS:
            assert f":{action.form}" in text, action.id
            assert action.help[:20] in text, action.id
