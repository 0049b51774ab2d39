"""What confinement costs: starting a program, single system calls, agents, decisions; beside nothing at all and bwrap.

    python bench/sandbox.py [AGENTS]

Quote the ratios: machines are noisy. Rounds of all candidates are taken in turn, so that noise hits each alike.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

from toka_runtime.policy.catalogue import load_catalogue
from toka_runtime.policy.engine import decide
from toka_runtime.policy.rules import compile_rights
from toka_runtime.protocol.capability import Operation, OperationKind
from toka_runtime.protocol.ids import AgentName, RunId
from toka_runtime.protocol.spec import AgentSpec, Security
from toka_runtime.sandbox import kernel
from toka_runtime.sandbox.confine import filter_calls, fork_first, restrict_tool
from toka_runtime.sandbox.launcher import ForkServer
from toka_runtime.sandbox.plan import AgentProcess, SandboxPlan
from toka_runtime.sandbox.shim import harden
from toka_runtime.sandbox.view import FIRST_USER, confinement_of, give_to

ROUNDS = 40
CALL_ROUNDS = 7
AT_ONCE = 100
TRUE, PYTHON = "/usr/bin/true", "/usr/bin/python3"

CALLS = """
import json, os, sys, time
path = sys.argv[1]
def openclose():
    os.close(os.open(path, os.O_RDONLY))
def per_call(act, count=20000):
    began = time.perf_counter_ns()
    for _ in range(count):
        act()
    return (time.perf_counter_ns() - began) / count
acts = {"nothing (the loop itself)": lambda: None, "getppid": os.getppid, "stat": lambda: os.stat(path),
    "openat + close": openclose}
