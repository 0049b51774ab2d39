"""The console under a pilot, with a fake client: what screen tests start from."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

# Read by Textual when it is imported.
os.environ["TEXTUAL_ANIMATIONS"] = "none"
os.environ["TZ"] = "UTC"
time.tzset()

from textual.pilot import Pilot  # noqa: E402

from fakes import fleet  # noqa: E402
from fakes.client import FakeRuntimeClient  # noqa: E402
from fakes.clock import FakeClock  # noqa: E402
from toka_console.app import ConsoleApp  # noqa: E402
from toka_console.entries import AgentEntry  # noqa: E402
from toka_console.identity import AgentKey  # noqa: E402
from toka_console.panes.fleet_table import FleetTable  # noqa: E402
from toka_runtime.client.base import RuntimeClient  # noqa: E402

PATIENCE_S = 20.0


@dataclass
class Console:
    app: ConsoleApp
    pilot: Pilot[None]
    client: FakeRuntimeClient
    clock: FakeClock

    async def until(self, condition: Callable[[], object], what: str = "the condition") -> None:
        """Let the app run until `condition()` holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come true"
            assert self.app.failure is None, self.app.failure
            await self.pilot.pause(0.005)

    async def press(self, *keys: str) -> None:
        """Press keys, one after the other, each handled before the next."""
        for key in keys:
            await self.pilot.press(key)
            await self.pilot.pause()

    async def type(self, text: str) -> None:
        await self.press(*text)

    async def drained(self) -> None:
        """Until every event of the fake is in the console's state, and drawn."""
        await self.until(lambda: self.seq() >= self.client.state.seq, "the drain")
        await self.pilot.pause()

    def seq(self) -> int:
        state = self.app.session.state
        return -1 if state is None else state.hosts[self.client.host].fleet.seq

    def text(self) -> str:
        """The screen as lines of text."""
        strips = self.app.screen._compositor.render_strips()  # what the terminal would show
        return "\n".join(strip.text.rstrip() for strip in strips)

    def agent(self, name: str) -> AgentEntry:
        return self.app.session.known.agents[AgentKey(self.client.host, name)]  # type: ignore[arg-type] # plain text

    async def put_cursor_on(self, name: str) -> None:
        """Move the Fleet's cursor to an agent."""
        table = self.app.current.query_one(FleetTable)
        table.select(next(row for row in table.order if row.name == name))
        await self.until(
            lambda: self.app.session.focus is not None and self.app.session.focus.name == name, "the focus"
        )
        await self.pilot.pause()


@asynccontextmanager
async def console(
    size: tuple[int, int] = (120, 40),
    script: Callable[[FakeRuntimeClient, FakeClock], object] | None = None,
    client: FakeRuntimeClient | None = None,
    clock: FakeClock | None = None,
    **options: object,
) -> AsyncIterator[Console]:
    """A console that has taken the fleet over. `script(client, clock)` fills the fake first (default: `fleet.work`)."""
    clock = clock or FakeClock()
    client = client or FakeRuntimeClient(clock)
    if script is None:
        await fleet.work(client, clock)
    else:
        script(client, clock)
    app = make_app(client, clock, **options)
    async with app.run_test(size=size) as pilot:
        made = Console(app, pilot, client, clock)
        await made.until(lambda: app.bridge is not None and not app.session.phase and client.listening, "the start")
        await made.drained()
        yield made
        await app.finish()


def make_app(client: RuntimeClient, clock: FakeClock, **options: object) -> ConsoleApp:
    async def open_client() -> RuntimeClient:
        return client

    options.setdefault("start_fleet", False)
    return ConsoleApp(open_client, clock=clock, **options)  # type: ignore[arg-type] # passed through
