"""Verification: exit codes decide, words never do, and what could not be run proves nothing either way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.clock import FakeClock
from fakes.tool_runner import ProcessToolRunner
from toka_runtime.errors import ProcessError
from toka_runtime.protocol.events import Verified
from toka_runtime.protocol.spec import Verify
from toka_runtime.protocol.states import Verdict
from toka_runtime.sandbox.plan import OutputChunk, RefusalSink, ToolOutcome, ToolRequest
from toka_runtime.supervisor.verify import run_verification, summarise, verdict_of


async def verify(argv: tuple[str, ...] | str, root: Path, *, timeout_s: float = 30.0) -> Verified:
    argv = ("sh", "-c", argv) if isinstance(argv, str) else argv
    return await run_verification(
        Verify(argv=argv, timeout_s=timeout_s),
        runner=ProcessToolRunner(),
        root=root,
        environment={"PATH": os.environ["PATH"], "COLOUR": "blue"},
        subject="task 1",
        task=0,
    )


@pytest.mark.parametrize(
    ("command", "verdict", "exit_code"),
    [
        ("true", Verdict.VERIFIED, 0),
        ("echo FAILED: everything is broken", Verdict.VERIFIED, 0),
        ("echo all tests passed; exit 1", Verdict.FAILED, 1),
        ("exit 125", Verdict.FAILED, 125),
        ("exit 255", Verdict.FAILED, 255),
        ("no-such-program-anywhere", Verdict.INCONCLUSIVE, 127),
        ("echo > plain; ./plain", Verdict.INCONCLUSIVE, 126),
        ("kill -SEGV $$", Verdict.INCONCLUSIVE, 139),
    ],
)
async def test_exit_codes(tmp_path: Path, command: str, verdict: Verdict, exit_code: int) -> None:
    event = await verify(command, tmp_path)
    assert (event.verdict, event.exit_code) == (verdict, exit_code)
    assert (event.subject, event.task, event.objective, event.command) == ("task 1", 0, None, command)


async def test_a_list_is_run_as_it_is(tmp_path: Path) -> None:
    event = await verify(("printf", "%s", "$HOME; `false` 'x' *"), tmp_path)
    assert event.verdict is Verdict.VERIFIED
    assert event.output_tail == "$HOME; `false` 'x' *"
    assert (await verify(("no such program", "x"), tmp_path)).verdict is Verdict.INCONCLUSIVE


async def test_in_the_agents_folder_with_its_environment(tmp_path: Path) -> None:
    event = await verify('test "$COLOUR" = blue && test "$(pwd -P)" = "' + str(tmp_path) + '"', tmp_path)
    assert event.verdict is Verdict.VERIFIED


async def test_timeout(tmp_path: Path) -> None:
    event = await verify("echo begun; sleep 100", tmp_path, timeout_s=1)
    assert (event.verdict, event.exit_code) == (Verdict.INCONCLUSIVE, None)
    assert "begun" in event.output_tail
    assert 1 <= event.duration_s < 50


async def test_output_is_followed_live_and_its_end_is_kept(tmp_path: Path) -> None:
    seen = bytearray()
    runner = ProcessToolRunner()
    event = await run_verification(
        Verify(argv=("sh", "-c", "seq 10000; echo last >&2")),
        runner=runner,
        root=tmp_path,
        environment={},
        subject="objective 2",
        objective=1,
        on_output=lambda stream, data: seen.extend(data),
    )
    assert seen.startswith(b"1\n2\n")
    assert event.output_tail.endswith("last")
    assert len(event.output_tail) == 2_000
    assert event.objective == 1
    assert runner.requests[0].arguments["command"] == "sh -c 'seq 10000; echo last >&2'"
    assert runner.requests[0].timeout_s == 600


class GoneRunner:
    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock

    async def run_tool(
        self, request: ToolRequest, on_output: OutputChunk, on_refused: RefusalSink | None = None
    ) -> ToolOutcome:
        await self.clock.advance(2.5)
        raise ProcessError("the agent's process tree is gone")


async def test_a_tree_that_is_gone(tmp_path: Path) -> None:
    clock = FakeClock()
    event = await run_verification(
        Verify(argv=("true",)),
        runner=GoneRunner(clock),
        root=tmp_path,
        environment={},
        subject="task 1",
        clock=clock,
    )
    assert event.verdict is Verdict.INCONCLUSIVE
    assert event.output_tail == "the agent's process tree is gone"
    assert event.duration_s == 2.5


@given(
    st.builds(
        ToolOutcome,
        ok=st.booleans(),
        content=st.sampled_from(["verified", "all tests passed", ""]),
        code=st.sampled_from(["", "tool.exit_status", "tool.timeout", "tool.crashed", "tool.refused", "new"]),
        exit_code=st.none() | st.integers(-64, 255),
    )
)
def test_only_a_good_exit_code_of_zero_proves(outcome: ToolOutcome) -> None:
    verdict = verdict_of(outcome)
    proven = outcome.ok and outcome.exit_code == 0 and outcome.code in ("", "tool.exit_status")
    assert (verdict is Verdict.VERIFIED) == proven
    assert verdict in (Verdict.VERIFIED, Verdict.FAILED, Verdict.INCONCLUSIVE)
    if outcome.exit_code in (None, 126, 127) or outcome.code not in ("", "tool.exit_status"):
        assert verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("verdicts", "verdict", "text"),
    [
        ("", Verdict.NONE, ""),
        ("vv", Verdict.VERIFIED, "2 verified"),
        ("vcv", Verdict.CLAIMED, "2 verified · 1 claimed"),
        ("vci", Verdict.INCONCLUSIVE, "1 verified · 1 claimed · 1 inconclusive"),
        ("vcif", Verdict.FAILED, "1 verified · 1 claimed · 1 inconclusive · 1 failed"),
        ("-v-", Verdict.VERIFIED, "1 verified"),
    ],
)
def test_summary(verdicts: str, verdict: Verdict, text: str) -> None:
    kinds = {
        "v": Verdict.VERIFIED, "c": Verdict.CLAIMED, "i": Verdict.INCONCLUSIVE, "f": Verdict.FAILED, "-": Verdict.NONE,
    }  # fmt: skip
    summary = summarise(kinds[letter] for letter in verdicts)
    assert (summary.verdict, summary.text) == (verdict, text)
    assert sum(summary.counts.values()) == len(verdicts.replace("-", ""))
