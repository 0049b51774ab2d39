"""A confined agent with a neighbour, a secret beside its folder, and small programs of an attacker run inside."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.broker.gate import Gate, ToolReply
from toka_runtime.clock import SystemClock
from toka_runtime.limits.kernel_log import KernelLog
from toka_runtime.limits.tree_watch import Folders, TreeWatch
from toka_runtime.limits.watch import LimitWatch
from toka_runtime.policy.catalogue import load_catalogue
from toka_runtime.policy.rules import compile_rights
from toka_runtime.protocol.events import Event, LimitReached, OperationDenied, Stream
from toka_runtime.protocol.ids import AgentName, CallId, RunId
from toka_runtime.protocol.spec import AgentSpec, ScopedGrant, Security
from toka_runtime.protocol.usage import ResourceLimits
from toka_runtime.sandbox import landlock
from toka_runtime.sandbox.launcher import ForkServer
from toka_runtime.sandbox.plan import AgentProcess, SandboxPlan, ToolOutcome, ToolRequest
from toka_runtime.supervisor.limits_watch import ends_run

ALL = ("filesystem-read", "filesystem-write", "script-execution")
CANARY = "canary-5f1c0e"

_PRELUDE = """
import ctypes, errno, json, os, signal, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def attempt(act):
    try:
        return act() or "done"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
def call(number, *arguments):
    # Every argument as a full word.
    words = [word if isinstance(word, bytes) or word is None else ctypes.c_ulong(word) for word in arguments]
    words += [ctypes.c_ulong(0)] * (6 - len(words))
    ctypes.set_errno(0)
    if libc.syscall(ctypes.c_long(number), *words) < 0:
        return errno.errorcode[ctypes.get_errno()]
    return "done"
def tell(value):
    print("TOLD " + json.dumps(value), flush=True)
"""


def can_confine() -> bool:
    user = os.getuid() == 0 or subprocess.run(["unshare", "--user", "true"], check=False).returncode == 0
    return user and landlock.abi() > 0


def system_python() -> str:
    """The interpreter that an agent finds in the system folders."""
    return next(path for path in ("/usr/bin/python3", "/bin/python3") if Path(path).exists())


class Cell:
    def __init__(self, agent: AgentProcess, plan: SandboxPlan) -> None:
        self.agent = agent
        self.plan = plan
        self.folder = Path(plan.root)
        self.outside = self.folder.parent
        self.events: list[Event] = []
        self.text: list[str] = []
        self.reached: list[LimitReached] = []
        self.ended = asyncio.Event()
        """It was killed for a limit."""
        self._calls = 0
        self._heard = asyncio.Event()

    async def limit_reached(self, event: LimitReached) -> None:
        """What a supervisor does about it, in short."""
        self.reached.append(event)
        if ends_run(event) is not None and not self.ended.is_set():
            self.ended.set()
            await self.agent.kill()

    async def heard(self) -> None:
        """Returns when there is more output of a call in `text`."""
        await self._heard.wait()
        self._heard.clear()

    def _on_output(self, stream: str, data: bytes) -> None:
        del stream
        self.text.append(data.decode("latin1"))
        self._heard.set()

    async def request(
        self, name: str, arguments: dict[str, object], *, cap: int = 64_000, timeout_s: float = 60.0
    ) -> ToolOutcome:
        """Past policy: straight to the kernel's walls."""
        request = ToolRequest(
            call=CallId("c"),
            tool=name,
            arguments=arguments,
            root=self.plan.root,
            timeout_s=timeout_s,
            output_cap_bytes=cap,
        )
        return await self.agent.run_tool(request, self._on_output)

    async def tool(self, name: str, *, timeout_s: float = 60.0, **arguments: object) -> ToolOutcome:
        return await self.request(name, arguments, timeout_s=timeout_s)

    async def sh(self, command: str, *, cap: int = 64_000, timeout_s: float = 60.0) -> ToolOutcome:
        return await self.request("run_command", {"command": command}, cap=cap, timeout_s=timeout_s)

    async def python(self, source: str, *, timeout_s: float = 60.0) -> Any:
        """What the program told with `tell(value)`; None when it did not get there."""
        self._calls += 1
        script = self.folder / f"attack{self._calls}.py"
        script.write_text(_PRELUDE + source)
        script.chmod(0o644)
        outcome = await self.sh(f"{system_python()} -I {script.name} 2>&1", timeout_s=timeout_s)
        lines = [line[5:] for line in outcome.content.splitlines() if line.startswith("TOLD ")]
        return json.loads(lines[-1]) if lines else self._silent(outcome)

    @staticmethod
    def _silent(outcome: ToolOutcome) -> None:
        assert "Traceback" not in outcome.content, outcome.content
        assert "SyntaxError" not in outcome.content, outcome.content

    async def answers(self) -> bool:
        return (await self.sh("echo alive")).content.startswith("alive")

    def gate(self) -> Gate:
        """The whole way, from what a model asks for to the kernel."""

        async def emit(event: Event) -> None:
            self.events.append(event)

        return Gate(
            root=self.folder,
            rights=self.plan.rights,
            runner=self.agent,
            emit=emit,
            output=lambda stream, text, task, turn, call: self._output(stream, text),
            clock=SystemClock(),
            environment=self.plan.environment,
        )

    def _output(self, stream: Stream, text: str) -> None:
        del stream
        self.text.append(text)

    async def ask(self, name: str, **arguments: object) -> ToolReply:
        return await self.gate().call(name, arguments, call=CallId("c1"), task=0, turn=1)

    def denials(self) -> list[OperationDenied]:
        return [event for event in self.events if isinstance(event, OperationDenied)]


