"""run_command with real processes, each in a forked child as in production."""

from __future__ import annotations

import asyncio
import hashlib
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from fakes.forked_tools import ForkedToolRunner
from toka_runtime.protocol.ids import CallId
from toka_runtime.sandbox.plan import ToolOutcome, ToolRequest
from toka_runtime.worker.toolbox import command


async def run(root: Path, line: str, **more: Any) -> tuple[ToolOutcome, bytes]:
    live = bytearray()
    request = ToolRequest.model_validate(
        {
            "call": CallId("c1"),
            "tool": "run_command",
            "arguments": {"command": line},
            "root": str(root),
            "environment": {"PATH": os.environ["PATH"]},
            "timeout_s": 20,
        }
        | more
    )
    outcome = await ForkedToolRunner().run_tool(request, lambda stream, data: live.extend(data))
    return outcome, bytes(live)


def ends(pid: int) -> bool:
    """Wait for the end of a process that has been told to end."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with os.fdopen(handle) as file:
        return bool(select.select([file], [], [], 5)[0])


async def test_output_and_exit_code(tmp_path: Path) -> None:
    outcome, live = await run(tmp_path, "pwd; echo err >&2; exit 3")
    assert (outcome.ok, outcome.code, outcome.exit_code) == (False, "tool.exit_status", 3)
    assert str(tmp_path) in outcome.content
    assert outcome.content.endswith("(exit code 3)")
    assert b"err\n" in live


async def test_success_without_output(tmp_path: Path) -> None:
    outcome, _ = await run(tmp_path, "true")
    assert (outcome.ok, outcome.exit_code, outcome.content) == (True, 0, "(no output)")


async def test_a_signal_is_named(tmp_path: Path) -> None:
    outcome, _ = await run(tmp_path, "kill -SEGV $$")
    assert outcome.exit_code == 128 + signal.SIGSEGV
    assert "SIGSEGV" in outcome.content


async def test_no_input(tmp_path: Path) -> None:
    outcome, _ = await run(tmp_path, "read -r x || echo nothing to read")
    assert outcome.content == "nothing to read"


async def test_the_environment_is_what_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "leaked")
    (tmp_path / "rc").write_text("echo sourced\n")
    environment = {
        "PATH": "/usr/bin:/bin",
        "A": "b",
        "BASH_ENV": str(tmp_path / "rc"),
        "BASH_FUNC_ls%%": "() { echo f; }",
    }
    outcome, _ = await run(tmp_path, "env | sort", environment=environment)
    names = {line.partition("=")[0] for line in outcome.content.splitlines()}
    assert names == {"A", "PATH", "PWD", "SHLVL", "_"}


async def test_huge_output_keeps_head_tail_and_digest(tmp_path: Path) -> None:
    outcome, live = await run(tmp_path, "seq 1 200000", output_cap_bytes=4000)
    whole = "".join(f"{n}\n" for n in range(1, 200_001)).encode()
    assert len(outcome.content.encode()) <= 4000
    assert outcome.content.startswith("1\n2\n")
    assert outcome.content.endswith("200000")
    assert "bytes left out" in outcome.content
    assert outcome.digest == hashlib.sha256(whole).hexdigest() == hashlib.sha256(live).hexdigest()
    assert outcome.result_bytes == len(whole)


async def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    outcome, _ = await run(tmp_path, r"head -c 100000 /dev/zero | tr '\0' '\377'", output_cap_bytes=4000)
    assert len(outcome.content.encode()) <= 4000
    assert set(outcome.content.split("\n")[0]) == {"�"}


async def test_a_command_that_ignores_term_ends_at_the_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "TERM_GRACE_S", 0.2)
    script = "trap '' TERM; echo $$; (trap '' TERM; setsid sleep 300) & while :; do sleep 0.05; done"
    outcome, live = await run(tmp_path, script, timeout_s=1)
    assert outcome.code == "tool.timeout"
    assert "stopped after 1 s" in outcome.content
    assert ends(int(live.split()[0]))


async def test_time_to_say_goodbye(tmp_path: Path) -> None:
    outcome, _ = await run(tmp_path, "trap 'echo bye; exit' TERM; while :; do sleep 0.05; done", timeout_s=1)
    assert outcome.code == "tool.timeout"
    assert "bye" in outcome.content


async def test_what_is_left_behind_ends(tmp_path: Path) -> None:
    (tmp_path / "daemon.py").write_text(
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        open('ready', 'w').write(str(os.getpid()))\n"
        "        time.sleep(300)\n"
    )
    os.mkfifo(tmp_path / "ready")
    outcome, live = await run(tmp_path, f"{sys.executable} daemon.py & cat ready")
    assert outcome.ok
    assert "left running in the background: ended" in outcome.content
    assert ends(int(live.split()[0]))


async def test_a_pipe_that_stays_open_does_not_hold_the_result(tmp_path: Path) -> None:
    async with asyncio.timeout(5):
        outcome, _ = await run(tmp_path, "sleep 300 & echo done")
    assert outcome.content.startswith("done")


async def test_cancelling_ends_the_command(tmp_path: Path) -> None:
    runner = ForkedToolRunner()
    said = asyncio.Event()
    pids: list[int] = []

    def output(stream: str, data: bytes) -> None:
        pids.extend(int(word) for word in data.split())
        said.set()

    request = ToolRequest(
        call=CallId("c"), tool="run_command", arguments={"command": "echo $$; sleep 300"}, root=str(tmp_path)
    )
    async with asyncio.timeout(10):
        task = asyncio.get_running_loop().create_task(runner.run_tool(request, output))
        await said.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert ends(pids[0])


async def test_argv_without_a_shell(tmp_path: Path) -> None:
    outcome, _ = await run(tmp_path, "", arguments={"argv": ["printf", "%s", "$HOME; a b"]})
    assert outcome.content == "$HOME; a b"
    missing, _ = await run(tmp_path, "", arguments={"argv": ["no-such-program-here"]})
    assert missing.code == "tool.not_found"


async def test_a_pause_does_not_count(tmp_path: Path) -> None:
    """The tool child and its command are stopped for longer than the timeout, and go on to the end."""
    runner = ForkedToolRunner()
    said = asyncio.Event()
    request = ToolRequest(
        call=CallId("c"),
        tool="run_command",
        arguments={"command": "echo started; read -r x < go; echo finished"},
        root=str(tmp_path),
        environment={"PATH": os.environ["PATH"]},
        timeout_s=1.5,
    )
    os.mkfifo(tmp_path / "go")
    async with asyncio.timeout(15):
        task = asyncio.get_running_loop().create_task(runner.run_tool(request, lambda stream, data: said.set()))
        await said.wait()
        os.kill(runner.pids[0], signal.SIGSTOP)
        await asyncio.sleep(2)  # longer than the timeout, in real time: it is the child's clock that counts
        os.kill(runner.pids[0], signal.SIGCONT)
        with open(tmp_path / "go", "w") as go:
            go.write("x\n")
        outcome = await task
    assert outcome.ok, outcome
    assert "finished" in outcome.content
