"""The operator's acts under a pilot: which command goes to whom, and when the screen changes."""

from __future__ import annotations

import pytest

from fakes import fleet
from fakes.client import HOST, FakeRuntimeClient
from fakes.clock import FakeClock
from fakes.console import Console, console
from toka_console.dialogs.confirm import ConfirmDialog
from toka_runtime.protocol import commands as cmd
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.ids import AgentName, CommandId, ProcessRef, RunId, RunRef
from toka_runtime.protocol.states import AgentState, StopReason

FIRST, PAUSED, FAILED = "build-system-stabilization", "testing-infrastructure", "kernel-events-enhancement"
FIRST_REF = RunRef(
    host=HOST, agent=AgentName(FIRST), run=RunId("r0000000000"), process=ProcessRef(pid=5000, started_ticks=880000)
)

WAITING = ("document-organization", "github-cicd-issues-resolution")


def row(made: Console, name: str) -> str:
    return next(line for line in made.text().splitlines() if name in line and "─" not in line)


# -- containment --------------------------------------------------------------------------------------------------


async def test_p_asks_to_pause_exactly_this_run_and_changes_nothing_itself() -> None:
    async with console() as made:
        await made.put_cursor_on(FIRST)
        await made.press("p")
        assert made.client.commands == [cmd.PauseAgent(target=FIRST_REF)]
        assert "pausing 0s" in row(made, FIRST)
        assert made.agent(FIRST).view.state is AgentState.RUNNING
        await made.clock.advance(3)
        made.app.repaint()
        await made.pilot.pause()
        assert "pausing 3s" in row(made, FIRST), "the age of what is pending is shown"
        fleet.change(made.client, FIRST, AgentState.PAUSED, StopReason.OPERATOR, "5 processes stopped in 0.9 ms")
        made.client.confirm(made.client.requests[-1])
        await made.drained()
        assert "PAUSED" in row(made, FIRST)
        assert "pausing" not in made.text()


async def test_p_on_a_paused_agent_resumes_it() -> None:
    async with console() as made:
        await made.put_cursor_on(PAUSED)
        await made.press("p")
        (command,) = made.client.commands
        assert isinstance(command, cmd.ResumeAgent)
        assert command.target.run == "r0000000001"


async def test_a_second_p_waits_for_the_first() -> None:
    async with console() as made:
        made.client.hold()
        await made.put_cursor_on(FIRST)
        await made.press("p", "p")
        assert len(made.client.commands) == 1
        assert "pausing build-system-stabilization is not confirmed yet" in made.text()


async def test_the_command_goes_to_what_was_under_the_cursor_though_rows_move() -> None:
    async with console() as made:
        await made.put_cursor_on(FIRST)
        before = made.text().splitlines().index(next(x for x in made.text().splitlines() if FIRST in x))
        fleet.change(made.client, "performance-observability", AgentState.FAILED, StopReason.LLM_FAILED, "gone")
        fleet.change(made.client, "security-extension", AgentState.FAILED, StopReason.TIMEOUT)
        await made.drained()
        lines = made.text().splitlines()
        assert lines.index(next(x for x in lines if FIRST in x and "─" not in x)) != before, "the row has moved"
        await made.press("p")
        assert made.client.commands == [cmd.PauseAgent(target=FIRST_REF)]


async def test_freeze_names_what_it_freezes_and_enter_does_it() -> None:
    async with console() as made:
        await made.press("!")
        assert isinstance(made.app.screen, ConfirmDialog)
        assert "3: build-system-stabilization" in made.text()
        assert "2 to start: document-organization" in made.text()
        assert "the whole fleet" in made.text()
        assert made.client.commands == []
        await made.press("enter")
        names = ("build-system-stabilization", "security-extension", "performance-observability", *WAITING)
        (command,) = made.client.commands
        assert isinstance(command, cmd.PauseFleet)
        assert set(command.agents) == set(names)
        assert "freezing" in row(made, FIRST)


async def test_freeze_again_thaws_what_is_paused() -> None:
    async with console() as made:
        for name in (FIRST, "security-extension", "performance-observability"):
            fleet.change(made.client, name, AgentState.PAUSED, StopReason.OPERATOR)
        await made.drained()
        await made.press("!")
        assert "Thaw" in made.text()
        await made.press("enter")
        (command,) = made.client.commands
        assert isinstance(command, cmd.ResumeFleet)
        assert len(command.agents) == 4 + len(WAITING)


# -- destruction --------------------------------------------------------------------------------------------------


async def test_kill_asks_names_the_run_and_cancels_by_default() -> None:
    async with console() as made:
        await made.put_cursor_on(FIRST)
        await made.press("K")
        text = made.text()
        for fact in (FIRST, "local", "r0000000000", "5000, 5 processes in its tree", "running"):
            assert fact in text
        await made.press("enter")
        assert made.client.commands == [], "enter alone destroys nothing"
        assert not isinstance(made.app.screen, ConfirmDialog)


