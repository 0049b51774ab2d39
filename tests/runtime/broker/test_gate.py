"""The gate with real tools in real child processes: order of events, denials, failure of the store, cancelling."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.clock import FakeClock
from fakes.forked_tools import ForkedToolRunner
from toka_runtime.broker.gate import Gate, ToolReply
from toka_runtime.errors import ProcessError, StoreFull
from toka_runtime.policy.catalogue import load_catalogue
from toka_runtime.policy.rules import compile_rights
from toka_runtime.protocol.capability import Layer, OperationKind, Rights
from toka_runtime.protocol.events import (
    Event,
    OperationAllowed,
    OperationDenied,
    Stream,
    ToolCallEnded,
    ToolCallStarted,
)
from toka_runtime.protocol.ids import AgentName, CallId
from toka_runtime.protocol.spec import AgentSpec, ScopedGrant, Security
from toka_runtime.sandbox.plan import OutputChunk, RefusalSink, ToolOutcome, ToolRequest


def rights(*declared: str, **grants: list[str]) -> Rights:
    spec = AgentSpec(
        name=AgentName("a"),
        security=Security(capabilities_required=declared),
        grants=tuple(ScopedGrant(capability=k.replace("_", "-"), scopes=tuple(v)) for k, v in grants.items()),
    )
    return compile_rights(spec, load_catalogue())


class Desk:
    """A gate and everything that goes in and comes out of it."""

    def __init__(self, root: Path, found: Rights, runner: Any = None, **more: Any) -> None:
        self.root = root
        self.events: list[Event] = []
        self.text: list[tuple[Stream, str]] = []
        self.clock = FakeClock()
        self.runner = runner or ForkedToolRunner()
        self.full_after: int | None = None
        self.gate = Gate(
            root=root,
            rights=found,
            runner=self.runner,
            emit=self.emit,
            output=lambda stream, text, task, turn, call: self.text.append((stream, text)),
            clock=self.clock,
            environment={"PATH": os.environ["PATH"]},
            **more,
        )
        self._calls = 0

    async def emit(self, event: Event) -> None:
        if self.full_after is not None and len(self.events) >= self.full_after:
            raise StoreFull("the disk is full")
        await asyncio.sleep(0)
        self.events.append(event)

    async def call(self, tool: str, arguments: object = None, **named: Any) -> ToolReply:
        self._calls += 1
        asked = named if arguments is None else arguments
        return await self.gate.call(tool, asked, call=CallId(f"c{self._calls}"), task=0, turn=1)

    @property
    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    def denials(self) -> list[OperationDenied]:
        return [event for event in self.events if isinstance(event, OperationDenied)]

    def ended(self) -> ToolCallEnded:
        (event,) = [event for event in self.events if isinstance(event, ToolCallEnded)]
        return event


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    (root / "hello.txt").write_text("hello\n")
    return root


async def test_an_allowed_call(root: Path) -> None:
    desk = Desk(root, rights())
    reply = await desk.call("read_file", path="./hello.txt")
    assert reply == ToolReply("     1\thello", is_error=False)
    started, allowed, ended = desk.events
    assert isinstance(started, ToolCallStarted)
    assert (started.tool, started.target, started.arguments) == ("read_file", "hello.txt", {"path": "./hello.txt"})
    assert isinstance(allowed, OperationAllowed)
    assert (allowed.operation, allowed.target, allowed.capability, allowed.call) == (
        "fs.read",
        "hello.txt",
        "filesystem-read",
        "c1",
    )
    assert isinstance(ended, ToolCallEnded)
    assert (ended.outcome, ended.summary) == ("ok", "     1\thello")
    assert len(ended.result_digest) == 64


async def test_a_denied_call_is_not_carried_out(root: Path) -> None:
    desk = Desk(root, rights("filesystem-write", filesystem_write=["docs/**"]))
    reply = await desk.call("write_file", path="src/x", content="y")
    assert desk.kinds == ["ToolCallStarted", "OperationDenied", "ToolCallEnded"]
    denial = desk.denials()[0].denial
    assert (denial.capability, denial.layer, denial.operation.target) == ("filesystem-write", Layer.POLICY, "src/x")
    assert reply.is_error
    assert "missing capability: filesystem-write; rule: deny:not-granted" in reply.content
    assert desk.ended().outcome == "denied"
    assert desk.runner.requests == []
    assert not (root / "src").exists()


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("read_file", {"path": "../secret"}),
        ("read_file", {"path": "link"}),
        ("write_file", {"path": "/tmp/x", "content": ""}),
        ("write_file", {"path": ".git/hooks/pre-commit", "content": "#!/bin/sh"}),
        ("edit_file", {"path": "out/secret", "old_string": "s", "new_string": "t"}),
        ("list_files", {"path": ".."}),
        ("search_text", {"path": "/", "pattern": "x"}),
        ("run_command", {"command": "cat ../secret"}),
        ("run_command", {"command": "cat link"}),
        ("run_command", {"command": "git status; git push"}),
        ("run_command", {"command": "git status > /tmp/x"}),
        ("run_command", {"command": "echo $(cat ../secret)"}),
        ("run_command", {"command": "rm -rf ."}),
        ("run_command", {"command": "cp link mine"}),
    ],
)
async def test_ways_out_are_denied(root: Path, tool: str, arguments: dict[str, Any]) -> None:
    (root.parent / "secret").write_text("s")
    (root / "link").symlink_to("../secret")
    (root / "out").symlink_to("..")
    desk = Desk(root, rights("filesystem-write", "git-access"))
    reply = await desk.call(tool, arguments)
    assert reply.is_error
    assert desk.denials()
    assert desk.runner.requests == []
    assert "OperationAllowed" not in desk.kinds, "what was not carried out was not allowed either"


async def test_a_tool_that_is_not_offered_names_its_target(root: Path) -> None:
    desk = Desk(root, rights())
    reply = await desk.call("fetch_url", url="https://example.com/x")
    denial = desk.denials()[0].denial
    assert (denial.operation.kind, denial.operation.target) == (OperationKind.CONNECT, "example.com:443")
    assert denial.capability == "network-access"
    assert reply.is_error


@pytest.mark.parametrize(("tool", "arguments"), [("format_disk", {}), ("run_command", {"x": 1}), ("write_file", None)])
async def test_unknown_and_unoffered_tools(root: Path, tool: str, arguments: Any) -> None:
    desk = Desk(root, rights())
    reply = await desk.gate.call(tool, arguments, call=CallId("c"), task=0, turn=0)
    assert reply.is_error
    (event,) = desk.denials()
    assert (event.denial.operation.kind, event.denial.operation.target) == (OperationKind.TOOL, tool)
    assert event.denial.rule == "deny:tool-not-offered"


async def test_invalid_arguments_are_answered(root: Path) -> None:
    desk = Desk(root, rights())
    reply = await desk.call("read_file", file="x")
    assert desk.kinds == ["ToolCallStarted", "ToolCallEnded"]
    assert reply.is_error
    assert "there is no argument 'file'" in reply.content
    assert desk.ended().outcome == "error"


async def test_finish_needs_no_child(root: Path) -> None:
    desk = Desk(root, rights())
    reply = await desk.call("finish", status="blocked", summary="no network", evidence=["denied"])
    assert reply.finish is not None
    assert (reply.finish.status, reply.finish.summary, reply.finish.evidence) == ("blocked", "no network", ("denied",))
    assert not reply.is_error
    assert desk.runner.requests == []


async def test_a_failing_command_is_an_error_with_its_output(root: Path) -> None:
    desk = Desk(root, rights("script-execution"))
    reply = await desk.call("run_command", command="echo out; echo err >&2; exit 3")
    assert reply.is_error
    assert reply.content.startswith("out\n") or reply.content.startswith("err\n")
    assert reply.content.endswith("(exit code 3)")
    assert {(stream, text) for stream, text in desk.text} == {(Stream.STDOUT, "out\n"), (Stream.STDERR, "err\n")}
    assert desk.ended().outcome == "error"


async def test_any_program_may_use_the_whole_shell(root: Path) -> None:
    desk = Desk(root, rights("script-execution"))
    reply = await desk.call("run_command", command="for i in 1 2; do echo n$i; done")
    assert reply.content == "n1\nn2"


async def test_live_text_is_whole_characters(root: Path) -> None:
    desk = Desk(root, rights("script-execution"))
    await desk.call("run_command", command=r"printf '\303'; sleep 0.05; printf '\251\n'; printf '\377'")
    assert "".join(text for _, text in desk.text) == "é\n�"


class TestSecrets:
    SECRET = "hunter2-hunter2-hunter2"

    def redact(self, text: str) -> str:
        return text.replace(self.SECRET, "[redacted]")

    async def test_nothing_shows_one(self, root: Path) -> None:
        (root / "key").write_text(self.SECRET)
        desk = Desk(root, rights("script-execution"), redact=self.redact)
        half = len(self.SECRET) // 2
        command = f"printf {self.SECRET[:half]}; sleep 0.05; echo {self.SECRET[half:]}; cat key"
        replies = [
            await desk.call("run_command", command=command),
            await desk.call("run_command", command=f"nonexistent-{self.SECRET}"),
            await desk.call("read_file", path="key"),
            await desk.call("read_file", path=f"/tmp/{self.SECRET}"),
            await desk.call("read_file", {"path": "x", self.SECRET: [{"deep": self.SECRET}]}),
            await desk.call("read_file", {"path": "a" * 1990 + self.SECRET}),
        ]
        shown = "".join(event.model_dump_json() for event in desk.events) + "".join(text for _, text in desk.text)
        assert self.SECRET not in shown
        assert self.SECRET not in "".join(reply.content for reply in replies[:3])
        assert "[redacted]" in shown


async def test_long_arguments_are_cut_for_show(root: Path) -> None:
    desk = Desk(root, rights("filesystem-write"))
    await desk.call("write_file", path="big", content="x" * 100_000)
    started = desk.events[0]
    assert isinstance(started, ToolCallStarted)
    assert len(started.arguments["content"]) < 2100
    assert started.arguments["content"].endswith("… +98,000 characters")
    assert (root / "big").stat().st_size == 100_000


class TestFullStore:
    @pytest.mark.parametrize("events", [0, 1])
    async def test_nothing_is_executed(self, root: Path, events: int) -> None:
        desk = Desk(root, rights("filesystem-write"))
        desk.full_after = events
        with pytest.raises(StoreFull):
            await desk.call("write_file", path="x", content="y")
        assert desk.runner.requests == []
        assert not (root / "x").exists()

    async def test_a_result_that_cannot_be_told_is_not_given(self, root: Path) -> None:
        desk = Desk(root, rights("filesystem-write"))
        desk.full_after = 2
        with pytest.raises(StoreFull):
            await desk.call("write_file", path="x", content="y")
        assert (root / "x").exists(), "it was done before; the journal says begun, not ended"


async def test_cancelling_is_told(root: Path) -> None:
    desk = Desk(root, rights("script-execution"))
    async with asyncio.timeout(10):
        task = asyncio.get_running_loop().create_task(desk.call("run_command", command="sleep 300"))
        await desk.runner.started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert desk.ended().outcome == "cancelled"


class GoneRunner:
    async def run_tool(
        self, request: ToolRequest, on_output: OutputChunk, on_refused: RefusalSink | None = None
    ) -> ToolOutcome:
        raise ProcessError("the tree is gone")


async def test_a_tree_that_is_gone_leaves_the_outcome_unknown(root: Path) -> None:
    desk = Desk(root, rights(), GoneRunner())
    with pytest.raises(ProcessError):
        await desk.call("read_file", path="hello.txt")
    assert desk.ended().outcome == "unknown"


class SwappingRunner(ForkedToolRunner):
    """Puts a link where the decided path was, between decision and execution."""

    async def run_tool(
        self, request: ToolRequest, on_output: OutputChunk, on_refused: RefusalSink | None = None
    ) -> ToolOutcome:
        folder = Path(request.root) / "docs"
        folder.rmdir()
        folder.symlink_to("..")
        return await super().run_tool(request, on_output)


async def test_a_race_is_lost_by_the_agent(root: Path) -> None:
    (root / "docs").mkdir()
    desk = Desk(root, rights("filesystem-write"), SwappingRunner())
    reply = await desk.call("write_file", path="docs/planted", content="x")
    assert reply.is_error
    assert not (root.parent / "planted").exists()
    (event,) = desk.denials()
    assert (event.denial.layer, event.denial.rule) == (Layer.SANDBOX, "sandbox:refused")
    assert event.denial.operation.target == "docs/planted"
    assert desk.ended().outcome == "denied"


async def test_rights_may_change_between_calls(root: Path) -> None:
    desk = Desk(root, rights("filesystem-write"))
    assert not (await desk.call("write_file", path="a", content="")).is_error
    desk.gate.rights = rights()
    assert (await desk.call("write_file", path="b", content="")).is_error


async def test_protected_files_are_not_found(root: Path) -> None:
    (root / "id_rsa").write_text("TOKEN")
    desk = Desk(root, rights())
    assert "TOKEN" not in (await desk.call("search_text", pattern="TOKEN")).content
    assert "id_rsa" not in (await desk.call("list_files")).content
    assert (await desk.call("read_file", path="id_rsa")).is_error


class TestFolding:
    async def test_the_first_at_once_the_rest_counted(self, root: Path) -> None:
        desk = Desk(root, rights())
        for _ in range(5):
            await desk.call("read_file", path="/etc/shadow")
        assert [event.count for event in desk.denials()] == [1]
        await desk.clock.until_sleeping()
        await desk.clock.advance(1.0)
        while len(desk.denials()) < 2:
            await asyncio.sleep(0)
        assert [event.count for event in desk.denials()] == [1, 4]
        await desk.gate.flush()
        assert [event.count for event in desk.denials()] == [1, 4]

    async def test_the_end_tells_the_rest(self, root: Path) -> None:
        desk = Desk(root, rights())
        for _ in range(3):
            await desk.call("read_file", path="/etc/shadow")
        await desk.gate.flush()
        assert [event.count for event in desk.denials()] == [1, 2]

    async def test_others_are_not_held_back(self, root: Path) -> None:
        desk = Desk(root, rights())
        for path in ("/a", "/b", "/a", "/b"):
            await desk.call("read_file", path=path)
        assert [event.denial.operation.target for event in desk.denials()] == ["/a", "/b"]
        await desk.gate.flush()

    async def test_a_full_store_loses_no_count(self, root: Path) -> None:
        desk = Desk(root, rights())
        for _ in range(3):
            await desk.call("read_file", path="/a")
        desk.full_after = len(desk.events)
        with pytest.raises(StoreFull):
            await desk.gate.flush()
        desk.full_after = None
        await desk.gate.flush()
        assert sum(event.count for event in desk.denials()) == 3

    @given(st.lists(st.tuples(st.integers(0, 300), st.floats(0, 2)), max_size=40))
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    async def test_none_is_ever_lost(self, root: Path, asked: list[tuple[int, float]]) -> None:
        desk = Desk(root, rights())
        for number, pause in asked:
            await desk.call("read_file", path=f"/{number}")
            await desk.clock.advance(pause)
        await desk.gate.flush()
        assert sum(event.count for event in desk.denials()) == len(asked)


async def test_admit_for_what_is_done_elsewhere(root: Path) -> None:
    from toka_runtime.protocol.capability import Denial, Operation

    desk = Desk(root, rights().model_copy(update={"model": False}))
    decision = await desk.gate.admit(Operation(kind=OperationKind.MODEL, target="m"), task=2)
    assert isinstance(decision, Denial)
    assert [(event.task, event.denial.capability) for event in desk.denials()] == [(2, "model-access")]
