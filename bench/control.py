"""What pausing, resuming and killing cost, by mechanism, beside supervisord and circus where those can do the same.

    python bench/control.py [ROUNDS] [FOLDER]

Times are from the request to the proof: every process is seen to stand still, to go on, to be gone. FOLDER: the `bin`
of an environment with `supervisor` and `circus`; without it the table says so. Quote the ratios: machines are noisy.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.limits.cgroup_files import Places, own_places
from toka_runtime.limits.enforcer import Enforcer
from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.ids import AgentName, CallId, RunId
from toka_runtime.sandbox.launcher import ForkServer
from toka_runtime.sandbox.plan import AgentProcess, SandboxPlan, StopProof, ToolRequest
from toka_runtime.sandbox.tree import proc_stat

TOOLS = """
import os, signal
def execute(request, emit):
    for number in range(request["arguments"]["children"]):
        if os.fork() == 0:
            if number % 2:
                os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                signal.pause()
    emit("stdout", b"up")
    while True:
        signal.pause()
"""
SIZES = (1, 10, 100)
ACTS = ("pause", "resume", "kill")
FLEET = 100
OTHERS = """
import os, signal, sys
for number in range(int(sys.argv[1]) - 1):
    if os.fork() == 0:
        break
while True:
    signal.pause()
