"""A real supervisor on a real folder with real processes; only the model is a fake that the test scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from fakes.gateway import Answer, FakeGateway
from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.client.base import Resync
from toka_runtime.llm.base import GatewaySettings, ModelRequest
from toka_runtime.protocol.commands import Command, CommandRequest, CommandResult
from toka_runtime.protocol.events import Envelope, Event
from toka_runtime.protocol.ids import AgentName, CommandId, HostId, RunRef, new_command_id
from toka_runtime.protocol.states import AgentState
from toka_runtime.specs.loader import load_paths
from toka_runtime.supervisor.agent import Agent
from toka_runtime.supervisor.dispatch import Dispatcher
from toka_runtime.supervisor.options import LoopLimits, RuntimeOptions
from toka_runtime.supervisor.supervisor import Supervisor

E = TypeVar("E", bound=Event)
QUICK = LoopLimits(retry_backoff_s=0.01, retry_backoff_cap_s=0.02, task_attempts=2)


def spec(name: str, *, body: str = "", tasks: str = "[{description: the work}]", security: str = "") -> str:
    """YAML of a small spec with the rights to read, write and run scripts."""
    rights = "capabilities_required: [filesystem-read, filesystem-write, script-execution]"
    return (
        f"metadata: {{name: {name}}}\nspec: {{name: The {name}, domain: test}}\n"
        f"tasks:\n  default: {tasks}\nsecurity:\n  sandbox: true\n  {rights}\n{security}{body}"
    )


class Scene:
    def __init__(self, supervisor: Supervisor, gateway: FakeGateway) -> None:
        self.supervisor = supervisor
        self.gateway = gateway
        self.log: list[Envelope] = []
        self._dispatcher = Dispatcher(supervisor)
        self._grew = asyncio.Event()
        self.ended = asyncio.Event()
        """Subscribers have been told that no event will follow."""

    def agent(self, name: str) -> Agent:
        return self.supervisor.agent(AgentName(name))

    def of(self, kind: type[E], agent: str | None = None) -> list[E]:
        return [e.event for e in self.log if isinstance(e.event, kind) and (agent is None or e.agent == agent)]

    def final(self) -> dict[str, AgentState]:
        return {name: agent.state for name, agent in self.supervisor.agents.items()}

    async def run(self, *names: str) -> None:
        """Ask for the agents (none: all) and wait until they have ended."""
        await self.start(*names)
        async with asyncio.timeout(60):
            await self.supervisor.settled()
        await self.until(lambda: self.log and self.log[-1].seq >= self.supervisor.store.head)

    async def start(self, *names: str) -> None:
        await self.supervisor.request([AgentName(name) for name in names] or None)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until the condition holds, looking again whenever an event has come."""
        async with asyncio.timeout(60):
            while not condition():
                self._grew.clear()
                await self._grew.wait()

    async def until_state(self, name: str, state: AgentState) -> None:
        await self.until(lambda: self.agent(name).state is state)

    def ref(self, name: str) -> RunRef:
        agent = self.agent(name)
        process = agent.process.process if agent.process else None
        return RunRef(host=self.supervisor.options.host, agent=agent.name, run=agent.run, process=process)

    async def send(self, command: Command, request_id: str = "") -> CommandResult:
        identity = CommandId(request_id) if request_id else new_command_id("test")
        return await self._dispatcher.handle(CommandRequest(id=identity, actor="test", command=command))

    async def collect(self) -> None:
        async with self.supervisor.bus.subscribe(0) as subscription:
            async for batch in subscription:
                assert not isinstance(batch, Resync)
                self.log.extend(batch)
                self._grew.set()
        self.ended.set()


@asynccontextmanager
async def scene(
    tmp_path: Path,
    brain: Callable[[ModelRequest], Answer],
    *specs: str,
    loop: LoopLimits = QUICK,
    **options: Any,
) -> AsyncIterator[Scene]:
    folder = tmp_path / "specs"
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(specs):
        (folder / f"{number}.yaml").write_text(text)
    workspace = tmp_path / "workspace"
    workspace.mkdir(exist_ok=True)
    (workspace / "hello.txt").write_text("hello\n")
    gateway = FakeGateway(brain)
    options.setdefault("gateway", GatewaySettings(provider="rehearsal"))
    supervisor = await Supervisor.open(
        RuntimeOptions(
            workspace=workspace,
            state_dir=tmp_path / "state",
            host=HostId("here"),
            loop=loop,
            **options,
        ),
        gateway=gateway,
    )
    report = load_paths((folder,))
    assert report.ok, [file.errors for file in report.files]
    stage = Scene(supervisor, gateway)
    collecting = spawn(stage.collect(), name="collect")
    try:
        await supervisor.load(report)
        yield stage
    finally:
        await supervisor.aclose("the test is over")
        await cancel_and_wait(collecting)
        assert gateway.closed
