"""From the alert line to what is wrong: `.` and `,` on the Fleet, on the Agent screen and in its output."""

from __future__ import annotations

from fakes import fleet
from fakes.client import FakeRuntimeClient
from fakes.clock import FakeClock
from fakes.console import Console, console
from toka_console import trouble
from toka_runtime.protocol import capability as cap
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.ids import ProcessRef
from toka_runtime.protocol.states import AgentState

FIRST, NET = fleet.NAMES[0][0], fleet.NAMES[4][0]
FAILED, KILLED, PAUSED = "kernel-events-enhancement", "storage-advancement", "testing-infrastructure"


def cursor(made: Console) -> str:
    focus = made.app.session.focus
    return focus.name if focus is not None else ""


def names(made: Console) -> list[str]:
    return [key.name for key in trouble.worst_first(made.app.session.known)]


async def test_the_newest_denial_of_a_live_agent_is_in_the_alert_line_for_a_while() -> None:
    async with console(size=(250, 50)) as made:
        made.client.emit(ev.OperationDenied(denial=fleet.denial(), task=1), FIRST)
        await made.drained()
        assert f"{FIRST}: 3 denials, the last 0s ago (+1 more) (. finds it)" in made.text()
        await made.clock.advance(trouble.NEWS_S + 1)
        made.app.repaint()
        await made.pilot.pause()
        assert ". finds it" not in made.text()
        assert "17 denials" in made.text()


async def test_what_ended_asks_for_nothing_any_more() -> None:
    async with console() as made:
        for name in (FIRST, NET):
            fleet.change(made.client, name, AgentState.KILLED)
        await made.drained()
        assert trouble.denied(made.app.session.known) == []


async def test_the_fleet_leads_from_the_worst_agent_to_the_next_and_back() -> None:
    async with console() as made:
        made.client.emit(ev.OperationDenied(denial=fleet.denial(), task=1), FIRST)
        made.client.emit(ev.ProcessEnded(process=ProcessRef(pid=5003, started_ticks=1), survivors=(6003,)), KILLED)
        await made.drained()
        worst = names(made)
        assert worst[:3] == [KILLED, FIRST, NET], "what survived, then the newest denial"
        assert {FAILED, PAUSED} <= set(worst[3:])
        await made.put_cursor_on("document-organization")
        for name in (*worst, worst[0]):
            await made.press(".")
            assert cursor(made) == name
        await made.press(",")
        assert cursor(made) == worst[-1]


async def test_without_trouble_the_cursor_stays() -> None:
    def well(client: FakeRuntimeClient, clock: FakeClock) -> None:
        fleet.load(client)

    async with console(script=well) as made:
        before = cursor(made)
        await made.press(".")
        assert "no agent is in trouble" in made.text()
        assert cursor(made) == before


async def test_only_what_the_filter_shows_is_gone_to() -> None:
    async with console() as made:
        made.app.entered("filter", "state:completed")
        await made.pilot.pause()
        await made.press(".")
        assert "no agent is in trouble among those that the filter shows" in made.text()


async def test_from_the_agent_to_its_first_denial_and_into_the_call() -> None:
    async with console(size=(120, 40)) as made:
        second = fleet.denial().model_copy(
            update={"operation": cap.Operation(kind=cap.OperationKind.READ, target="/b")}
        )
        made.client.emit(ev.OperationDenied(denial=second, task=1), FIRST)
        await made.drained()
        await made.put_cursor_on(FIRST)
        await made.press("2", ".")
        assert made.app.current.ID == "output"
        assert "enter open" not in made.text().splitlines()[0]
        await made.press("enter")
        assert made.app.current.ID == "call"
        assert "/etc/passwd" in made.text()
        assert "read_file" in made.text()
        await made.press("escape", ".", ".", "enter")
        assert "/b" in made.text(), "equal denials are gone to one after the other"
        await made.press("escape", ".")
        assert "no denial or failure further on" in made.text()
        await made.press(",", ",", "enter")
        assert "/etc/passwd" in made.text()


async def test_enter_in_the_output_opens_nothing_until_a_denial_is_found() -> None:
    async with console(size=(120, 40)) as made:
        await made.put_cursor_on(FIRST)
        await made.press("o", "enter")
        assert made.app.current.ID == "output"
        assert "enter open" not in made.text()
        await made.press(".")
        assert "enter open" in made.text()
        await made.press("F")
        assert "enter open" not in made.text(), "following again, nothing is pointed at"


async def test_a_click_on_the_alert_line_goes_to_the_worst_agent() -> None:
    async with console(size=(200, 50)) as made:
        await made.press("5")
        await made.pilot.click("#alert")
        await made.pilot.pause()
        assert made.app.current.ID == "fleet"
        assert cursor(made) == names(made)[0]


async def test_a_jump_waits_for_what_was_said_before_this_console_looked() -> None:
    async with console(size=(120, 40)) as made:
        made.client.hold()
        await made.put_cursor_on(FIRST)
        made.client.emit(ev.OperationDenied(denial=fleet.denial("/later"), task=1), FIRST)
        await made.drained()
        await made.press("2", ".")
        made.client.release()
        await made.until(lambda: "enter open" in made.text(), "the jump")
        await made.press("enter")
        assert "/etc/passwd" in made.text(), "the first denial came before"
