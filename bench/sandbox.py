"""What confinement costs: starting a program, single system calls, agents, decisions; beside nothing at all, bwrap and
sandlock (from PyPI, where SANDLOCK_PYTHON names an interpreter that has it).

    python bench/sandbox.py [AGENTS]

Quote the ratios: machines are noisy. Rounds of all candidates are taken in turn, so that noise hits each alike.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import policy

import toka_runtime
from toka_runtime.policy.catalogue import load_catalogue
from toka_runtime.policy.rules import compile_rights
from toka_runtime.protocol.ids import AgentName, CallId, RunId
from toka_runtime.protocol.spec import AgentSpec, Security
from toka_runtime.sandbox.launcher import ForkServer
from toka_runtime.sandbox.plan import AgentProcess, SandboxPlan, ToolRequest
from toka_runtime.sandbox.view import FIRST_USER, confinement_of, give_to

ROUNDS = 40
CALL_ROUNDS = 7
AT_ONCE = 100
TRUE, PYTHON = "/usr/bin/true", "/usr/bin/python3"
WARM = Path(__file__).parent / "warm"

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
Run = Callable[[list[str], str], float]
"""(argv, file for its output) → ms until it has ended."""


def row(name: str, *cells: str) -> None:
    print(f"  {name:<52}" + "".join(f"{cell:>20}" for cell in cells))


def bare(argv: list[str], out: str) -> float:
    began = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, {}, file_actions=[(os.POSIX_SPAWN_OPEN, 1, out, os.O_WRONLY, 0)])
    _, status = os.waitpid(pid, 0)
    took = (time.perf_counter() - began) * 1000
    assert status == 0, os.waitstatus_to_exitcode(status)
    return took


def bwrap(argv: list[str], out: str) -> float:
    path = shutil.which("bwrap")
    assert path is not None
    return bare([path, "--unshare-all", "--ro-bind", "/", "/", *argv], out)


def whole_command(folder: str) -> Run:
    """`toka-runtime exec` as typed: an interpreter, its imports, the catalogue, a fork server, one agent's walls."""
    words = [sys.executable, "-m", "toka_runtime.cli.main", "exec", "--workspace", folder]

    def run(argv: list[str], out: str) -> float:
        return bare([*words, "--capability", "filesystem-read", "--", *argv], out)

    return run


class Server:
    """A process that starts programs on request: what is loaded once is no part of a start."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def run(self, argv: list[str], out: str) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"argv": argv, "out": out}) + "\n")
        self._process.stdin.flush()
        return float(self.line())

    def close(self) -> None:
        self._process.communicate()


def ours(root: Path, folder: Path) -> Server:
    """All walls that a command of an agent has: namespaces, view, no capabilities, call filter, Landlock; then exec."""
    spec = AgentSpec(
        name=AgentName("bench"),
        security=Security(capabilities_required=("filesystem-read", "filesystem-write", "script-execution")),
    )
    plan = SandboxPlan(agent=spec.name, run=RunId("r"), root=str(root), rights=compile_rights(spec, load_catalogue()))
    user = FIRST_USER if os.getuid() == 0 else None
    if user is not None:
        give_to(user, [str(root)])
    confinement = folder / "confinement.json"
    confinement.write_text(json.dumps(confinement_of(plan, user)))
    package = str(Path(toka_runtime.__file__).parent.parent)
    return Server(sys.executable, "-I", "-S", str(WARM / "ours.py"), package, str(confinement))


def sandlock(root: Path) -> Server | None:
    """None where the package is not there. It is looked for in SANDLOCK_PYTHON, an interpreter that has it."""
    python = os.environ.get("SANDLOCK_PYTHON", sys.executable)
    server = Server(python, str(WARM / "sandlock_.py"), str(root))
    if not (version := server.line()):
        server.close()
        print("sandlock: not measured, it is not installed here (`pip install sandlock`, and SANDLOCK_PYTHON)")
        return None
    print(f"sandlock {version}: a warm Python process, reads of /usr and /etc   (no namespaces: no own /proc, no root)")
    return server


def start_up(candidates: dict[str, Run]) -> None:
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(ROUNDS):
        for name, run in candidates.items():
            times[name].append(run([TRUE], os.devnull))
    floor = statistics.median(times["bare"])
    print(f"\nstart of `true` until it has ended, ms: median of {ROUNDS} (best), ratio to bare")
    for name, found in times.items():
        middle = statistics.median(found)
        row(name, median_ms(found), f"{middle / floor:.1f} ×")


def system_calls(candidates: dict[str, Run], path: Path, out: Path) -> None:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in candidates}
    for _ in range(CALL_ROUNDS):
        for name, run in candidates.items():
            out.write_text("")
            run([PYTHON, "-I", "-S", "-c", CALLS, str(path)], str(out))
            found[name].append(json.loads(out.read_text()))
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


async def true_as_a_tool_call(process: AgentProcess, root: str) -> float:
    """A child of the shim's with the rights of this call, a shell in it, and the program."""
    request = ToolRequest(call=CallId("c"), tool="run_command", arguments={"command": TRUE}, root=root, timeout_s=10.0)
    began = time.perf_counter()
    outcome = await process.run_tool(request, lambda stream, data: None)
    took = (time.perf_counter() - began) * 1000
    assert outcome.ok, outcome.content
    return took


def median_ms(times: list[float]) -> str:
    return f"{statistics.median(times):.1f} ({min(times):.1f})"


async def agents(folder: Path, count: int) -> None:
    servers = {"unconfined": ForkServer(), "confined": ForkServer(confine=True)}
    one: dict[str, list[float]] = {name: [] for name in servers}
    command: dict[str, list[float]] = {name: [] for name in servers}
    for server in servers.values():
        await server.start()
    for _ in range(ROUNDS // 2):
        for name, server in servers.items():
            began = time.perf_counter()
            process = await ready(server, folder, 0)
            one[name].append((time.perf_counter() - began) * 1000)
            command[name].append(await true_as_a_tool_call(process, str(folder / "0")))
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
    row("one, ms: median (best)", *(median_ms(times) for times in one.values()))
    row("`true` as a tool call of it, ms: median (best)", *(median_ms(times) for times in command.values()))
    row(f"{count} at once, all ready, s", *(f"{many[name]:.2f}" for name in servers))
    row(f"memory of each of {count}, PSS, MiB", *(f"{memory[name]:.2f}" for name in servers))
    row(f"{count} killed at once, proven, ms", *(f"{killed[name]:.0f}" for name in servers))


def main(count: int) -> None:
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
        candidates: dict[str, Run] = {"bare": bare}
        if shutil.which("bwrap"):
            version = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=True).stdout.strip()
            print(f"{version}: --unshare-all --ro-bind / /   (no path rules, no call filter, all of / readable)")
            candidates["bwrap"] = bwrap
        servers = [sandlock(root), ours(root, folder)]
        for title, server in zip(("sandlock", "ours"), servers, strict=True):
            if server is not None:
                candidates[title] = server.run
        # Once a command: not for the rows of system calls, which run behind the same walls as "ours".
        start_up({**candidates, "toka-runtime exec, whole command": whole_command(str(root))})
        root.chmod(0o755)
        system_calls(candidates, root / "file", folder / "figures")
        for server in servers:
            if server is not None:
                server.close()
        asyncio.run(agents(folder, count))
    print("\none decision of the broker")
    policy.decisions(load_catalogue())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else AT_ONCE)
