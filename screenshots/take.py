"""Takes the pictures in this folder from a real run: real processes, real denials, a rehearsal in the model's place.

SVG by `svg.py`, PNG beside it where `rsvg-convert` is installed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
os.environ["TEXTUAL_ANIMATIONS"] = "none"

import svg  # noqa: E402
from textual.pilot import Pilot  # noqa: E402

from toka_console.app import ConsoleApp  # noqa: E402
from toka_runtime.client.local import LocalClient, LocalOptions, open_local  # noqa: E402
from toka_runtime.protocol.snapshot import FleetState  # noqa: E402
from toka_runtime.protocol.states import AgentState  # noqa: E402
from toka_runtime.supervisor.sample import create_sample_workspace  # noqa: E402

SIZE = (160, 45)


def sample(folder: Path, *, ask: bool = False) -> tuple[ConsoleApp, list[LocalClient]]:
    """A console on the sample fleet, and its client once that is open."""
    create_sample_workspace(folder / "tally")
    clients: list[LocalClient] = []

    async def open_client() -> LocalClient:
        options = LocalOptions(workspace=folder / "tally", state_dir=folder / "state", provider="rehearsal", ask=ask)
        clients.append(await open_local(options))
        return clients[0]

    return ConsoleApp(open_client, settings_file=folder / "console.yaml"), clients


async def take(folder: Path) -> None:
    app, clients = sample(folder)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: bool(clients) and busy(clients[0].supervisor.snapshot()))
        await pilot.press("p")
        await until(pilot, lambda: AgentState.PAUSED in states(clients[0].supervisor.snapshot()))
        await show(pilot, "fleet")
        await pilot.press("p", "enter")
        await show(pilot, "agent")
        await pilot.press("escape", "o")
        await show(pilot, "output")
        await pilot.press("5")
        await show(pilot, "denials")
        await pilot.press("1", "K")
        await show(pilot, "kill")
        await pilot.press("escape", "question_mark")
        await show(pilot, "help")
        await app.finish()


async def take_approvals(folder: Path) -> None:
    """The same fleet where agents may ask."""
    app, clients = sample(folder, ask=True)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: bool(clients) and requests(clients[0].supervisor.snapshot()) >= 2)
        await pilot.press("6")
        await pilot.pause(1.0)
        # For the rest of the run: the grant is in the picture.
        await pilot.press("A", "down", "down", "down", "down", "enter")
        await until(pilot, lambda: any(view.grants for view in clients[0].supervisor.snapshot().agents.values()))
        await show(pilot, "approvals")
        await app.finish()


def requests(state: FleetState) -> int:
    return sum(len(view.approvals) for view in state.agents.values())


def states(state: FleetState) -> set[AgentState]:
    return {view.state for view in state.agents.values()}


def busy(state: FleetState) -> bool:
    """Something is done, something is being done, something was refused."""
    denials = sum(view.denials for view in state.agents.values())
    return {AgentState.COMPLETED, AgentState.RUNNING, AgentState.PENDING} <= states(state) and denials > 3


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not condition():
            await pilot.pause(0.1)


async def show(pilot: Pilot[None], name: str) -> None:
    # Two looks at the screen apart: what was asked for has been drawn.
    await pilot.pause(0.8)
    lines = [list(strip) for strip in pilot.app.screen._compositor.render_strips()]
    (HERE / f"{name}.svg").write_text(svg.render(lines, SIZE[0]))


def convert() -> None:
    program = shutil.which("rsvg-convert")
    for picture in HERE.glob("*.svg") if program else ():
        subprocess.run([str(program), "--zoom=1.2", "-o", picture.with_suffix(".png"), picture], check=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="toka-") as place:
        asyncio.run(take(Path(place) / "plain"))
        asyncio.run(take_approvals(Path(place) / "asking"))
    convert()
