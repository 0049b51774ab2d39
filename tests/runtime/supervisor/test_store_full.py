"""A full disk in the middle of a run: no side effect that could not be recorded, the operator told, nothing lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fakes.gateway import Answer, finish, tool_results, tool_turn
from fakes.processes import alive
from fakes.scene import Scene, scene, spec
from toka_runtime.errors import StoreFull
from toka_runtime.llm.base import ModelRequest
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.states import AgentState, StopReason

S = AgentState
BIG = "filler " * 10_000


def limit_pages(stage: Scene, pages: int) -> None:
    # A limit of the writing connection alone, and a full store takes no orders through its front door.
    stage.supervisor.store._writer._connection.execute(f"PRAGMA max_page_count={pages}").fetchall()


async def fill_up(stage: Scene) -> None:
    """No page more than there are: SQLite says SQLITE_FULL, as on a full disk. What lies in front is too big for the
    room that is left in the last page, so that nothing behind it can be written either."""
    limit_pages(stage, 1)
    stage.supervisor.store.post(ev.Noticed(level=ev.Level.INFO, code="test.filler", message=BIG))
    await stage.until(lambda: notices(stage, "store.full"))


def make_room(stage: Scene) -> None:
    limit_pages(stage, 1_000_000)


def notices(stage: Scene, code: str) -> list[ev.Noticed]:
    return [event for event in stage.of(ev.Noticed) if event.code == code]


class Script:
    """Reads, then runs a command until the test ends it, then would write."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, request: ModelRequest) -> Answer:
        self.asked.append(request.context.agent)
        done = tool_results(request)
        if done == 0:
            return tool_turn(("read_file", {"path": "hello.txt"}))
        if done == 1:
            return tool_turn(("run_command", {"command": "while ! test -e go; do sleep 0.02; done"}))
        return tool_turn(("write_file", {"path": "after.txt", "content": "too late\n"})) if done == 2 else finish()


async def test_agents_stop_at_their_next_side_effect_and_nothing_is_lost(tmp_path: Path) -> None:
    script = Script()
    needs = spec("b", body="dependencies: {required: {a: its work}}\n")
    async with scene(tmp_path, script, spec("a"), needs, spec("c")) as stage:
        await stage.start("a", "b")
        await stage.until(lambda: [e for e in stage.of(ev.ToolCallStarted, "a") if e.tool == "run_command"])
        folder = Path(stage.of(ev.WorkspaceReady, "a")[0].path)
        await fill_up(stage)
        head = stage.supervisor.store.head

        # The operator asks for one more, and the first agent's command comes to its end.
        await stage.start("c")
        (folder / "go").touch()
        async with asyncio.timeout(30):
            await stage.supervisor.settled()

        assert stage.final() == {"a": S.FAILED, "b": S.SKIPPED, "c": S.FAILED}
        assert stage.agent("a").reason is stage.agent("c").reason is StopReason.STORE_FAILED
        assert not (folder / "after.txt").exists(), "no side effect that is not on record"
        assert script.asked.count("a") == 2, "and no model call"
        assert set(script.asked) == {"a"}, "nothing was started any more"
        assert stage.supervisor.store.head == head
        told = notices(stage, "store.full")
        assert len(told) == 1
        assert told[0].level is ev.Level.ERROR
        assert told[0].hint
        assert not stage.of(ev.ProcessStarted, "c")

        make_room(stage)
        await stage.until(lambda: notices(stage, "store.recovered"))
        ends = {e.agent: e.event for e in stage.log if isinstance(e.event, ev.AgentStateChanged)}
        assert {name: event.after for name, event in ends.items()} == stage.final()
        assert ends["a"].reason is StopReason.STORE_FAILED
        assert stage.of(ev.ProcessEnded, "a")[-1].survivors == ()
        durable = [e.seq for e in stage.log if e.durable]
        assert durable == list(range(durable[0], durable[0] + len(durable)))

        kept = await stage.supervisor.store.read(after_seq=head)
        assert {"agent.state_changed", "agent.process_ended", "runtime.noticed"} <= {e.event.kind for e in kept}
        assert [e.seq for e in kept] == list(range(head + 1, head + 1 + len(kept)))


async def test_a_run_asked_for_after_the_space_is_back_completes(tmp_path: Path) -> None:
    async with scene(tmp_path, lambda request: finish(), spec("a")) as stage:
        await fill_up(stage)
        await stage.start("a")
        async with asyncio.timeout(30):
            await stage.supervisor.settled()
        assert stage.agent("a").reason is StopReason.STORE_FAILED
        make_room(stage)
        await stage.until(lambda: notices(stage, "store.recovered"))
        await stage.run("a")
        assert stage.final() == {"a": S.COMPLETED}


async def test_closing_with_a_full_store_ends_and_leaves_no_process(tmp_path: Path) -> None:
    hang = asyncio.Event()
    async with scene(tmp_path, lambda request: hang, spec("a")) as stage:
        await stage.start()
        await stage.until(lambda: stage.of(ev.ModelCallStarted, "a"))
        pid = stage.of(ev.ProcessStarted, "a")[0].process.pid
        await fill_up(stage)
        with pytest.raises(StoreFull, match="could not be written"):
            await stage.supervisor.aclose("with a full disk")
        assert alive({pid}) == set()
        async with asyncio.timeout(30):
            await stage.ended.wait()
