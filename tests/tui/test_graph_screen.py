"""Screen 8, Graph: live states, what holds up, the critical path, moving by geometry, pausing, exporting."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fakes import fleet
from fakes.client import FakeRuntimeClient
from fakes.clock import FakeClock
from fakes.console import Console, console
from toka_console.dialogs.confirm import ConfirmDialog
from toka_console.panes.graph import GraphPane
from toka_runtime.protocol import commands as cmd
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.spec import AgentSpec, Dependency
from toka_runtime.protocol.states import AgentState

SIZES = [(200, 50), (120, 40), (80, 24), (60, 15)]
NEEDS = {
    "root": (),
    "left": ("root",),
    "right": ("root",),
    "join": ("left", "right?"),
    "lost": ("nobody", "root"),
    "alone": (),
}


def wishes(names: tuple[str, ...]) -> tuple[Dependency, ...]:
    return tuple(
        Dependency(agent=AgentName(name.rstrip("?")), required=not name.endswith("?")) for name in names
    )  # fmt: skip


def diamond(client: FakeRuntimeClient, clock: FakeClock) -> None:
    client.emit(ev.RuntimeStarted(epoch="e", version="1", pid=1, workspace="/w", provider="anthropic"))
    for name, before in NEEDS.items():
        spec: AgentSpec = fleet.spec(name).model_copy(update={"dependencies": wishes(before)})
        client.emit(ev.SpecLoaded(spec=spec, rights=fleet.rights()))
    fleet.start(client, "root", 1)
    for name, waits in (("left", "root to be completed"), ("right", "root to be completed")):
        client.emit(ev.AgentStateChanged(before=AgentState.PENDING, after=AgentState.PENDING), name)
        client.emit(ev.AgentBlocked(blockers=(waits,)), name)


def graph(made: Console) -> GraphPane:
    return made.app.current.query_one(GraphPane)


def focused(made: Console) -> str:
    focus = made.app.session.focus
    return focus.name if focus is not None else ""


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_every_agent_stands_in_the_picture(size: tuple[int, int]) -> None:
    async with console(size, script=diamond) as made:
        await made.press("8")
        seen = ""
        for _ in range(len(NEEDS) + 1):
            seen += made.text()
            await made.press("tab")
        for name in NEEDS:
            assert name in seen, name
        assert "not loaded" in seen
        assert "critical path: 3 in a row" in seen
        assert len(made.text().splitlines()) == size[1]


async def test_the_nine_specs_are_in_view_at_once(toka_specs: Path) -> None:
    from toka_runtime.specs.loader import load_paths

    def nine(client: FakeRuntimeClient, clock: FakeClock) -> None:
        client.emit(ev.RuntimeStarted(epoch="e", version="1", pid=1, workspace="/w", provider="anthropic"))
        for spec in load_paths([toka_specs]).specs:
            client.emit(ev.SpecLoaded(spec=spec, rights=fleet.rights()))

    async with console((120, 40), script=nine) as made:
        await made.press("8")
        text = made.text()
        assert text.count("LOADED") == 9
        for name in made.client.state.agents:
            assert name in text
        assert "more" not in text.splitlines()[3], "nothing lies beyond an edge"
        assert "left by its specs" in text, "they say how long each may take"


async def test_what_holds_up_is_heavy_and_the_longest_chain_double() -> None:
    async with console(script=diamond) as made:
        await made.press("8")
        text = made.text()
        assert "┃" in text or "━" in text.replace("━━ holds up", "")
        assert "╔" in text
        fleet.change(made.client, "root", AgentState.COMPLETED)
        for name in ("left", "right"):
            made.client.emit(ev.AgentBlocked(blockers=()), name)
        await made.drained()
        assert "COMPLETED" in made.text()
        lines = made.text().replace("━━ holds up", "")
        assert not {"┳", "┻", "╋", "┣", "┫"} & set(lines), "nobody is held up any more"


async def test_the_picture_is_not_laid_out_again_for_a_change_of_state() -> None:
    async with console(script=diamond) as made:
        await made.press("8")
        scene = graph(made).scene
        fleet.change(made.client, "root", AgentState.PAUSED)
        await made.drained()
        assert "PAUSED" in made.text()
        assert graph(made).scene is scene
        spec = fleet.spec("late").model_copy(update={"dependencies": wishes(("alone",))})
        made.client.emit(ev.SpecLoaded(spec=spec, rights=fleet.rights()))
        await made.drained()
        assert graph(made).scene is not scene
        assert "late" in made.text()


async def test_arrows_go_to_the_neighbour_and_keys_act_on_it() -> None:
    async with console(script=diamond) as made:
        await made.put_cursor_on("root")
        await made.press("8")
        assert focused(made) == "root"
        await made.press("j")
        first = focused(made)
        boxes = dict(graph(made).scene.boxes)
        here = next(box for key, box in boxes.items() if key == graph(made).cursor)
        await made.press("right" if graph(made).scene.beside(here, "right", 9) else "left")
        assert focused(made) not in ("root", first)
        await made.press("k")
        assert focused(made) in ("root", "")
        await made.press("g", "G", "g")
        graph(made).select(next(key for key in boxes if key.name == "root"))
        await made.press("p")
        [command] = made.client.commands
        assert isinstance(command, cmd.PauseAgent)
        assert command.target.agent == "root"
        await made.press("enter")
        assert made.app.current.ID == "agent"


async def test_an_agent_that_is_not_loaded_takes_no_command() -> None:
    async with console(script=diamond) as made:
        await made.press("8")
        graph(made).select(next(key for key, _ in graph(made).scene.boxes if key.name == "nobody"))
        await made.press("p", "K")
        assert made.client.commands == []
        assert "no agent is selected" in made.text()


async def test_a_filter_leaves_what_it_lets_through() -> None:
    async with console(script=diamond) as made:
        await made.press("8", "/")
        await made.type("name:left")
        await made.press("enter")
        assert {key.name for key, _ in graph(made).scene.boxes} == {"left"}
        await made.press("escape")
        assert len(graph(made).scene.boxes) == 7


async def test_a_subtree_is_paused_after_its_targets_were_named() -> None:
    async with console(script=diamond) as made:
        fleet.start(made.client, "join", 2)
        await made.drained()
        await made.put_cursor_on("root")
        await made.press(*":pause-subtree", "enter")
        assert isinstance(made.app.screen, ConfirmDialog)
        assert "2: root, join" in made.text()
        assert "3: they start only after" in made.text()
        assert made.client.commands == []
        await made.press("enter")
        [command] = made.client.commands
        assert command == cmd.PauseFleet(agents=(AgentName("root"), AgentName("join")))


async def test_a_subtree_in_which_nothing_runs_is_not_asked_about() -> None:
    async with console(script=diamond) as made:
        await made.put_cursor_on("alone")
        await made.press(*":pause-subtree", "enter")
        assert "nothing runs of alone" in made.text()
        assert not isinstance(made.app.screen, ConfirmDialog)


@pytest.mark.parametrize("suffix", ["mmd", "json"])
async def test_the_graph_becomes_a_file_once(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"fleet.{suffix}"
    async with console((200, 40), script=diamond) as made:
        made.app.perform("graph.export", str(path))
        await made.until(lambda: "wrote" in made.text(), "the file")
        assert "7 agents, 6 edges" in made.text()
        text = path.read_text()
        made.app.perform("graph.export", str(path))
        await made.until(lambda: "is there already" in made.text(), "the refusal")
        assert path.read_text() == text
    assert [file.name for file in tmp_path.iterdir()] == [path.name], "nothing is left beside it"
    if suffix == "json":
        [host] = json.loads(text)["hosts"]
        assert {agent["name"]: agent["loaded"] for agent in host["agents"]}["nobody"] is False
        assert {(edge["before"], edge["after"], edge["required"]) for edge in host["edges"]} >= {
            ("root", "left", True), ("right", "join", False),
        }  # fmt: skip
        assert len(host["critical_path"]["agents"]) == 3
    else:
        assert text.startswith("flowchart TB\n")
        assert text.count("-->") == 5
        assert text.count("-.->") == 1


async def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    async with console((200, 40), script=diamond) as made:
        made.app.perform("graph.export", str(tmp_path / "no" / "graph.json"))
        await made.until(lambda: "cannot be written" in made.text(), "the failure")
        made.app.perform("graph.export", str(tmp_path / "graph.png"))
        assert "end its name in .mmd (Mermaid) or .json" in made.text()


async def test_a_large_graph_is_laid_out_beside_the_keys() -> None:
    def many(client: FakeRuntimeClient, clock: FakeClock) -> None:
        client.emit(ev.RuntimeStarted(epoch="e", version="1", pid=1, workspace="/w", provider="anthropic"))
        for number in range(300):
            before = (f"a{(number - 1) // 2:03}",) if number else ()
            spec = fleet.spec(f"a{number:03}").model_copy(update={"dependencies": wishes(before)})
            client.emit(ev.SpecLoaded(spec=spec, rights=fleet.rights()))

    async with console((120, 40), script=many) as made:
        await made.press("8")
        await made.until(lambda: graph(made).scene.parts, "the layout")
        await made.pilot.pause()
        assert "a000" in made.text()
        assert "more" in made.text().splitlines()[1] + made.text().splitlines()[2]
        await made.press("G")
        assert focused(made) in made.text()


async def test_cycles_are_drawn_and_said() -> None:
    def circle(client: FakeRuntimeClient, clock: FakeClock) -> None:
        client.emit(ev.RuntimeStarted(epoch="e", version="1", pid=1, workspace="/w", provider="anthropic"))
        for name, before in (("one", ("two", "one")), ("two", ("one?",))):
            spec = fleet.spec(name).model_copy(update={"dependencies": wishes(before)})
            client.emit(ev.SpecLoaded(spec=spec, rights=fleet.rights()))

    async with console(script=circle) as made:
        await made.press("8")
        assert made.text().count("△") == 2, "at its end, and in the legend"
        assert "closes a cycle" in made.text()
