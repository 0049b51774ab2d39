"""Start, pause and kill agents as real processes, beside a cold interpreter, in one run.

    python bench/spawn.py [AGENTS]

Quote the ratios: machines are noisy, and both sides of each ratio are measured here, one after the other.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import toka_runtime
from toka_runtime.aio import spawn
from toka_runtime.limits.meter import TreeMeter
from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.ids import AgentName, CallId, RunId
from toka_runtime.sandbox.launcher import ForkServer
from toka_runtime.sandbox.plan import AgentProcess, SandboxPlan, StopProof, ToolRequest
from toka_runtime.sandbox.tree import members, proc_stat
from toka_runtime.worker.frames import FrameSocket

TOOLS = """
import os, signal, subprocess
def execute(request, emit):
    if request["tool"] == "none":
        return {"ok": True, "content": ""}
    for _ in range(request["arguments"]["processes"] - 1):
        subprocess.Popen(["sleep", "1000"])
    emit("stdout", b"up")
    signal.pause()
"""
AT_ONCE = 100
ROUNDS = 15


def plan(root: str, number: int = 0) -> SandboxPlan:
    return SandboxPlan(agent=AgentName(f"agent-{number}"), run=RunId("r"), root=root, rights=Rights())


def median_ms(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    return f"{statistics.median(ordered) * 1000:7.1f}   (best {ordered[0] * 1000:.1f}, worst {ordered[-1] * 1000:.1f})"


def row(name: str, value: str) -> None:
    print(f"  {name:<75} {value}")


class Cold:
    """`python -m toka_runtime.worker`, as one would start it without a fork server."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "toka_runtime.worker", str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
        self.socket = ours

    def ready(self) -> None:
        frame = FrameSocket(self.socket).read()
        assert frame is not None
        assert frame["t"] == "ready"

    def end(self) -> None:
        self.socket.close()
        self.process.wait()


def pss_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def cold_figures(count: int) -> None:
    times: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        cold = Cold()
        cold.ready()
        times.append(time.perf_counter() - began)
        cold.end()
    row("one: `python -m`, start to ready, ms", median_ms(times))
    began = time.perf_counter()
    many = [Cold() for _ in range(count)]
    for cold in many:
        cold.ready()
    row(f"{count} at once: `python -m`, all ready, s", f"{time.perf_counter() - began:7.2f}")
    row(f"memory each of {count}: `python -m`, PSS MiB", f"{mean_mib(cold.process.pid for cold in many):7.2f}")
    for cold in many:
        cold.end()


def mean_mib(pids: object) -> float:
    sizes = [pss_kib(pid) for pid in pids]  # type: ignore[attr-defined]  # any iterable of pids
    return sum(sizes) / len(sizes) / 1024


async def launch_ready(server: ForkServer, root: str, number: int = 0) -> AgentProcess:
    process = await server.launch(plan(root, number))
    frame = await process.channel.receive()
    assert frame is not None
    assert frame["t"] == "ready"
    return process


async def fork_server_figures(server: ForkServer, root: str, count: int) -> None:
    began = time.perf_counter()
    await server.start()
    row("the fork server itself, once, ms", f"{(time.perf_counter() - began) * 1000:7.1f}")
    launched: list[float] = []
    called: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        process = await launch_ready(server, root)
        launched.append(time.perf_counter() - began)
        for _ in range(3):
            began = time.perf_counter()
            request = ToolRequest(call=CallId("c"), tool="none", arguments={}, root=root)
            await process.run_tool(request, lambda stream, data: None)
            called.append(time.perf_counter() - began)
        await process.kill()
    row("one: launch to ready (shim and worker), ms", median_ms(launched))
    row("one tool call in a child of its own, ms", median_ms(called))
    began = time.perf_counter()
    processes = await asyncio.gather(*(launch_ready(server, root, number) for number in range(count)))
    row(f"{count} at once: all ready, s", f"{time.perf_counter() - began:7.2f}")
    pids = [pid for process in processes for pid in (process.process.pid, process.worker_pid)]
    row(f"memory each of {count}: shim and worker, PSS MiB", f"{2 * mean_mib(pids):7.2f}")
    assert server.zygote_pid is not None
    row("memory of the fork server, PSS MiB", f"{pss_kib(server.zygote_pid) / 1024:7.2f}")
    meter_figures([TreeMeter(process.process) for process in processes])
    began = time.perf_counter()
    proofs = await asyncio.gather(*(process.kill() for process in processes))
    assert all(proof.confirmed for proof in proofs)
    row(f"{count} killed at once, proven, ms", f"{(time.perf_counter() - began) * 1000:7.1f}")