@pytest.mark.parametrize("way", [["escape"], ["q"], ["y"], ["K", "K", "escape"], ["space", "enter"]])
async def test_no_single_key_kills(way: list[str]) -> None:
    async with console() as made:
        await made.put_cursor_on(FIRST)
        await made.press("K", *way)
        assert made.client.commands == []


async def test_kill_goes_to_the_run_of_the_key_press_though_the_agent_has_a_new_one() -> None:
    async with console() as made:
        await made.put_cursor_on(FIRST)
        await made.press("K")
        fleet.change(made.client, FIRST, AgentState.FAILED, StopReason.WORKER_DIED)
        fleet.change(made.client, FIRST, AgentState.PENDING)
        fleet.start(made.client, FIRST, 99)
        await made.drained()
        assert "another run: this command will be refused" in made.text()
        await made.press("tab", "enter")
        assert made.client.commands == [cmd.KillAgent(target=FIRST_REF)]


async def test_kill_from_the_agent_and_the_output_screen() -> None:
    async with console() as made:
        await made.put_cursor_on(FIRST)
        for keys in (["enter"], ["o"]):
            await made.press(*keys, "K", "right", "enter")
        assert made.client.commands == [cmd.KillAgent(target=FIRST_REF)] * 2


async def test_restart_asks_too() -> None:
    async with console() as made:
        await made.put_cursor_on(FAILED)
        await made.press("R", "tab", "enter")
        (command,) = made.client.commands
        assert isinstance(command, cmd.RestartAgent)
        assert (command.target.agent, command.target.run) == (FAILED, "r0000000002")


async def test_a_refused_command_says_why_and_is_no_longer_pending() -> None:
    async with console() as made:
        made.client.answer = lambda request: (
            cmd.CommandResult(id=request.id, ok=False, code="command.refused", message="this run has ended")
            if request.command.op == "agent.pause"
            else None
        )
        await made.put_cursor_on(FIRST)
        await made.press("p")
        assert "pausing: this run has ended" in made.text()
        assert "pausing 0s" not in made.text()


async def test_an_answer_that_never_comes_is_an_unknown_outcome() -> None:
    async with console() as made:

        def fail(request: cmd.CommandRequest) -> cmd.CommandResult | None:
            if request.command.op in cmd.QUERIES:
                return None
            raise OSError("connection reset")

        made.client.answer = fail
        await made.put_cursor_on(FIRST)
        await made.press("p")
        assert "outcome is unknown: connection reset" in made.text()
        assert "outcome unknown" in row(made, FIRST)


async def test_what_cannot_be_done_says_why() -> None:
    async with console() as made:
        await made.put_cursor_on(FAILED)
        await made.press("p")
        assert "it is failed: nothing to pause or resume" in made.text()
        await made.press("K")
        assert "nothing of it runs; it is failed" in made.text()
        await made.press("g", "p")
        assert "no agent is selected" in made.text()
        assert made.client.commands == []


async def test_a_read_only_link_disables_with_the_reason() -> None:
    client = FakeRuntimeClient(FakeClock())
    client.read_only = "you may only look"
    async with console(script=lambda client, clock: fleet.load(client), client=client) as made:
        await made.press("S")
        assert "start: you may only look" in made.text()
        assert made.client.commands == []


async def test_start_of_a_loaded_agent() -> None:
    async with console(script=lambda client, clock: fleet.load(client)) as made:
        await made.put_cursor_on(FIRST)
        await made.press("S")
        assert made.client.commands == [cmd.StartAgent(agent=AgentName(FIRST))]


# -- lines --------------------------------------------------------------------------------------------------------


async def test_a_colon_command_with_completion() -> None:
    async with console() as made:
        await made.press(":")
        await made.type("pau")
        await made.press("tab")
        await made.type(" build")
        await made.press("tab", "enter")
        assert made.client.commands == [cmd.PauseAgent(target=FIRST_REF)]


async def test_an_unknown_command_does_nothing_and_names_the_nearest() -> None:
    async with console() as made:
        await made.press(":")
        await made.type("kil build-system-stabilization")
        await made.press("enter")
        assert "no command :kil; did you mean kill?; nothing was done" in made.text()
        assert made.client.requests == [
            request for request in made.client.requests if request.command.op in cmd.QUERIES
        ]
        assert not isinstance(made.app.screen, ConfirmDialog)


async def test_keys_are_text_while_a_line_is_open() -> None:
    async with console() as made:
        await made.put_cursor_on(FIRST)
        await made.press("/")
        await made.type("pK!q")
        assert made.client.commands == []
        assert "/pK!q" in made.text()
        await made.press("escape")
        assert "/pK!q" not in made.text()


async def test_a_filter_shows_what_matches_and_esc_shows_all() -> None:
    async with console() as made:
        await made.press("/")
        await made.type("state:running !security")
        await made.press("enter")
        assert "Agents 2 of 9  /state:running !security" in made.text()
        assert "security-extension" not in made.text().split("Agents 2")[1].split("Host")[0]
        await made.press("escape")
        assert "Agents 10" in made.text()


