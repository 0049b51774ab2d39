"""Agents as real process trees: birth, what they hold and lack, tools, and their end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fakes.agents import FAKES, RunningTool, Watched, fork_server, plan, request, running, states, tree_of
from fakes.clock import FakeClock
from toka_runtime.aio import spawn
from toka_runtime.errors import ProcessError, ProtocolError, SandboxUnavailable
from toka_runtime.sandbox import process as process_module
from toka_runtime.sandbox.channel import FrameChannel
from toka_runtime.sandbox.launcher import ForkServer
from toka_runtime.sandbox.plan import AgentProcess
from toka_runtime.sandbox.requests import ControlPeer


def silent(stream: str, data: bytes) -> None: ...


async def test_launch_gives_a_worker_that_is_ready(tmp_path: Path) -> None:
    async with fork_server() as server:
        process = await server.launch(plan(tmp_path, "documentation"))
        assert await process.channel.receive() == {"t": "ready", "pid": process.worker_pid}
        shim, worker = process.process.pid, process.worker_pid
        stat = Path(f"/proc/{shim}/stat").read_text()
        assert int(stat.rpartition(")")[2].split()[19]) == process.process.started_ticks
        assert Path(f"/proc/{shim}/comm").read_text().strip() == "toka:documentat"[:15]
        assert Path(f"/proc/{worker}/cmdline").read_bytes().startswith(b"toka:documentation worker"[:15])
        assert tree_of(process) == [shim, worker]
        assert os.readlink(f"/proc/{worker}/cwd") == str(tmp_path)


async def test_it_works_through_a_task_and_says_goodbye(tmp_path: Path) -> None:
    async with fork_server() as server:
        process = await server.launch(plan(tmp_path))
        channel = process.channel
        assert (await channel.receive() or {})["t"] == "ready"
        await channel.send({"t": "hello", "system": [], "tools": [], "limits": {}})
        await channel.send({"t": "task", "task": 3, "attempt": 1, "prompt": "Do it.", "history": []})
        asked = await channel.receive() or {}
        assert asked["append"] == [{"role": "user", "content": "Do it."}]
        await channel.send({"t": "model.result", "id": asked["id"], "ok": False, "code": "model.refused"})
        done = await channel.receive() or {}
        assert (done["t"], done["task"], done["code"]) == ("task.done", 3, "model.refused")
        await channel.send({"t": "bye"})
        assert await process.wait() == 0
        assert await process.wait() == 0
        assert await channel.receive() is None
        with pytest.raises(ProcessError):
            await channel.send({"t": "bye"})
        proof = await process.kill()
        assert proof.confirmed
        assert await process.kill() is proof


async def test_the_worker_has_nothing_that_it_does_not_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "canary")
    held_open = os.pipe()
    os.set_inheritable(held_open[1], True)
    errors: list[bytes] = []
    async with fork_server(
        worker_main="toy_tools:worker_facts", on_stderr=lambda plan, data: errors.append(data)
    ) as server:
        process = await server.launch(plan(tmp_path, environment={"SECRET": "for tools only"}))
        facts = await process.channel.receive() or {}
        await check_birth(facts, process, tmp_path, descriptors={"0", "1", "2", "3"})
        assert facts["environment"] == {}
        for pid in (process.process.pid, process.worker_pid, server.zygote_pid):
            assert b"canary" not in Path(f"/proc/{pid}/environ").read_bytes()
        await process.channel.send({"t": "end"})
        assert await process.wait() == 5
        await process.kill()
    assert b"".join(errors) == b"a word on stderr\n"
    for descriptor in held_open:
        os.close(descriptor)


async def test_a_tool_has_even_less(tmp_path: Path) -> None:
    async with fork_server() as server:
        process = await server.launch(plan(tmp_path, environment={"A": "1", "B": "1"}))
        asked = request(tmp_path, "facts").model_copy(update={"environment": {"B": "2"}})
        outcome = await process.run_tool(asked, silent)
        facts = json.loads(outcome.content)
        await check_birth(facts, process, tmp_path, descriptors={"0", "1", "2", "3"})
        assert facts["environment"] == {"A": "1", "B": "2"}
        assert facts["descriptors"]["2"] == "/dev/null"
        assert facts["session"] == facts["pid"]


async def check_birth(facts: dict[str, Any], process: AgentProcess, root: Path, descriptors: set[str]) -> None:
    assert set(facts["descriptors"]) == descriptors
    assert facts["descriptors"]["3"] == "socket"
    assert facts["descriptors"]["0"] == facts["descriptors"]["1"] == "/dev/null"
    assert facts["parent"] == process.process.pid
    assert facts["cwd"] == str(root)
    status = dict(line.split(":\t", 1) for line in facts["status"].splitlines() if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    assert status["Umask"] == "0077"
    assert status["Threads"] == "1"
    # SIGPIPE and SIGXFSZ, as any Python; 32 and 33 are the C library's own, which `make` leaves ignored below it.
    assert int(status["SigIgn"], 16) & ~(1 << 12 | 1 << 24 | 3 << 31) == 0
    assert facts["core"] == [0, 0]
    assert facts["files"][1] <= 4096
    assert facts["handlers"]["SIGTERM"] == facts["handlers"]["SIGCHLD"] == "0"
    foreign = {name.partition(".")[0] for name in facts["modules"]} - sys.stdlib_module_names
    assert foreign <= {"__main__", "toka_runtime", "toy_tools"}
    packages = {name.split(".")[1] for name in facts["modules"] if name.startswith("toka_runtime.")}
    assert packages <= {"worker", "sandbox"}


async def test_protections_name_what_is_in_force(tmp_path: Path) -> None:
    async with fork_server() as server:
        process = await server.launch(plan(tmp_path))
        assert "no new privileges" in process.protections
        assert not any("namespace" in words or "Landlock" in words for words in process.protections)


# -- starting goes wrong ----------------------------------------------------------------------------------------------


async def test_a_folder_that_is_missing_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    async with fork_server() as server:
        with pytest.raises(ProcessError, match=r"No such file or directory.*missing") as caught:
            await server.launch(plan(tmp_path / "missing"))
        assert "tester" in caught.value.message
        assert living_children(server) == []


FROM_A_COPY = """
import asyncio, json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import toka_runtime
assert toka_runtime.__file__.startswith(sys.argv[1])
from toka_runtime.protocol.capability import Rights
from toka_runtime.sandbox.launcher import ForkServer
from toka_runtime.sandbox.plan import SandboxPlan