def meter_figures(meters: list[TreeMeter]) -> None:
    times: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for meter in meters:
            meter.sample()
        times.append(time.perf_counter() - began)
    row(f"a sample of {len(meters)} trees, ms: the first", f"{times[0] * 1000:7.1f}")
    row(f"a sample of {len(meters)} trees, ms: later ones", median_ms(times[1:]))
    for meter in meters:
        meter.close()


async def stop_figures(server: ForkServer, root: str, size: int) -> None:
    """A tree of `size` processes below the shim: the worker, a tool, and what the tool started."""
    proofs: dict[str, list[StopProof]] = {"pause": [], "resume": [], "kill": []}
    for _ in range(ROUNDS):
        process = await launch_ready(server, root)
        up = asyncio.Event()
        tool = None
        if size > 1:
            request = ToolRequest(call=CallId("c"), tool="tree", arguments={"processes": size - 1}, root=root)
            tool = spawn(process.run_tool(request, lambda stream, data, up=up: up.set()))
            await up.wait()
        for name, act in (("pause", process.pause), ("resume", process.resume), ("kill", process.kill)):
            proofs[name].append(await act())
        if tool is not None:
            await asyncio.wait([tool])
            tool.exception()
    for name, found in proofs.items():
        assert all(proof.confirmed for proof in found), found
        times = median_ms([proof.duration_ms / 1000 for proof in found])
        row(f"{name}, proven, tree of {size}, ms", times)


def group_figures(size: int) -> None:
    """The floor: one signal to a process group. It proves nothing, and misses whatever left the group."""
    script = (
        f"import subprocess, time\nfor _ in range({size - 1}): subprocess.Popen(['sleep', '1000'])\nprint(flush=True)"
    )
    times: dict[str, list[float]] = {"SIGSTOP, all seen stopped": [], "SIGKILL, all seen gone": []}
    for _ in range(ROUNDS):
        group = subprocess.Popen(
            [sys.executable, "-S", "-c", script + "\ntime.sleep(1000)"], stdout=subprocess.PIPE, start_new_session=True
        )
        assert group.stdout is not None
        group.stdout.readline()
        pids = [group.pid, *members(group.pid)]
        for number, wanted, name in (
            (signal.SIGSTOP, "T", "SIGSTOP, all seen stopped"),
            (signal.SIGKILL, "ZX", "SIGKILL, all seen gone"),
        ):
            began = time.perf_counter()
            os.killpg(group.pid, number)
            for pid in pids:
                while (stat := proc_stat(pid)) is not None and stat.state not in wanted:
                    os.sched_yield()
            times[name].append(time.perf_counter() - began)
        group.wait()
        group.stdout.close()
    for name, found in times.items():
        row(f"for comparison, killpg, group of {size}: {name}, ms", median_ms(found))


async def measure(count: int) -> None:
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {Path(toka_runtime.__file__).parent}\n")
    print("cold interpreter")
    cold_figures(count)
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / "bench_tools.py").write_text(TOOLS)
        print("\nfork server")
        server = ForkServer(tool_function="bench_tools:execute", import_paths=[root])
        await fork_server_figures(server, root, count)
        print("\npause, resume, kill")
        for size in (1, 10, 100):
            await stop_figures(server, root, size)
        group_figures(100)
        await server.aclose()


if __name__ == "__main__":
    asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else AT_ONCE))