async def test_a_wrong_filter_key_leaves_the_rows_alone() -> None:
    async with console() as made:
        await made.press("/")
        await made.type("stat:running")
        await made.press("enter")
        assert "no filter key stat: did you mean state:?" in made.text()
        assert "Agents 10" in made.text()


async def test_the_history_of_lines() -> None:
    async with console() as made:
        await made.press(":")
        await made.type("fleet")
        await made.press("enter", ":", "up")
        assert "\n:fleet" in made.text()


# -- leaving ------------------------------------------------------------------------------------------------------


async def test_leaving_with_live_agents_asks_and_the_default_stays() -> None:
    async with console() as made:
        await made.press("q")
        assert "4: build-system-stabilization" in made.text()
        await made.press("enter")
        assert not made.client.closed
        assert made.app.is_running


async def test_leaving_closes_the_client_before_the_screen_goes() -> None:
    async with console() as made:
        closing = made.client.aclose

        async def slow() -> None:
            await made.until(lambda: "stopping" in made.text(), "the progress")
            for name in [entry.key.name for entry in made.app.session.known.live()]:
                fleet.change(made.client, name, AgentState.KILLED, StopReason.SHUTDOWN)
            await made.until(lambda: not made.app.session.known.live(), "the end of the agents on screen")
            await closing()

        made.client.aclose = slow  # type: ignore[method-assign] # a slow one
        await made.press("ctrl+q", "tab", "enter")
        await made.until(lambda: made.client.closed, "the close")
        await made.until(lambda: made.app._exit, "the exit")
        assert made.app.return_code == 0


async def test_leaving_without_live_agents_asks_nothing() -> None:
    async with console(script=lambda client, clock: fleet.load(client)) as made:
        await made.press("q")
        await made.until(lambda: made.client.closed, "the close")


async def test_leaving_a_runtime_of_its_own_detaches_and_asks_nothing() -> None:
    clock = FakeClock()
    client = FakeRuntimeClient(clock)
    client.embedded = False
    async with console(client=client, clock=clock) as made:
        assert made.app.session.known.live()
        await made.press("q")
        await made.until(lambda: made.client.closed, "the close")
        assert made.client.requests == [each for each in made.client.requests if each.command.op == "events.read"]


async def test_q_elsewhere_goes_back() -> None:
    async with console() as made:
        await made.put_cursor_on(FIRST)
        await made.press("enter", "o")
        assert made.app.current.ID == "output"
        await made.press("q")
        assert made.app.current.ID == "agent"
        await made.press("escape")
        assert made.app.current.ID == "fleet"
        assert made.app.session.focus is not None
        assert made.app.session.focus.name == FIRST


# -- starting -----------------------------------------------------------------------------------------------------


async def test_the_fleet_is_started_when_the_console_opens() -> None:
    async with console(script=lambda client, clock: fleet.load(client), start_fleet=True) as made:
        await made.until(lambda: made.client.commands, "a command")
        assert made.client.commands == [cmd.StartFleet()]


async def test_no_start_starts_nothing() -> None:
    async with console(script=lambda client, clock: fleet.load(client)) as made:
        assert made.client.commands == []


# -- too small ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(59, 15), (60, 14), (20, 3), (10, 1)])
async def test_below_the_least_size_one_line_says_so_and_containment_works(size: tuple[int, int]) -> None:
    async with console() as made:
        await made.put_cursor_on(FIRST)
        await made.pilot.resize_terminal(*size)
        await made.pilot.pause()
        lines = [line for line in made.text().splitlines() if line.strip()]
        assert len(lines) == 1
        assert lines[0].startswith("build-system-s"[: size[0] - 1])
        await made.press("p")
        await made.press("K", "tab", "enter")
        assert made.client.commands == [cmd.PauseAgent(target=FIRST_REF), cmd.KillAgent(target=FIRST_REF)]
        await made.pilot.resize_terminal(120, 40)
        await made.pilot.pause()
        assert "Agents 10" in made.text()


async def test_one_cell_is_survived() -> None:
    async with console() as made:
        for size in ((1, 1), (200, 50), (60, 15), (120, 40)):
            await made.pilot.resize_terminal(*size)
            await made.pilot.pause()
        assert "Agents 10" in made.text()


# -- the palette --------------------------------------------------------------------------------------------------


async def test_the_palette_runs_actions_of_the_registry() -> None:
    async with console() as made:
        await made.press("ctrl+p")
        await made.type("diagnostics")
        await made.until(lambda: "event rate, stalls" in made.text(), "the hit")
        await made.press("enter")
        await made.until(lambda: made.app.current.ID == "diagnostics", "the screen")


async def test_a_command_event_of_another_operator_is_in_the_agents_output() -> None:
    async with console() as made:
        handled = ev.CommandHandled(
            command=CommandId("x:1"), actor="ann@far", name="agent.pause", target=FIRST, ok=True
        )
        made.client.emit(handled, FIRST)
        await made.drained()
        await made.put_cursor_on(FIRST)
        assert "ann@far: agent.pause build-system-stabilization" in made.text()
