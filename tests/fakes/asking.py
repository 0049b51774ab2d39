"""A gate whose calls may ask an operator, with everything that goes in and comes out of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fakes.clock import FakeClock
from toka_runtime.aio import spawn
from toka_runtime.broker.approvals import ApprovalDesk
from toka_runtime.broker.gate import Gate, ToolReply
from toka_runtime.errors import StoreFull
from toka_runtime.protocol.approval import ApprovalRequest, GrantScope
from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.commands import DecideApproval
from toka_runtime.protocol.events import ApprovalRequested, Event
from toka_runtime.protocol.ids import AgentName, CallId, HostId, RunId, RunRef
from toka_runtime.sandbox.plan import OutputChunk, RefusalSink, ToolOutcome, ToolRequest
from toka_runtime.supervisor.deadline import FreezableClock, PauseGate

E = TypeVar("E", bound=Event)
WAIT_S = 60.0


class NotingRunner:
    """Carries out nothing; keeps what it was asked. `hang`: the call does not end by itself."""

    def __init__(self) -> None:
        self.requests: list[ToolRequest] = []
        self.hang = False
        self.cancelled = 0

    async def run_tool(
        self, request: ToolRequest, on_output: OutputChunk, on_refused: RefusalSink | None = None
    ) -> ToolOutcome:
        self.requests.append(request)
        if self.hang:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return ToolOutcome(ok=True, content="carried out")


class AskingGate:
    def __init__(self, root: Path, rights: Rights, *, wait_s: float = WAIT_S) -> None:
        self.events: list[Event] = []
        self.clock = FakeClock()
        self.pause = PauseGate()
        self.runner = NotingRunner()
        self.narrowed = 0
        self.full = False
        self._grew = asyncio.Event()
        self._calls = 0
        self.desk = ApprovalDesk(
            agent=AgentName("a"),
            run=RunId("r1"),
            emit=self._emit,
            clock=self.clock,
            run_clock=FreezableClock(self.pause, self.clock),
            narrowed=self._narrowed,
            redact=lambda text: text.replace("s3cret", "[redacted]"),
            wait_s=wait_s,
        )
        self.gate = Gate(
            root=root,
            rights=rights.model_copy(
                update={"tools": ("read_file", "write_file", "edit_file", "run_command", "fetch_url", "list_files")}
            ),
            runner=self.runner,
            emit=self._emit,
            output=lambda stream, text, task, turn, call: None,
            clock=self.clock,
            environment={},
            approvals=self.desk,
        )

    async def _emit(self, event: Event) -> None:
        if self.full:
            raise StoreFull("the disk is full")
        await asyncio.sleep(0)
        self.events.append(event)
        self._grew.set()

    async def _narrowed(self) -> None:
        self.narrowed += 1

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self._grew.clear()
                await self._grew.wait()

    def call(self, tool: str, *, task: int = 0, **arguments: Any) -> asyncio.Task[ToolReply]:
        self._calls += 1
        call = CallId(f"c{self._calls}")
        return spawn(self.gate.call(tool, arguments, call=call, task=task, turn=1), name=call)

    async def asked(self, count: int = 1) -> ApprovalRequest:
        """The newest request, once so many have been made."""
        await self.until(lambda: len(self.of(ApprovalRequested)) >= count)
        return self.of(ApprovalRequested)[-1].request

    async def answer(
        self,
        request: ApprovalRequest,
        *,
        allow: bool = True,
        scope: GrantScope = GrantScope.ONCE,
        wide: bool = False,
        ttl_s: float | None = None,
        digest: str = "",
    ) -> str:
        command = DecideApproval(
            target=RunRef(host=HostId("h"), agent=request.agent, run=request.run),
            approval=request.id,
            digest=digest or request.digest,
            allow=allow,
            scope=scope,
            wide=wide,
            ttl_s=ttl_s,
        )
        return await self.desk.decide(command, "operator@desk")
