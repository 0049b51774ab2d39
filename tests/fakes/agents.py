"""Real process trees for tests: plans, launchers that leave nothing behind, and waits that end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from toka_runtime.aio import spawn
from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.ids import AgentName, CallId, RunId
from toka_runtime.sandbox.launcher import ForkServer
from toka_runtime.sandbox.plan import AgentProcess, SandboxPlan, ToolOutcome, ToolRequest
from toka_runtime.sandbox.requests import process_end
from toka_runtime.sandbox.tree import members, proc_stat

FAKES = str(Path(__file__).parent)


def plan(root: Path, agent: str = "tester", **more: Any) -> SandboxPlan:
    return SandboxPlan(agent=AgentName(agent), run=RunId("r1"), root=str(root), rights=Rights(), **more)


def request(root: Path, tool: str, timeout_s: float = 30.0, **arguments: Any) -> ToolRequest:
    return ToolRequest(call=CallId("c"), tool=tool, arguments=arguments, root=str(root), timeout_s=timeout_s)


@asynccontextmanager
async def fork_server(**settings: Any) -> AsyncIterator[ForkServer]:
    """With the toy tools, unless another tool function is given."""
    settings = {"tool_function": "toy_tools:execute", "import_paths": [FAKES], **settings}
    server = ForkServer(**settings)
    try:
        yield server
    finally:
        await server.aclose()


class RunningTool:
    """A tool that is at work; `told` waits for the JSON (or the text) that it writes first."""

    def __init__(self, process: AgentProcess, tool_request: ToolRequest) -> None:
        self.output = b""
        self._came = asyncio.Event()
        self.task: asyncio.Task[ToolOutcome] = spawn(process.run_tool(tool_request, self._take))

    def _take(self, stream: str, data: bytes) -> None:
        self.output += data
        self._came.set()

    async def told(self) -> Any:
        async with asyncio.timeout(20):
            came = spawn(self._came.wait())
            await asyncio.wait({came, self.task}, return_when=asyncio.FIRST_COMPLETED)
            assert self.output, f"it ended silently: {self.task}"
            came.cancel()
        try:
            return json.loads(self.output)
        except ValueError:
            return self.output.decode()

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


class Watched:
    """Processes that are held by descriptors, so that their numbers cannot come to mean others."""

    def __init__(self, *pids: int) -> None:
        self._descriptors: dict[int, int] = {}
        for pid in pids:
            # One that has ended already needs no watching.
            with suppress(ProcessLookupError):
                self._descriptors[pid] = os.pidfd_open(pid)

    async def all_gone(self, timeout_s: float = 20.0) -> None:
        """Wait until every one has ended."""
        ends = [process_end(descriptor) for descriptor in self._descriptors.values()]
        _, running = await asyncio.wait(ends, timeout=timeout_s) if ends else ((), ())
        for end in running:
            end.cancel()
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        assert not running, f"{len(running)} of {list(self._descriptors)} still run"


def states(pids: Any) -> dict[int, str]:
    """State letters of the processes that are there."""
    return {pid: stat.state for pid in pids if (stat := proc_stat(pid)) is not None}


def running(pids: Any) -> dict[int, str]:
    """Those that could still run an instruction: neither stopped nor ended, nor asleep in the kernel (a parent in
    vfork) with the stop signal waiting for them."""
    found = states(pids)
    return {pid: state for pid, state in found.items() if state not in "TZ" and not (state == "D" and _stops(pid))}


def _stops(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    pending = next(line for line in status.splitlines() if line.startswith("ShdPnd:"))
    return bool(int(pending.split()[1], 16) & 1 << (signal.SIGSTOP - 1))


def tree_of(process: AgentProcess) -> list[int]:
    """The shim and all that is below it now."""
    return [process.process.pid, *members(process.process.pid)]