@asynccontextmanager
async def place() -> AsyncGenerator[Path]:
    """A folder of this test's own that only its owner may enter, outside of /tmp, which agents have for themselves."""
    folder = Path(tempfile.mkdtemp(prefix="toka-security-", dir="/var/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def cell(
    server: ForkServer,
    base: Path,
    name: str = "a",
    *,
    capabilities: tuple[str, ...] = ALL,
    grants: tuple[ScopedGrant, ...] = (),
    limits: ResourceLimits | None = None,
    own: bool = True,
) -> AsyncGenerator[Cell]:
    """An agent in `base/name`, whose scratch lies in `base/name-scratch`; it is proven dead afterwards."""
    folder, scratch = base / name, base / f"{name}-scratch"
    for path in (folder, scratch):
        path.mkdir(exist_ok=True)
    (folder / "hello.txt").write_text("hello\n")
    secret = base / "secret.txt"
    secret.write_text(f"{CANARY}\n")
    spec = AgentSpec(name=AgentName(name), security=Security(capabilities_required=capabilities), grants=grants)
    plan = SandboxPlan(
        agent=spec.name,
        run=RunId(f"r-{name}"),
        root=str(folder),
        rights=compile_rights(spec, load_catalogue()),
        limits=limits or ResourceLimits(),
        environment={"PATH": "/usr/bin:/bin", "HOME": str(scratch), "TMPDIR": str(scratch)},
        scratch=(str(scratch),),
        own_folder=own,
    )
    agent = await server.launch(plan)
    found = Cell(agent, plan)
    watching = LimitWatch(SystemClock())
    log = KernelLog()
    watch = TreeWatch(
        agent.process,
        plan.limits,
        agent.held,
        Folders((plan.root, *plan.scratch)),
        processes_held=agent.confined,
        kernel_log=log,
        now=SystemClock().monotonic(),
    )
    watching.add(watch, found.limit_reached, agent.brake)
    running = spawn(watching.run())
    try:
        yield found
    finally:
        await cancel_and_wait(running)
        found.reached += await watching.remove(watch)
        log.close()
        assert (await agent.kill()).confirmed
