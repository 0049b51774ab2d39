"""The runtime dies, also by SIGKILL: no process of its agents outlives it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.agents import FAKES, Watched

RUNTIME = """
import asyncio, json, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from agents import RunningTool, fork_server, plan, request, tree_of

async def main():
    root, how = Path(sys.argv[2]), sys.argv[3]
    async with fork_server() as server:
        processes = [await server.launch(plan(root, f"agent-{n}")) for n in range(4)]
        tools = [RunningTool(process, request(root, "tree")) for process in processes]
        tools.append(RunningTool(processes[0], request(root, "forker")))
        for tool in tools:
            await tool.told()
        await processes[1].pause()
        pids = [pid for process in processes[1:] for pid in tree_of(process)]
        pids += [processes[0].process.pid, processes[0].worker_pid, server.zygote_pid]
        if how == "without fork server":
            os.kill(server.zygote_pid, signal.SIGKILL)
        print(json.dumps(pids), flush=True)
        sys.stdin.read()
        if how == "exit":
            os._exit(1)
        raise SystemExit("an error that nobody handles")

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["killed", "without fork server", "exit", "error"])
async def test_no_process_outlives_the_runtime(tmp_path: Path, how: str) -> None:
    runtime = subprocess.Popen(
        [sys.executable, "-c", RUNTIME, FAKES, str(tmp_path), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert runtime.stdin is not None
    assert runtime.stdout is not None
    with runtime.stdin, runtime.stdout:
        pids = json.loads(await asyncio.to_thread(runtime.stdout.readline))
        assert len(pids) > 25
        watched = Watched(*(pid for pid in pids if Path(f"/proc/{pid}").exists()))
        if how in {"killed", "without fork server"}:
            os.kill(runtime.pid, signal.SIGKILL)
        else:
            runtime.stdin.close()
        await watched.all_gone()
    runtime.wait()
    # The daemons that fork for ever have new numbers all the time: they are known by their working folder.
    until = asyncio.get_running_loop().time() + 10
    while (left := working_in(tmp_path)) and asyncio.get_running_loop().time() < until:
        await asyncio.sleep(0.01)
    assert not left


def working_in(folder: Path) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if os.readlink(entry / "cwd") == str(folder):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
