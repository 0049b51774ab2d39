"""What the launcher is asked to do: plain values, no mechanism. The same plan will drive kernel confinement."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol

from pydantic import Field

from toka_runtime.limits.defaults import OUTPUT_BYTES
from toka_runtime.limits.enforcer import Held
from toka_runtime.protocol.capability import OperationKind, Rights
from toka_runtime.protocol.ids import AgentName, CallId, ProcessRef, RunId
from toka_runtime.protocol.limits import OnLimit
from toka_runtime.protocol.model import Model
from toka_runtime.protocol.spec import SandboxMode
from toka_runtime.protocol.usage import ResourceLimits


class SandboxPlan(Model):
    """Everything that decides how one agent's process tree is built."""

    agent: AgentName
    run: RunId
    root: str
    """Absolute path of the agent's folder: its worktree, copy, or the workspace itself."""
    rights: Rights
    ceiling: Rights | None = None
    """What an operator's grants may open at most: the view is built for it. Each call has the kernel's rules for its
    own rights all the same. None: nothing beyond `rights`."""
    limits: ResourceLimits = ResourceLimits()
    on_limit: OnLimit = OnLimit.KILL
    mode: SandboxMode = SandboxMode.REQUIRED
    environment: dict[str, str] = Field(default_factory=dict)
    """Built from nothing: exactly what tool processes see."""
    scratch: tuple[str, ...] = ()
    """Further folders that it may write: its home and its temporary files."""
    readable: tuple[str, ...] = ()
    """What its programs need besides, e.g. the repository that its worktree belongs to."""
    own_folder: bool = True
    """The runtime made `root` for it. False: it is the operator's own folder, whose owner may not change."""


class ToolRequest(Model):
    """One tool call that policy has allowed, to be executed in a child process of the agent's tree."""

    call: CallId
    tool: str
    arguments: dict[str, Any]
    """Validated against the tool's schema; paths already resolved by the broker, relative to `root` or absolute."""
    root: str
    environment: dict[str, str] = Field(default_factory=dict)
    timeout_s: float = 120.0
    output_cap_bytes: int = OUTPUT_BYTES
    """Result text longer than this keeps head and tail, with a digest of the whole."""
    granted: Rights | None = Field(default=None, exclude=True)
    """The rights of this one call, where an operator has granted more or withdrawn some; for the kernel's rules, not
    for the child to read."""


class ToolOutcome(Model):
    ok: bool
    content: str
    """What the model reads: valid text, capped."""
    code: str = ""
    """"" when ok; else tool.not_found, tool.timeout, tool.exit_status, tool.invalid, tool.crashed, tool.refused …"""
    exit_code: int | None = None
    result_bytes: int = 0
    """Size of the whole result before capping."""
    digest: str = ""
    """SHA-256 of the whole result."""
    refused_target: str = ""
    """Where the kernel or the tool refused an access that policy had allowed: the exact target."""


class KernelRefusal(Model):
    """What a process of a call tried and the kernel refused, as its observer saw it."""

    kind: OperationKind
    target: str
    """Absolute path, or `host:port`; "" stands for many different ones."""
    rule: str
    """`sandbox:landlock`, `sandbox:view` or `sandbox:network`."""
    count: int = 1


OutputChunk = Callable[[Literal["stdout", "stderr"], bytes], None]
RefusalSink = Callable[[KernelRefusal], Awaitable[None]]


class ToolRunner(Protocol):
    async def run_tool(
        self, request: ToolRequest, on_output: OutputChunk, on_refused: RefusalSink | None = None
    ) -> ToolOutcome:
        """Run to the end or to the timeout. Cancelling the awaiting task kills the tool's processes. `on_refused` is
        awaited with each refusal of the kernel that an observer saw, while the call runs; what it raises is raised
        here. Raises ProcessError when the agent's tree is gone."""
        ...


class StopProof(Model):
    """How a pause or kill was confirmed."""

    confirmed: bool
    mechanism: str
    """`signals` or `cgroup.freeze` …"""
    processes: int
    """How many were stopped or killed."""
    duration_ms: float
    survivors: tuple[int, ...] = ()
    """Pids not stopped (pause) or still there (kill)."""


class WorkerChannel(Protocol):
    """Framed messages to and from the worker (JSON objects)."""

    async def send(self, frame: dict[str, Any]) -> None:
        """Raises ProcessError when the worker is gone."""
        ...

    async def receive(self) -> dict[str, Any] | None:
        """None at end of file. Raises ProtocolError on a broken frame."""
        ...


class AgentProcess(ToolRunner, Protocol):
    """One agent's process tree: a shim (the root, adopts orphans), a worker, and a child for each tool call."""

    process: ProcessRef
    worker_pid: int
    confined: bool
    held: Held
    """The control groups that it is in."""
    protections: tuple[str, ...]
    channel: WorkerChannel
    listener: socket.socket | None
    """On the agent's own loopback, for its proxy to serve; None where it is not confined."""

    async def pause(self) -> StopProof: ...

    async def resume(self) -> StopProof: ...

    async def brake(self, still: bool) -> None:
        """Make it stand still for a moment, or run again, where a limit asks for it: no pause, and no proof. An
        operator's pause goes before. Never raises."""
        ...

    async def kill(self) -> StopProof:
        """The whole tree, now, also while paused; proven empty, survivors named."""
        ...

    async def terminate(self, grace_s: float) -> StopProof:
        """SIGTERM to the worker and its tools, then `kill` after the grace."""
        ...

    async def wait(self) -> int:
        """The worker's exit code (negative: signal). Returns at once when it has ended."""
        ...


class Launcher(Protocol):
    async def launch(self, plan: SandboxPlan) -> AgentProcess:
        """Raises ProcessError or SandboxUnavailable; nothing is left behind then."""
        ...

    async def aclose(self) -> None:
        """Kill every tree that it started, prove it, end the fork server."""
        ...
