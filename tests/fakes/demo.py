"""`python -m fakes.demo`: the console on a scripted fleet that moves. For looking at screens without a runtime."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from itertools import count

from fakes import fleet
from fakes.client import FakeRuntimeClient
from fakes.clock import FakeClock
from toka_console import launch
from toka_runtime.client.base import RuntimeClient
from toka_runtime.protocol import commands as cmd
from toka_runtime.protocol.states import AgentState, StopReason

WORDS = [
    "the",
    "manifest",
    "of",
    "this",
    "crate",
    "asks",
    "for",
    "a",
    "version",
    "that",
    "the",
    "workspace",
    "does",
    "not",
    "have",
    "so",
    "it",
    "is",
    "changed",
    "here",
]


async def open_client() -> RuntimeClient:
    clock = FakeClock()
    client = FakeRuntimeClient(clock)
    await fleet.work(client, clock)
    client.clock = None
    client.answer = lambda request: obey(client, request)
    asyncio.get_running_loop().call_soon(start_moving, client)
    return client


def obey(client: FakeRuntimeClient, request: cmd.CommandRequest) -> cmd.CommandResult | None:
    """Do what a runtime would, a moment later."""
    after = {"agent.pause": AgentState.PAUSED, "agent.resume": AgentState.RUNNING, "agent.kill": AgentState.KILLED}
    target = getattr(request.command, "target", None)
    if request.command.op in after and target is not None:

        def act() -> None:
            fleet.change(client, target.agent, after[request.command.op], StopReason.OPERATOR, "confirmed in 1.1 ms")
            client.confirm(request)

        asyncio.get_running_loop().call_later(0.8, act)
    return None


def start_moving(client: FakeRuntimeClient) -> None:
    steps = count()
    running = [fleet.NAMES[0][0], fleet.NAMES[4][0], fleet.NAMES[6][0]]

    def step() -> None:
        number = next(steps)
        for name in running:
            if client.state.agents[name].state is AgentState.RUNNING:  # type: ignore[index] # names are plain text here
                fleet.sample(client, name, random.random() * 0.7, random.randint(40, 400) * fleet.MIB)
                fleet.say(client, name, " ".join(random.choices(WORDS, k=6)) + (".\n" if number % 3 == 0 else " "))
        if number % 20 == 0:
            fleet.tool(client, running[0], f"d{number}", "run_command", "cargo test -p kernel", summary="ok\n12 passed")
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().call_later(0.25, step)

    step()


if __name__ == "__main__":
    sys.exit(launch.run(open_client, start_fleet=False)[0])
