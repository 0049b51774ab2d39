"""Acts on many agents at once: who is meant, which commands go out, what is said of their answers."""

from __future__ import annotations

from fakes import fleet
from fakes.client import HOST, FakeRuntimeClient
from fakes.clock import FakeClock
from fakes.console import Console, console
from toka_console.dialogs.confirm import ConfirmDialog
from toka_console.identity import RowKey
from toka_runtime.protocol import commands as cmd
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.states import AgentState, StopReason

BUILD, PAUSED, FAILED = "build-system-stabilization", "testing-infrastructure", "kernel-events-enhancement"
SECURITY, PERFORMANCE = "security-extension", "performance-observability"


async def mark(made: Console, *names: str) -> None:
    for name in names:
        await made.put_cursor_on(name)
        await made.press("space")


def targets(made: Console) -> list[tuple[str, str, str | None]]:
    """(op, agent, run) of every command."""
    return [
        (each.op, each.target.agent, each.target.run)
        for each in made.client.commands
        if isinstance(each, cmd.PauseAgent | cmd.ResumeAgent | cmd.KillAgent | cmd.RestartAgent)
    ]


async def test_p_pauses_all_that_are_marked_each_with_its_own_request() -> None:
    async with console((120, 40)) as made:
        await mark(made, BUILD, SECURITY)
        assert "■ 2 marked" in made.text()
        await made.put_cursor_on(PERFORMANCE)
        await made.press("p")
        assert targets(made) == [
            ("agent.pause", BUILD, "r0000000000"),
            ("agent.pause", SECURITY, "r0000000004"),
        ], "not what is under the cursor"
        assert len({request.id for request in made.client.requests if request.command.op == "agent.pause"}) == 2
        assert not isinstance(made.app.screen, ConfirmDialog)
        await made.until(lambda: "2 paused" in made.text(), "the sum")


async def test_while_answers_are_awaited_the_message_says_how_many() -> None:
    async with console() as made:
        made.client.hold()
        await mark(made, BUILD, SECURITY, FAILED)
        await made.press("p")
        assert "pausing 2 agents; 1 left alone (kernel-events-enhancement: only a running agent" in made.text()
        assert sum("⋯ pausing" in line for line in made.text().splitlines()) == 2, "each is pending by itself"
        made.client.release()
        await made.until(lambda: "2 paused; 1 left alone" in made.text(), "the sum")


async def test_mixed_states_are_paused_and_never_resumed_by_accident() -> None:
    async with console() as made:
        await mark(made, BUILD, PAUSED)
        await made.press("p")
        assert targets(made) == [("agent.pause", BUILD, "r0000000000")]


async def test_all_paused_are_resumed() -> None:
    async with console() as made:
        fleet.change(made.client, BUILD, AgentState.PAUSED, StopReason.OPERATOR)
        await made.drained()
        await mark(made, BUILD, PAUSED)
        await made.press("p")
        assert {op for op, _, _ in targets(made)} == {"agent.resume"}
        assert {name for _, name, _ in targets(made)} == {BUILD, PAUSED}


async def test_refusals_are_summed_up_with_their_reasons() -> None:
    async with console() as made:

        def answer(request: cmd.CommandRequest) -> cmd.CommandResult | None:
            if isinstance(request.command, cmd.PauseAgent) and request.command.target.agent != BUILD:
                return cmd.CommandResult(id=request.id, ok=False, code="command.refused", message="it has ended")
            return None

        made.client.answer = answer
        await mark(made, BUILD, SECURITY, PERFORMANCE)
        await made.press("p")
        await made.until(lambda: "1 paused, 2 refused: security-extension: it has ended" in made.text(), "the sum")


async def test_a_lost_answer_is_in_the_sum() -> None:
    async with console() as made:

        def answer(request: cmd.CommandRequest) -> cmd.CommandResult | None:
            if isinstance(request.command, cmd.PauseAgent) and request.command.target.agent == SECURITY:
                raise OSError("connection reset")
            return None

        made.client.answer = answer
        await mark(made, BUILD, SECURITY)
        await made.press("p")
        await made.until(lambda: "1 paused, 1 refused" in made.text(), "the sum")
        assert "outcome is unknown: connection reset" in made.text()


async def test_kill_lists_every_target_and_cancels_by_default() -> None:
    async with console() as made:
        await mark(made, BUILD, SECURITY, FAILED)
        await made.press("K")
        text = made.text()
        assert "2 on 1 host" in text
        assert "build-system-stabilization  r0000000000  pid 5000  running" in text
        assert "security-extension  r0000000004  pid 5004  running" in text
        assert "kernel-events-enhancement: nothing of it runs" in text
        await made.press("enter")
        assert made.client.commands == []
        await made.press("K", "tab", "enter")
        assert targets(made) == [("agent.kill", BUILD, "r0000000000"), ("agent.kill", SECURITY, "r0000000004")]