"""
Act = Callable[[], Awaitable[object]]
Figures = dict[str, list[float]]


def row(what: str, figures: Figures) -> None:
    cells = [
        f"{statistics.median(times):8.2f} / {sorted(times)[round(0.99 * (len(times) - 1))]:8.2f}" if times else "cannot"
        for times in figures.values()
    ]
    print(f"  {what:<52}" + "".join(f"{cell:>22}" for cell in cells), flush=True)


async def timed(figures: Figures, name: str, act: Act) -> None:
    began = time.perf_counter()
    await act()
    figures.setdefault(name, []).append((time.perf_counter() - began) * 1000)


async def proven(proof: Awaitable[StopProof]) -> None:
    found = await proof
    if not found.confirmed:
        raise SystemExit(f"not proven: {found}")


# -- this runtime -----------------------------------------------------------------------------------------------------


class Fleet:
    """Agents of one fork server."""

    def __init__(self, server: ForkServer, root: str) -> None:
        self._server, self._root = server, root
        self._tools: list[asyncio.Task[object]] = []
        self.agents: list[AgentProcess] = []

    async def add(self, processes: int) -> None:
        """One agent: its worker, and with more than one process a tool with children."""
        number = len(self.agents)
        plan = SandboxPlan(agent=AgentName(f"a{number}"), run=RunId(f"r{number}"), root=self._root, rights=Rights())
        process = await self._server.launch(plan)
        self.agents.append(process)
        if processes > 1:
            arguments = {"children": processes - 2}
            request = ToolRequest(call=CallId("c"), tool="x", arguments=arguments, root=self._root, timeout_s=600)
            up = asyncio.Event()
            self._tools.append(spawn(process.run_tool(request, lambda _stream, _data: up.set())))
            await up.wait()

    async def all(self, act: Callable[[AgentProcess], Awaitable[StopProof]]) -> None:
        await asyncio.gather(*(proven(act(agent)) for agent in self.agents))

    async def end(self) -> None:
        for tool in self._tools:
            await cancel_and_wait(tool)


@asynccontextmanager
async def fork_server(places: Places | None) -> AsyncGenerator[tuple[ForkServer, str]]:
    enforcer = Enforcer() if places is None else Enforcer.open(places)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "bench_control_tools.py").write_text(TOOLS)
        server = ForkServer(
            enforcer=enforcer,
            confine=False,
            tool_function="bench_control_tools:execute",
            import_paths=[folder],
        )
        try:
            yield server, folder
        finally:
            await server.aclose()
            enforcer.close()


async def measured(server: ForkServer, root: str, processes: int, agents: int, rounds: int) -> Figures:
    figures: Figures = {}
    for _ in range(rounds):
        fleet = Fleet(server, root)
        for _ in range(agents):
            await fleet.add(processes)
        await timed(figures, "pause", lambda fleet=fleet: fleet.all(lambda agent: agent.pause()))
        await timed(figures, "resume", lambda fleet=fleet: fleet.all(lambda agent: agent.resume()))
        await timed(figures, "kill", lambda fleet=fleet: fleet.all(lambda agent: agent.kill()))
        await fleet.end()
    return figures


# -- others -----------------------------------------------------------------------------------------------------------


async def command(*words: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    if await process.wait():
        raise OSError(f"{' '.join(words)} ended with {process.returncode}")


def group_of(marker: str) -> list[int]:
    """Processes with the marker in their command line."""
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if marker.encode() in words:
                found.append(int(folder.name))
    return found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


class Other(NamedTuple):
    daemon: tuple[str, ...]
    control: tuple[str, ...]
    pause: tuple[str, ...]
    resume: tuple[str, ...]
    pauses_trees: bool


def supervisord(folder: Path, state: Path, tree: str) -> Other:
    config = state / "supervisord.conf"
    config.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={state}/log\npidfile={state}/pid\n"
        f"[unix_http_server]\nfile={state}/sock\n[supervisorctl]\nserverurl=unix://{state}/sock\n"
        "[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
        f"[program:tree]\ncommand={tree}\n"
        "stopsignal=KILL\nkillasgroup=true\nstopasgroup=true\nstartsecs=0\nautorestart=false\n"
    )
    return Other(
        (str(folder / "supervisord"), "-c", str(config)),
        (str(folder / "supervisorctl"), "-c", str(config)),
        ("signal", "STOP", "tree"),
        ("signal", "CONT", "tree"),
        pauses_trees=False,
    )


def circus(folder: Path, state: Path, tree: str) -> Other:
    config = state / "circus.ini"
    config.write_text(
        f"[circus]\nendpoint = ipc://{state}/control\npubsub_endpoint = ipc://{state}/events\n"
        f"[watcher:tree]\ncmd = {tree}\nstop_signal = KILL\nstop_children = True\nrespawn = False\n"
    )
    return Other(
        (str(folder / "circusd"), str(config)),
        (str(folder / "circusctl"), "--endpoint", f"ipc://{state}/control"),
        ("signal", "tree", "STOP", "--recursive"),
        ("signal", "tree", "CONT", "--recursive"),
        pauses_trees=True,
    )


async def other(make: Callable[[Path, Path, str], Other], folder: Path, processes: int, rounds: int) -> Figures:
    """Raises OSError, TimeoutError: it did not do what it was told."""
    figures: Figures = {name: [] for name in ACTS}
    with tempfile.TemporaryDirectory() as state:
        program, marker = Path(state, "tree.py"), f"{state}/marker"
        program.write_text(OTHERS)
        it = make(folder, Path(state), f"{sys.executable} {program} {processes} {marker}")
        daemon = await asyncio.create_subprocess_exec(*it.daemon, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            await until(lambda: len(group_of(marker)) == processes)
            for number in range(rounds):
                if number:
                    await command(*it.control, "start", "tree")
                    await until(lambda: len(group_of(marker)) == processes)
                pids = group_of(marker)
                if it.pauses_trees or processes == 1:
                    await timed(figures, "pause", partial(_told, (*it.control, *it.pause), pids, "T"))
                    await timed(figures, "resume", partial(_told, (*it.control, *it.resume), pids, "SR"))
                await timed(figures, "kill", partial(_told, (*it.control, "stop", "tree"), pids, "ZX-"))
        finally:
            daemon.terminate()
            await daemon.wait()
            for pid in group_of(marker):
                # What it has left behind.
                os.kill(pid, signal.SIGKILL)
    return figures


async def _told(words: Sequence[str], pids: Sequence[int], letters: str) -> None:
    """Until all are in one of these states; `-`: gone."""
    await command(*words)
    await until(lambda: all((stat.state if (stat := proc_stat(pid)) else "-") in letters for pid in pids))


async def others(folder: Path | None, rounds: int) -> None:
    for name, make in (("supervisord", supervisord), ("circus", circus)):
        if folder is None:
            print(f"  {name}: not measured, no FOLDER with it was given")
            continue
        for processes in SIZES:
            try:
                row(f"{name}, {processes} processes, {rounds} rounds", await other(make, folder, processes, rounds))
            except (OSError, TimeoutError) as error:
                print(f"  {name}, {processes} processes: {type(error).__name__}: {error}")


async def main(rounds: int, folder: Path | None) -> None:
    print(f"Median / p99 in ms of {rounds}; half of our processes have sessions of their own, all ignore SIGTERM")
    print(f"  {'':<52}" + "".join(f"{name:>22}" for name in ACTS))
    own = own_places()
    v1 = {name: place for name, place in own.v1.items() if name == "freezer"}
    medians: dict[tuple[str, str], Figures] = {}
    for name, places in (("cgroup v2", Places(own.v2, {})), ("cgroup v1", Places(None, v1)), ("signals", None)):
        async with fork_server(places) as (server, root):
            for processes, agents in (*((size, 1) for size in SIZES), (1, FLEET)):
                figures = await measured(
                    server, root, processes, agents, rounds if agents == 1 else max(rounds // 10, 1)
                )
                what = f"{processes} processes" if agents == 1 else f"{agents} agents at once"
                medians[name, what] = figures
                row(f"{name}, {what}", figures)
    await others(folder, max(rounds // 10, 3))
    print("signals : cgroup v2, of medians")
    for (name, what), figures in medians.items():
        if name == "signals":
            best = medians["cgroup v2", what]
            ratios = {act: statistics.median(times) / statistics.median(best[act]) for act, times in figures.items()}
            print(f"  {what:<30}" + "".join(f"{act} {ratio:5.1f}   " for act, ratio in ratios.items()))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100, Path(sys.argv[2]) if len(sys.argv) > 2 else None))