async def main():
    server = ForkServer()
    process = await server.launch(SandboxPlan(agent="a", run="r", root=sys.argv[2], rights=Rights()))
    print((await process.channel.receive())["t"], Path(f"/proc/{server.zygote_pid}/maps").exists())
    await server.aclose()

asyncio.run(main())
"""


def test_the_fork_server_is_found_wherever_the_package_lies(tmp_path: Path) -> None:
    """Beside other packages, as pip puts it, in a folder with an awkward name, unwritable caches, no environment."""
    top = tmp_path / "a: b 'c"
    package = Path(process_module.__file__).parents[1]
    shutil.copytree(package, top / "toka_runtime", ignore=shutil.ignore_patterns("__pycache__"))
    # A package beside ours must not stand in for the standard library.
    (top / "json.py").write_text("raise RuntimeError")
    ended = subprocess.run(
        [sys.executable, "-c", FROM_A_COPY, top, "/"],
        capture_output=True,
        text=True,
        timeout=60,
        env={},
        cwd="/",
    )
    assert ended.stderr == ""
    assert ended.stdout == "ready True\n"


async def test_a_fork_server_that_cannot_load_says_what_is_missing(tmp_path: Path) -> None:
    server = ForkServer(worker_main="no_such_module:main")
    with pytest.raises(SandboxUnavailable, match="no_such_module"):
        await server.launch(plan(tmp_path))
    assert server.zygote_pid is None
    await server.aclose()


async def test_a_fork_server_that_dies_while_loading_says_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "fatal.py").write_text("import os\nos.write(2, b'dreadful')\nos._exit(3)\n")
    server = ForkServer(worker_main="fatal:main", import_paths=[str(tmp_path)])
    with pytest.raises(ProcessError, match="dreadful"):
        await server.launch(plan(tmp_path))
    await server.aclose()


async def test_a_worker_that_raises_ends_with_its_traceback(tmp_path: Path) -> None:
    errors: list[bytes] = []
    async with fork_server(
        worker_main="toy_tools:worker_raises", on_stderr=lambda plan, data: errors.append(data)
    ) as server:
        process = await server.launch(plan(tmp_path))
        assert await process.channel.receive() is None
        assert await process.wait() == 1
        await process.kill()
    assert b"RuntimeError: a defect in the worker" in b"".join(errors)


async def test_a_cancelled_launch_leaves_nothing(tmp_path: Path) -> None:
    async with fork_server() as server:
        await server.start()
        for steps in range(12):
            task = spawn(server.launch(plan(tmp_path)))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                await task.result().kill()
        # The fork server answers in order: when this agent is there, all before it have been dealt with.
        process = await server.launch(plan(tmp_path))
        assert living_children(server) == [process.process.pid]


def living_children(server: ForkServer) -> list[int]:
    children = Path(f"/proc/{server.zygote_pid}/task/{server.zygote_pid}/children").read_text().split()
    return [pid for pid, state in states(map(int, children)).items() if state != "Z"]


async def test_a_closed_launcher_starts_nothing(tmp_path: Path) -> None:
    async with fork_server() as server:
        pass
    with pytest.raises(ProcessError, match="closed"):
        await server.launch(plan(tmp_path))
    await server.aclose()


async def test_out_of_descriptors_is_said_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fork_server() as server:
        await server.start()
        before = descriptors()

        def refuse() -> None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        with monkeypatch.context() as patched:
            patched.setattr(os, "pipe", refuse)
            with pytest.raises(ProcessError, match="Too many open files") as caught:
                await server.launch(plan(tmp_path))
        assert "ulimit" in caught.value.hint
        # Others may have gone meanwhile: what an earlier test has forgotten is collected when Python likes.
        assert descriptors() <= before
        assert (await (await server.launch(plan(tmp_path))).kill()).confirmed


def descriptors() -> set[tuple[str, str]]:
    """Number and target of every open one, but that of the folder which is being listed."""
    found: set[tuple[str, str]] = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add((entry.name, str(entry.readlink())))
    return {(number, target) for number, target in found if not target.endswith("/fd")}


async def test_agents_that_ended_leave_no_descriptors_behind(tmp_path: Path) -> None:
    async with fork_server() as server:
        await server.start()
        await asyncio.sleep(0)
        before = descriptors()
        for _ in range(3):
            process = await server.launch(plan(tmp_path))
            tool = RunningTool(process, request(tmp_path, "hang"))
            await tool.told()
            await process.kill()
            await asyncio.wait([tool.task])
            assert isinstance(tool.task.exception(), ProcessError)
        with pytest.raises(ProcessError):
            await server.launch(plan(tmp_path / "missing"))
        # What watches the end of a process lets go in the loop's next round.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        # Others may have gone meanwhile: what an earlier test has forgotten is collected when Python likes.
        assert descriptors() <= before


async def test_closing_while_the_fork_server_starts_leaves_nothing(tmp_path: Path) -> None:
    server = ForkServer(tool_function="toy_tools:execute", import_paths=[FAKES])
    launching = spawn(server.launch(plan(tmp_path)))
    await asyncio.sleep(0)
    await server.aclose()
    with pytest.raises(ProcessError):
        await launching
    assert server.zygote_pid is None


async def test_a_flood_of_errors_is_taken_at_a_measured_pace(tmp_path: Path) -> None:
    taken = 0

    def take(plan: object, data: bytes) -> None:
        nonlocal taken
        taken += len(data)

    async with fork_server(worker_main="toy_tools:worker_shouts", on_stderr=take) as server:
        began = time.monotonic()
        process = await server.launch(plan(tmp_path))
        while taken < 5 * process_module.PIPE_BYTES:
            await asyncio.sleep(0)
        assert time.monotonic() - began > 4 * process_module.STDERR_PAUSE_S
        assert (await process.kill()).confirmed


# -- tools ------------------------------------------------------------------------------------------------------------


async def test_a_tool_streams_its_output_and_returns(tmp_path: Path) -> None:
    async with fork_server() as server:
        process = await server.launch(plan(tmp_path))
        chunks: list[tuple[str, bytes]] = []
        outcome = await process.run_tool(
            request(tmp_path, "echo", text="hällo"), lambda stream, data: chunks.append((stream, data))
        )
        assert outcome.ok
        assert outcome.content == "hällo"
        assert chunks == [("stdout", b"out \xff\x00\n"), ("stderr", b"err")]
        assert tree_of(process) == [process.process.pid, process.worker_pid], "it is gone when the call returns"


async def test_the_real_tools_run_in_their_child(tmp_path: Path) -> None:
    server = ForkServer()
    try:
        process = await server.launch(plan(tmp_path))
        chunks: list[bytes] = []
        asked = request(tmp_path, "run_command", command="echo $((6*7)) > out; cat out")
        outcome = await process.run_tool(asked, lambda stream, data: chunks.append(data))
        assert outcome.ok, outcome
        assert b"".join(chunks) == b"42\n"
        assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600
        outcome = await process.run_tool(request(tmp_path, "read_file", path="out"), silent)
        assert "42" in outcome.content
    finally:
        await server.aclose()


async def test_several_tools_at_once(tmp_path: Path) -> None:
    async with fork_server() as server:
        process = await server.launch(plan(tmp_path))
        calls = [process.run_tool(request(tmp_path, "echo", text=str(n)), silent) for n in range(8)]
        assert [outcome.content for outcome in await asyncio.gather(*calls)] == [str(n) for n in range(8)]


async def test_much_output_arrives_whole(tmp_path: Path) -> None:
    async with fork_server() as server:
        process = await server.launch(plan(tmp_path))
        size = 0

        def count(stream: str, data: bytes) -> None:
            nonlocal size
            size += len(data)

        assert (await process.run_tool(request(tmp_path, "flood", chunks=100), count)).ok
        assert size == 10_000_000


async def test_a_result_beyond_its_cap_is_cut(tmp_path: Path) -> None:
    async with fork_server() as server:
        process = await server.launch(plan(tmp_path))
        asked = request(tmp_path, "echo", text="x" * 1_000_000).model_copy(update={"output_cap_bytes": 1000})
        outcome = await process.run_tool(asked, silent)
        assert outcome.content == "x" * 1000 + "\n[cut by the runtime: 1000000 characters]"


@pytest.mark.parametrize(
    ("tool", "arguments", "expected"),
    [
        ("raise", {}, "RuntimeError: a defect in the tool (toy_tools.py:"),
        ("exit", {"code": 7}, "exit code 7"),
        ("kill_itself", {}, "killed by SIGKILL"),
        ("garbage", {"hex": "ffffffff"}, "announces 4294967295 bytes"),
        ("garbage", {"hex": "000000025b5d"}, "not an object"),
        ("garbage", {"hex": "000000027b7d"}, "unknown frame"),
        ("nonesuch", {}, "KeyError"),
    ],
)
async def test_a_tool_that_breaks_is_an_outcome(
    tmp_path: Path, tool: str, arguments: dict[str, Any], expected: str
) -> None:
    async with fork_server() as server:
        process = await server.launch(plan(tmp_path))
        outcome = await process.run_tool(request(tmp_path, tool, **arguments), silent)
        assert (outcome.ok, outcome.code) == (False, "tool.crashed")
        assert expected in outcome.content
        if tool == "exit":
            assert outcome.exit_code == 7
            assert "last words" in outcome.content
        assert (await process.run_tool(request(tmp_path, "echo", text="still there"), silent)).ok
        assert tree_of(process) == [process.process.pid, process.worker_pid]


async def test_what_a_tool_leaves_behind_ends_with_it_and_the_model_is_told(tmp_path: Path) -> None:
    async with fork_server() as server:
        process = await server.launch(plan(tmp_path))
        outcome = await process.run_tool(request(tmp_path, "leave"), silent)
        pid, _, note = outcome.content.partition("\n")
        assert "1 process(es) still running" in note
        assert int(pid) not in states([int(pid)])


async def test_cancelling_a_call_kills_the_tool_and_all_that_it_started(tmp_path: Path) -> None:
    async with fork_server() as server:
        process = await server.launch(plan(tmp_path))
        tool = RunningTool(process, request(tmp_path, "tree"))
        pids = await tool.told()
        watched = Watched(*pids)
        await tool.end()
        assert tool.task.cancelled()
        await watched.all_gone(timeout_s=0.1)
        assert tree_of(process) == [process.process.pid, process.worker_pid]


async def test_a_tool_that_hangs_is_ended_after_its_time(tmp_path: Path) -> None:
    clock = FakeClock()
    async with fork_server(clock=clock) as server:
        process = await server.launch(plan(tmp_path))
        tool = RunningTool(process, request(tmp_path, "hang", timeout_s=60))
        await tool.told()
        await clock.until_sleeping()
        await clock.advance(59 + process_module.TOOL_GRACE_S)
        assert not tool.task.done()
        await clock.advance(1)
        outcome = await tool.task
        assert (outcome.ok, outcome.code) == (False, "tool.timeout")
        assert "60 s" in outcome.content
        assert "hanging" in outcome.content
        assert tree_of(process) == [process.process.pid, process.worker_pid]


async def test_paused_time_does_not_count_against_a_tool(tmp_path: Path) -> None:
    clock = FakeClock()
    async with fork_server(clock=clock) as server:
        process = await server.launch(plan(tmp_path))
        tool = RunningTool(process, request(tmp_path, "hang", timeout_s=60))
        await tool.told()
        await clock.until_sleeping()
        assert (await process.pause()).confirmed
        await clock.advance(1000)
        assert not tool.task.done()
        assert (await process.resume()).confirmed
        await clock.until_sleeping()
        await clock.advance(60 + process_module.TOOL_GRACE_S)
        assert (await tool.task).code == "tool.timeout"


# -- pause, resume, stop, kill ----------------------------------------------------------------------------------------


async def test_pause_stops_the_whole_tree_and_resume_lets_it_go_on(tmp_path: Path) -> None:
    async with fork_server() as server:
        process = await server.launch(plan(tmp_path))
        tool = RunningTool(process, request(tmp_path, "tree", children=5))
        spinning = RunningTool(process, request(tmp_path, "spin"))
        await tool.told()
        (spinner,) = await spinning.told()
        everyone = tree_of(process)[1:]
        assert len(everyone) >= 11, "worker, two tools, five children, a shell and its sleep, the daemon"
        proof = await process.pause()
        assert proof.confirmed, proof
        assert proof.mechanism == "signals"
        assert proof.processes == len(everyone)
        assert not running(everyone)
        before = Path(f"/proc/{spinner}/stat").read_text()
        assert (await process.pause()).confirmed, "twice is as good as once"
        assert Path(f"/proc/{spinner}/stat").read_text() == before, "it has used no time"
        proof = await process.resume()
        assert proof.confirmed
        assert "T" not in states(everyone).values()
        await tool.end()
        await spinning.end()


async def test_threads_and_their_children_are_stopped_too(tmp_path: Path) -> None:
    async with fork_server() as server:
        process = await server.launch(plan(tmp_path))
        tool = RunningTool(process, request(tmp_path, "threads"))
        child, parent = await tool.told()
        proof = await process.pause()
        assert proof.confirmed
        assert states([child, parent]) == {child: "T", parent: "T"}
        assert proof.processes == 3
        watched = Watched(child, parent)
        assert (await process.kill()).confirmed
        await watched.all_gone(0.1)
        await tool.end()


async def test_a_tool_that_comes_during_a_pause_waits_for_its_end(tmp_path: Path) -> None:
    async with fork_server() as server:
        process = await server.launch(plan(tmp_path))
        await process.channel.receive()
        await process.pause()
        tool = RunningTool(process, request(tmp_path, "echo", text="late"))
        given_up = RunningTool(process, request(tmp_path, "echo", text="never"))
        # Another pause is answered after both requests have been taken.
        assert (await process.pause()).processes == 1
        await given_up.end()
        assert not tool.task.done()
        await process.resume()
        assert (await tool.task).content == "late"
        assert not given_up.output


async def test_kill_while_paused_ends_everything(tmp_path: Path) -> None:
    async with fork_server() as server:
        process = await server.launch(plan(tmp_path))
        tool = RunningTool(process, request(tmp_path, "tree"))
        await tool.told()
        everyone = tree_of(process)
        watched = Watched(*everyone)
        await process.pause()
        waiting = RunningTool(process, request(tmp_path, "echo", text="queued"))
        await asyncio.sleep(0)
        proof = await process.kill()
        assert proof.confirmed
        assert proof.processes == len(everyone)
        await watched.all_gone(0.1)
        assert await process.wait() == -signal.SIGKILL
        for ended in (tool, waiting):
            with pytest.raises(ProcessError):
                await ended.task
        with pytest.raises(ProcessError):
            await process.pause()
        with pytest.raises(ProcessError):
            await process.run_tool(request(tmp_path, "echo", text="too late"), silent)


async def test_the_last_word_of_a_shim_is_heard_though_it_left_requests_unread() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    events: list[Any] = []
    closed = asyncio.Event()
    peer = ControlPeer(ours, "the shim of x", events.append, closed.set)
    asking = spawn(peer.request("kill", timeout_s=10))
    await asyncio.sleep(0)
    theirs.send(json.dumps({"t": "answer", "id": 1, "ok": True, "survivors": []}).encode())
    theirs.close()
    assert (await asking)["ok"]
    await closed.wait()
    with pytest.raises(ProcessError, match="the shim of x is gone"):
        await peer.request("kill", timeout_s=10)


async def test_kill_is_shared_and_survives_its_caller(tmp_path: Path) -> None:
    async with fork_server() as server:
        process = await server.launch(plan(tmp_path))
        watched = Watched(*tree_of(process))
        first = spawn(process.kill())
        await asyncio.sleep(0)
        first.cancel()
        one, two = await asyncio.gather(process.kill(), process.kill())
        assert one == two
        assert one.confirmed
        await watched.all_gone(0.1)


async def test_terminate_lets_a_polite_tool_tidy_up(tmp_path: Path) -> None:
    clock = FakeClock()
    async with fork_server(clock=clock) as server:
        process = await server.launch(plan(tmp_path))
        tool = RunningTool(process, request(tmp_path, "polite"))
        await tool.told()
        proof = await process.terminate(30)
        assert proof.confirmed
        assert (tmp_path / "tidied").read_text() == "tidy\n"
        assert clock.monotonic() == 0, "it did not need the grace"
        assert await process.wait() == -signal.SIGTERM
        await tool.end()


async def test_terminate_continues_a_paused_tree_so_that_it_can_tidy_up(tmp_path: Path) -> None:
    async with fork_server(clock=FakeClock()) as server:
        process = await server.launch(plan(tmp_path))
        tool = RunningTool(process, request(tmp_path, "polite"))
        await tool.told()
        await process.pause()
        assert (await process.terminate(30)).confirmed
        assert (tmp_path / "tidied").exists()
        await tool.end()


async def test_terminate_kills_after_the_grace(tmp_path: Path) -> None:
    clock = FakeClock()
    async with fork_server(clock=clock) as server:
        process = await server.launch(plan(tmp_path))
        tool = RunningTool(process, request(tmp_path, "tree"))
        pids = await tool.told()
        stubborn = pids[-2]
        watched = Watched(*tree_of(process))
        ending = spawn(process.terminate(30))
        await clock.until_sleeping(2)
        await clock.advance(29.9)
        assert states([stubborn])[stubborn] != "Z"
        assert not ending.done()
        await clock.advance(0.2)
        assert (await ending).confirmed
        await watched.all_gone(0.1)
        await tool.end()


async def test_a_tree_that_forks_for_ever_is_paused_and_killed(tmp_path: Path) -> None:
    async with fork_server() as server:
        process = await server.launch(plan(tmp_path))
        tools = [RunningTool(process, request(tmp_path, "forker")) for _ in range(4)]
        for tool in tools:
            await tool.told()
        proof = await process.pause()
        assert proof.confirmed, proof
        shim = process.process.pid
        seen = tree_of(process)[1:]
        assert not running(seen)
        await process.resume()
        proof = await process.kill()
        assert proof.confirmed, proof
        assert shim not in states([shim]) or states([shim])[shim] == "Z"
        for tool in tools:
            await tool.end()


async def test_cancelling_a_forker_ends_it(tmp_path: Path) -> None:
    async with fork_server() as server:
        process = await server.launch(plan(tmp_path))
        tool = RunningTool(process, request(tmp_path, "forker"))
        await tool.told()
        await tool.end()
        assert tree_of(process) == [process.process.pid, process.worker_pid]


# -- something of ours is attacked ------------------------------------------------------------------------------------


async def test_a_worker_killed_from_outside_is_noticed(tmp_path: Path) -> None:
    async with fork_server() as server:
        process = await server.launch(plan(tmp_path))
        await process.channel.receive()
        os.kill(process.worker_pid, signal.SIGSEGV)
        assert await process.wait() == -signal.SIGSEGV
        assert await process.channel.receive() is None
        assert (await process.kill()).confirmed


async def test_an_agent_that_kills_its_shim_is_ended_whole(tmp_path: Path) -> None:
    async with fork_server() as server:
        process = await server.launch(plan(tmp_path))
        await process.channel.receive()
        other = await server.launch(plan(tmp_path, "other"))
        tool = RunningTool(process, request(tmp_path, "signal_shim", daemon=True, signal=signal.SIGKILL))
        daemon, child = await tool.told()
        watched = Watched(daemon, child, process.worker_pid)
        with pytest.raises(ProcessError):
            await tool.task
        assert await process.channel.receive() is None
        assert await process.wait() == -signal.SIGKILL
        proof = await process.kill()
        assert proof.confirmed, proof
        await watched.all_gone(0.1)
        assert (await other.run_tool(request(tmp_path, "echo", text="untouched"), silent)).ok


async def test_an_agent_that_stops_its_shim_can_still_be_paused_and_killed(tmp_path: Path) -> None:
    async with fork_server() as server:
        process = await server.launch(plan(tmp_path))
        tool = RunningTool(process, request(tmp_path, "signal_shim", signal=signal.SIGSTOP))
        await tool.told()
        while states([process.process.pid])[process.process.pid] != "T":
            await asyncio.sleep(0)
        proof = await process.pause()
        assert proof.confirmed
        assert proof.processes == 2
        assert (await process.kill()).confirmed
        await tool.end()


async def test_a_shim_that_never_answers_is_worked_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "PAUSE_ANSWER_S", 0.05)
    monkeypatch.setattr(process_module, "KILL_ANSWER_S", 0.05)
    monkeypatch.setattr(process_module.ShimProcess, "_wake_shim", lambda process: None)
    async with fork_server() as server:
        process = await server.launch(plan(tmp_path))
        tool = RunningTool(process, request(tmp_path, "tree"))
        await tool.told()
        everyone = tree_of(process)
        watched = Watched(*everyone)
        os.kill(process.process.pid, signal.SIGSTOP)
        proof = await process.pause()
        assert proof.confirmed
        assert not running(everyone[1:])
        proof = await process.kill()
        assert proof.confirmed, proof
        assert proof.processes == len(everyone)
        await watched.all_gone(0.1)
        await tool.end()


async def test_a_dead_fork_server_takes_nobody_with_it(tmp_path: Path) -> None:
    async with fork_server() as server:
        process = await server.launch(plan(tmp_path))
        await process.channel.receive()
        first = server.zygote_pid
        assert first is not None
        watched = Watched(first)
        os.kill(first, signal.SIGKILL)
        await watched.all_gone()
        assert (await process.run_tool(request(tmp_path, "echo", text="alive"), silent)).content == "alive"
        another = await server.launch(plan(tmp_path, "another"))
        assert server.zygote_pid not in {first, None}
        assert (await process.pause()).confirmed
        assert (await process.resume()).confirmed
        everyone = Watched(*tree_of(process), *tree_of(another))
        assert (await process.kill()).confirmed
        assert (await another.kill()).confirmed
        await everyone.all_gone(0.1)


async def test_a_fork_server_that_dies_during_a_launch_is_named(tmp_path: Path) -> None:
    async with fork_server() as server:
        await server.start()
        assert server.zygote_pid is not None
        os.kill(server.zygote_pid, signal.SIGSTOP)
        launching = spawn(server.launch(plan(tmp_path)))
        for _ in range(10):
            await asyncio.sleep(0)
        os.kill(server.zygote_pid, signal.SIGKILL)
        with pytest.raises(ProcessError, match=r"fork server \(pid \d+\) is gone: it ended with -9") as caught:
            await launching
        assert caught.value.hint
        assert (await (await server.launch(plan(tmp_path))).kill()).confirmed


async def test_without_shim_and_fork_server_the_end_is_not_called_proven(tmp_path: Path) -> None:
    server = ForkServer()
    process = await server.launch(plan(tmp_path))
    await process.channel.receive()
    assert server.zygote_pid is not None
    watched = Watched(process.worker_pid, process.process.pid, server.zygote_pid)
    os.kill(server.zygote_pid, signal.SIGKILL)
    os.kill(process.process.pid, signal.SIGKILL)
    await watched.all_gone()
    proof = await process.kill()
    assert not proof.confirmed
    assert not proof.survivors
    with pytest.raises(ProcessError, match="could not be confirmed"):
        await server.aclose()
    await server.aclose()


# -- the channel ------------------------------------------------------------------------------------------------------


async def test_a_worker_that_floods_is_not_read_from_until_somebody_wants_it(tmp_path: Path) -> None:
    async with fork_server(worker_main="toy_tools:worker_flood") as server:
        process = await server.launch(plan(tmp_path))
        channel: Any = process.channel
        for _ in range(50):
            assert (await channel.receive())["t"] == "flood"
        # Long enough for the loop to take whatever the socket holds.
        until = time.monotonic() + 0.1
        while time.monotonic() < until:
            await asyncio.sleep(0)
        assert len(channel._decoder) < 1_000_000


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\x02[]", b"\0\0\0\x10{"])
async def test_a_broken_frame_is_an_error_now_and_ever_after(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    channel = await FrameChannel.open(ours, "the worker of x")
    theirs.sendall(b"\0\0\0\x07" + b'{"a":1}' + data)
    theirs.close()
    assert await channel.receive() == {"a": 1}
    for _ in range(2):
        with pytest.raises(ProtocolError, match="the worker of x"):
            await channel.receive()
    with pytest.raises(ProcessError):
        await channel.send({})


async def test_a_cancelled_receive_loses_nothing() -> None:
    ours, theirs = socket.socketpair()
    channel = await FrameChannel.open(ours, "the worker of x")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await channel.receive()
    theirs.sendall(b"\0\0\0\x07" + b'{"a":1}')
    assert await channel.receive() == {"a": 1}
    channel.close()
    theirs.close()


# -- many -------------------------------------------------------------------------------------------------------------


async def test_a_hundred_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    async with fork_server() as server:
        processes = await asyncio.gather(*(server.launch(plan(tmp_path, f"agent-{n}")) for n in range(100)))
        frames = await asyncio.gather(*(process.channel.receive() for process in processes))
        assert {frame["pid"] for frame in frames if frame} == {process.worker_pid for process in processes}
        assert time.monotonic() - began < 20, "seconds; about 0.7 on two idle cores"
        assert len({process.process for process in processes}) == 100
        watched = Watched(*(process.process.pid for process in processes), *(p.worker_pid for p in processes))
    await watched.all_gone(0.1)