async def test_the_targets_are_frozen_at_the_key_press() -> None:
    async with console() as made:
        await mark(made, BUILD, SECURITY)
        await made.press("R")
        fleet.change(made.client, BUILD, AgentState.FAILED, StopReason.WORKER_DIED)
        fleet.change(made.client, BUILD, AgentState.PENDING)
        fleet.start(made.client, BUILD, 99)
        await made.drained()
        assert "now another run" in made.text()
        await made.press("tab", "enter")
        assert targets(made) == [("agent.restart", BUILD, "r0000000000"), ("agent.restart", SECURITY, "r0000000004")]


async def test_a_long_list_of_targets_is_scrolled() -> None:
    async with console((80, 24), script=crowd) as made:
        await made.put_cursor_on("agent-000")
        await made.press("space", "G", "ctrl+space", "S")
        assert "agent-001 " in made.text()
        assert "agent-039 " not in made.text()
        await made.press("pagedown", "pagedown", "pagedown")
        assert "agent-039 " in made.text()
        assert "the end, ↑ goes back" in made.text()
        await made.press("tab", "enter")
        assert made.client.commands == [cmd.StartAgent(agent=AgentName(f"agent-{number:03}")) for number in range(40)]


def crowd(client: FakeRuntimeClient, clock: FakeClock) -> None:
    fleet.load(client)
    for number in range(40):
        client.emit(ev.SpecLoaded(spec=fleet.spec(f"agent-{number:03}"), rights=fleet.rights()))
    client.state = client.state.model_copy(
        update={"agents": {name: view for name, view in client.state.agents.items() if name.startswith("agent-")}}
    )


async def test_a_named_agent_is_meant_alone() -> None:
    async with console() as made:
        await mark(made, BUILD, SECURITY)
        made.app.perform("agent.pause", PERFORMANCE)
        await made.pilot.pause()
        assert [name for _, name, _ in targets(made)] == [PERFORMANCE]


async def test_marks_of_the_fleet_are_nothing_on_other_screens() -> None:
    async with console() as made:
        await mark(made, BUILD, SECURITY)
        await made.put_cursor_on(PERFORMANCE)
        await made.press("o", "p")
        assert [name for _, name, _ in targets(made)] == [PERFORMANCE]


async def test_x_says_that_nothing_is_there_to_be_refused() -> None:
    async with console() as made:
        await mark(made, BUILD, SECURITY)
        await made.press("x")
        assert "it asks for nothing, and nothing was granted to it" in made.text()
        assert made.client.commands == []


# -- freezing -----------------------------------------------------------------------------------------------------


async def test_freezing_what_a_filter_shows_says_what_it_leaves() -> None:
    async with console() as made:
        made.app.entered("filter", "name:security,performance")
        await made.pilot.pause()
        await made.press("!")
        assert "2: security-extension, performance-observability" in made.text()
        assert "what /name:security,performance shows; 2 other live agents" in made.text()
        await made.press("enter")
        (command,) = made.client.commands
        assert isinstance(command, cmd.PauseFleet)
        assert set(command.agents) == {SECURITY, PERFORMANCE}


async def test_on_other_screens_the_whole_fleet_is_meant() -> None:
    async with console() as made:
        made.app.entered("filter", "name:security")
        await made.put_cursor_on(SECURITY)
        await made.press("o", "!")
        assert "the whole fleet" in made.text()


async def test_a_filter_that_shows_nothing_that_runs_freezes_nothing() -> None:
    async with console() as made:
        made.app.entered("filter", "state:failed")
        await made.pilot.pause()
        await made.press("!")
        assert "nothing runs and nothing is paused in what the filter shows" in made.text()
        assert not isinstance(made.app.screen, ConfirmDialog)


async def test_trouble_only_does_not_narrow_what_is_frozen() -> None:
    async with console() as made:
        await made.press("ctrl+z", "!")
        assert "the whole fleet" in made.text()
        await made.press("enter")
        (command,) = made.client.commands
        assert isinstance(command, cmd.PauseFleet)
        assert PERFORMANCE in command.agents, "though it is not shown"


async def test_a_mark_goes_with_its_agent() -> None:
    async with console() as made:
        await mark(made, BUILD, SECURITY)
        agents = {name: view for name, view in made.client.state.agents.items() if name != BUILD}
        made.client.state = made.client.state.model_copy(update={"agents": agents})
        made.client.resync(missed=1)
        await made.until(lambda: len(made.app.session.known.agents) == 8, "the loss")
        await made.pilot.pause()
        table = made.app.navigator.fleet.table
        assert list(table.marks) == [RowKey("agent", HOST, SECURITY)]
