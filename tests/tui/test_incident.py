"""The Incident: opened from a row, ticked by what happens, kept, closed; evidence of it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from fakes import fleet
from fakes.client import FakeRuntimeClient
from fakes.clock import FakeClock
from fakes.console import Console, console
from toka_console.incidents import learned
from toka_runtime.client.incident import Incident, Pinned, Step, read_incident, read_incidents
from toka_runtime.errors import UsageError
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.ids import AgentName, CommandId, GrantId, HostId
from toka_runtime.protocol.states import AgentState

FIRST, SECOND = fleet.NAMES[0][0], fleet.NAMES[1][0]
SIZES = [(200, 50), (80, 24), (60, 15)]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


async def command(made: Console, text: str) -> None:
    await made.press(":")
    await made.type(text)
    await made.press("enter")


def current(made: Console) -> Incident:
    assert made.app.session.incidents is not None
    found = made.app.session.incidents.current
    assert found is not None
    return found


async def opened(made: Console, title: str = "it loops") -> Incident:
    await made.put_cursor_on(SECOND)
    await command(made, f"incident open {title}")
    return current(made)


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_is_opened_from_a_row_and_shows_what_is_to_do(size: tuple[int, int]) -> None:
    async with console(size) as made:
        await opened(made)
        text = made.text()
        assert "it loops" in text
        assert "✓ find" in text
        assert "○ contain" in text
        assert "○ cut" in text
        if size != (60, 15):
            assert SECOND in text
        assert len(text.splitlines()) == size[1]


async def test_steps_are_ticked_by_what_the_log_says() -> None:
    async with console((200, 50)) as made:
        await opened(made)
        await made.clock.advance(5)
        state = ev.AgentStateChanged(before=AgentState.RUNNING, after=AgentState.PAUSED)
        made.client.emit(state, FIRST)
        made.client.emit(state, SECOND)
        made.client.emit(
            ev.CommandHandled(
                command=CommandId("k1"), actor="ann@desk", name="agent.pause", target=f"local/{SECOND}/r", ok=True
            )
        )
        made.client.emit(
            ev.CommandHandled(
                command=CommandId("k2"), actor="bob@desk", name="agent.pause", target=f"local/{FIRST}/r", ok=True
            )
        )
        made.client.emit(ev.GrantRevoked(grant=GrantId("g1"), actor="ann@desk"), SECOND)
        await made.drained()
        made.app._tick()
        await made.until(lambda: Step.CUT in current(made).steps, "the log")
        assert set(current(made).steps) == {Step.FIND, Step.CONTAIN, Step.CUT}
        assert [act.text.split(":")[0] for act in current(made).acts] == ["ann@desk", "ann@desk"]
        made.app.repaint()
        await made.pilot.pause()
        text = made.text()
        assert "✓ contain" in text
        assert "agent.pause" in text
        assert "bob@desk" not in text


async def test_the_call_and_the_evidence_are_ticked_here() -> None:
    async with console((200, 50)) as made:
        await made.press("5")
        denial = made.app.session.known.denials[-1]
        await command(made, "incident open denied")
        pinned = current(made).agents[0]
        await made.press("escape")
        await made.press("enter")
        assert made.app.session.call is not None
        assert (pinned.host, pinned.agent) == made.app.session.call.key
        assert Step.SEE in current(made).steps, denial
        await command(made, "incident")
        await made.press("E")
        await made.until(lambda: Step.PRESERVE in current(made).steps, "the bundle")
        kept = current(made).evidence[0]
        assert Path(kept.file).is_file()
        made.app.repaint()
        await made.pilot.pause()
        assert kept.sha256[:8] in made.text()


async def test_is_kept_and_goes_on_in_the_next_console(tmp_path: Path) -> None:
    folder = tmp_path / "incidents"
    clock = FakeClock()
    client = FakeRuntimeClient(clock)
    async with console((120, 40), client=client, clock=clock, incident_folder=folder) as made:
        await opened(made)
        await command(made, "note it asks for the same file again")
        file = folder / f"{current(made).id}.json"
        await made.until(lambda: file.is_file() and read_incident(file).notes, "the file")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    later = FakeRuntimeClient(clock, client.state)
    later.log = client.log
    later.emit(ev.AgentStateChanged(before=AgentState.RUNNING, after=AgentState.KILLED), SECOND)
    async with console((120, 40), lambda *_: None, client=later, clock=clock, incident_folder=folder) as made:
        made.app._tick()
        await made.until(lambda: Step.DECIDE in current(made).steps, "what happened in between")
        assert [note.text for note in current(made).notes] == ["it asks for the same file again"]
        await command(made, "incident close")
        assert made.app.session.incidents is not None
        assert made.app.session.incidents.current is None
        assert "PAST 1" in made.text()
        await made.until(lambda: read_incident(file).closed_at, "the file")


async def test_says_what_cannot_be_done() -> None:
    async with console((120, 40)) as made:
        await command(made, "note nothing is open")
        assert "no incident is open" in made.text()
        await command(made, "incident frob")
        assert "nothing was done" in made.text()
        await opened(made)
        await command(made, "incident open another")
        assert "open already" in made.text()


def test_a_damaged_file_is_named_and_left(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    found, problems = read_incidents(tmp_path)
    assert found == []
    assert "a.json is no incident" in problems[0]
    with pytest.raises(UsageError):
        read_incident(tmp_path / "none.json")
    (tmp_path / "b.json").write_text(
        '{"id": "../x", "title": "", "opened_at": "2026-01-01T00:00:00Z", "opened_by": ""}'
    )
    with pytest.raises(UsageError):
        read_incident(tmp_path / "b.json")


def test_what_others_do_to_other_agents_is_not_its_concern() -> None:
    made = FakeRuntimeClient(FakeClock())
    host = HostId("local")
    incident = Incident(
        id="i1", title="", opened_at=FakeClock().now(), opened_by="", agents=(Pinned(host=host, agent=AgentName("a")),)
    )
    killed = made.envelope(ev.AgentStateChanged(before=AgentState.RUNNING, after=AgentState.KILLED), "b")
    assert learned(incident, [killed]) == incident
    frozen = made.envelope(
        ev.CommandHandled(command=CommandId("k"), actor="ann", name="fleet.pause", target="all", ok=True)
    )
    assert len(learned(incident, [frozen]).acts) == 1
