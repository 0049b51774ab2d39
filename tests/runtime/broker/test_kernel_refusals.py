"""What an observer tells of a call becomes denials of this call, in the terms of policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.clock import FakeClock
from toka_runtime.broker.gate import Gate
from toka_runtime.broker.kernel_refusals import MANY
from toka_runtime.errors import StoreFull
from toka_runtime.policy.catalogue import load_catalogue
from toka_runtime.policy.rules import compile_rights
from toka_runtime.protocol.capability import Layer, OperationKind
from toka_runtime.protocol.events import Event, OperationDenied
from toka_runtime.protocol.ids import AgentName, CallId
from toka_runtime.protocol.spec import AgentSpec, Security
from toka_runtime.sandbox.plan import KernelRefusal, OutputChunk, RefusalSink, ToolOutcome, ToolRequest


class ObservedRunner:
    def __init__(self, *refusals: KernelRefusal) -> None:
        self._refusals = refusals

    async def run_tool(
        self, request: ToolRequest, on_output: OutputChunk, on_refused: RefusalSink | None = None
    ) -> ToolOutcome:
        assert on_refused is not None
        for refusal in self._refusals:
            await on_refused(refusal)
        return ToolOutcome(ok=True, content="done")


class Desk:
    def __init__(self, root: Path, *refusals: KernelRefusal) -> None:
        spec = AgentSpec(name=AgentName("a"), security=Security(capabilities_required=("script-execution",)))
        self.events: list[Event] = []
        self.full = False
        self.gate = Gate(
            root=root,
            rights=compile_rights(spec, load_catalogue()),
            runner=ObservedRunner(*refusals),
            emit=self._emit,
            output=lambda stream, text, task, turn, call: None,
            clock=FakeClock(),
            environment={},
        )

    async def _emit(self, event: Event) -> None:
        if self.full and isinstance(event, OperationDenied):
            raise StoreFull("full")
        self.events.append(event)

    async def run(self) -> list[OperationDenied]:
        await self.gate.call("run_command", {"command": "true"}, call=CallId("c7"), task=3, turn=1)
        return [event for event in self.events if isinstance(event, OperationDenied)]


async def test_a_refusal_is_a_denial_of_its_call(tmp_path: Path) -> None:
    desk = Desk(tmp_path, KernelRefusal(kind=OperationKind.WRITE, target="/usr/x", rule="sandbox:landlock"))
    (event,) = await desk.run()
    operation = event.denial.operation
    assert (operation.kind, operation.target) == (OperationKind.WRITE, "/usr/x")
    assert (operation.tool, operation.call, event.task) == ("run_command", "c7", 3)
    assert (event.denial.layer, event.denial.rule) == (Layer.SANDBOX, "sandbox:landlock")


async def test_the_capability_that_would_have_allowed_it_is_named(tmp_path: Path) -> None:
    refusals = (
        KernelRefusal(kind=OperationKind.WRITE, target=f"{tmp_path}/docs/a.md", rule="sandbox:landlock"),
        KernelRefusal(kind=OperationKind.LISTEN, target="127.0.0.1:80", rule="sandbox:landlock"),
    )
    write, listen = await Desk(tmp_path, *refusals).run()
    assert write.denial.operation.target == "docs/a.md"
    assert write.denial.capability == "filesystem-write"
    assert listen.denial.capability == ""


async def test_counts_are_kept_and_many_targets_have_a_name(tmp_path: Path) -> None:
    refusal = KernelRefusal(kind=OperationKind.READ, target="", rule="sandbox:landlock", count=9744)
    desk = Desk(tmp_path, refusal, refusal)
    (first,) = await desk.run()
    assert (first.denial.operation.target, first.count) == (MANY, 9744)
    await desk.gate.flush()
    events = [event for event in desk.events if isinstance(event, OperationDenied)]
    assert sum(event.count for event in events) == 2 * 9744


async def test_what_cannot_be_told_ends_the_call(tmp_path: Path) -> None:
    desk = Desk(tmp_path, KernelRefusal(kind=OperationKind.READ, target="/x", rule="sandbox:view"))
    desk.full = True
    with pytest.raises(StoreFull):
        await desk.run()