print(json.dumps({name: per_call(act) for name, act in acts.items()}), flush=True)
"""
Start = Callable[[list[str], int], int]
"""(argv, descriptor for standard output) → pid, to be waited for."""


def row(name: str, *cells: str) -> None:
    print(f"  {name:<42}" + "".join(f"{cell:>24}" for cell in cells))


def bare(argv: list[str], out: int) -> int:
    return os.posix_spawn(argv[0], argv, {}, file_actions=[(os.POSIX_SPAWN_DUP2, out, 1)])


def bwrap(argv: list[str], out: int) -> int:
    path = shutil.which("bwrap")
    assert path is not None
    words = [path, "--unshare-all", "--ro-bind", "/", "/", *argv]
    return os.posix_spawn(path, words, {}, file_actions=[(os.POSIX_SPAWN_DUP2, out, 1)])


class Ours:
    """All walls that a command of an agent has: namespaces, view, no capabilities, call filter, Landlock; then exec."""

    def __init__(self, root: Path) -> None:
        spec = AgentSpec(
            name=AgentName("bench"),
            security=Security(capabilities_required=("filesystem-read", "filesystem-write", "script-execution")),
        )
        plan = SandboxPlan(
            agent=spec.name, run=RunId("r"), root=str(root), rights=compile_rights(spec, load_catalogue())
        )
        user = FIRST_USER if os.getuid() == 0 else None
        if user is not None:
            give_to(user, [str(root)])
        self._root = str(root)
        self._confinement = confinement_of(plan, user)

    def start(self, argv: list[str], out: int) -> int:
        def walls() -> None:
            harden()
            filter_calls()

        def body(listener: int) -> NoReturn:
            try:
                os.dup2(out, 1)
                access = {"read": [self._root], "write": [self._root], "execute": True, "port": None}
                restrict_tool(self._confinement, access)
                os.execve(argv[0], argv, {})
            finally:
                os._exit(126)

        return fork_first(self._confinement, walls, body)


def wait(pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code == 0, f"ended with {code}"


def start_up(candidates: dict[str, Start]) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(ROUNDS):
        for name, start in candidates.items():
            began = time.perf_counter()
            wait(start([TRUE], null))
            times[name].append((time.perf_counter() - began) * 1000)
    os.close(null)
    floor = statistics.median(times["bare"])
    print(f"\nstart of `true` until it has ended, ms: median of {ROUNDS} (best), ratio to bare")
    for name, found in times.items():
        middle = statistics.median(found)
        row(name, f"{middle:.1f} ({min(found):.1f})", f"{middle / floor:.1f} ×")


def system_calls(candidates: dict[str, Start], path: Path) -> None:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in candidates}
    for _ in range(CALL_ROUNDS):
        for name, start in candidates.items():
            reading, writing = os.pipe()
            pid = start([PYTHON, "-I", "-S", "-c", CALLS, str(path)], writing)
            os.close(writing)
            with os.fdopen(reading) as pipe:
                found[name].append(json.loads(pipe.read()))
            wait(pid)
    print(f"\none system call from Python, µs, the loop subtracted: best of {CALL_ROUNDS} × 20 000")
    row("", *candidates)
    best = {
        name: {call: min(one[call] for one in rounds) / 1000 for call in rounds[0]} for name, rounds in found.items()
    }
    loop = "nothing (the loop itself)"
    for call in ("getppid", "stat", "openat + close"):
        row(call, *(f"{best[name][call] - best[name][loop]:.2f}" for name in candidates))


# -- agents -----------------------------------------------------------------------------------------------------------


def pss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


async def ready(server: ForkServer, folder: Path, number: int) -> AgentProcess:
    root = folder / str(number)
    root.mkdir(exist_ok=True)
    spec = AgentSpec(name=AgentName(f"agent-{number}"), security=Security(capabilities_required=("filesystem-write",)))
    rights = compile_rights(spec, load_catalogue())
    plan = SandboxPlan(agent=spec.name, run=RunId("r"), root=str(root), rights=rights)
    process = await server.launch(plan)
    frame = await process.channel.receive()
    assert frame is not None
    assert frame["t"] == "ready"
    return process


async def agents(folder: Path, count: int) -> None:
    servers = {"unconfined": ForkServer(), "confined": ForkServer(confine=True)}
    one: dict[str, list[float]] = {name: [] for name in servers}
    for server in servers.values():
        await server.start()
    for _ in range(ROUNDS // 2):
        for name, server in servers.items():
            began = time.perf_counter()
            process = await ready(server, folder, 0)
            one[name].append((time.perf_counter() - began) * 1000)
            await process.kill()
    many: dict[str, float] = {}
    memory: dict[str, float] = {}
    killed: dict[str, float] = {}
    for name, server in servers.items():
        began = time.perf_counter()
        processes = await asyncio.gather(*(ready(server, folder, number) for number in range(count)))
        many[name] = time.perf_counter() - began
        pids = [pid for process in processes for pid in (process.process.pid, process.worker_pid)]
        memory[name] = sum(map(pss_mib, pids)) / count
        began = time.perf_counter()
        proofs = await asyncio.gather(*(process.kill() for process in processes))
        assert all(proof.confirmed for proof in proofs)
        killed[name] = (time.perf_counter() - began) * 1000
        await server.aclose()
    print("\nagents through the fork server: shim and worker, launch to ready")
    row("", *servers)
    row("one, ms: median (best)", *(f"{statistics.median(t):.1f} ({min(t):.1f})" for t in one.values()))
    row(f"{count} at once, all ready, s", *(f"{many[name]:.2f}" for name in servers))
    row(f"memory of each of {count}, PSS, MiB", *(f"{memory[name]:.2f}" for name in servers))
    row(f"{count} killed at once, proven, ms", *(f"{killed[name]:.0f}" for name in servers))


def decisions() -> None:
    catalogue = load_catalogue()
    spec = AgentSpec(
        name=AgentName("bench"), security=Security(capabilities_required=("filesystem-write", "cargo-execution"))
    )
    rights = compile_rights(spec, catalogue)
    cases: dict[str, Callable[[int], Operation]] = {
        "write inside (allowed)": lambda n: Operation(kind=OperationKind.WRITE, target=f"src/{n}/lib.rs"),
        "write outside (denied)": lambda n: Operation(kind=OperationKind.WRITE, target=f"/etc/{n}"),
        "program (allowed)": lambda n: Operation(kind=OperationKind.EXECUTE, target="", argv=("cargo", f"t{n}")),
        "host (denied)": lambda n: Operation(kind=OperationKind.CONNECT, target=f"h{n}.example.com:443"),
    }
    print("\none decision of the broker, µs: median of 2000 (99th percentile)")
    for name, make in cases.items():
        times: list[float] = []
        for operation in [make(number) for number in range(2000)]:
            began = time.perf_counter()
            decide(operation, rights, catalogue.remedies)
            times.append((time.perf_counter() - began) * 1e6)
        times.sort()
        row(name, f"{statistics.median(times):.1f} ({times[1980]:.1f})")


def main(count: int) -> None:
    kernel.adopt_orphans()
    # As the fork server does: a collection in a child would copy every page that it looks at.
    gc.freeze()
    gc.disable()
    who = "root" if os.getuid() == 0 else "an ordinary user"
    load = os.getloadavg()[0]
    print(
        f"Linux {os.uname().release}, {os.cpu_count()} cores, load {load:.1f}, Python {sys.version.split()[0]}, {who}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        root = folder / "root"
        root.mkdir()
        (root / "file").write_text("x")
        candidates: dict[str, Start] = {"bare": bare}
        if shutil.which("bwrap"):
            version = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=True).stdout.strip()
            print(f"{version}: --unshare-all --ro-bind / /   (no path rules, no call filter, all of / readable)")
            candidates["bwrap"] = bwrap
        candidates["ours"] = partial(Ours(root).start)
        start_up(candidates)
        root.chmod(0o755)
        system_calls(candidates, root / "file")
        asyncio.run(agents(folder, count))
    decisions()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else AT_ONCE)
