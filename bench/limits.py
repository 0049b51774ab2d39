"""What holding limits costs, and how exactly they hold: control groups beside what is done without them, in one run.

    python bench/limits.py [AGENTS]

Quote the ratios: machines are noisy, and both sides of each ratio are measured here, one after the other.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.clock import SystemClock
from toka_runtime.limits.enforcer import Enforcer
from toka_runtime.limits.kernel_log import KernelLog
from toka_runtime.limits.meter import TreeMeter
from toka_runtime.limits.tree_watch import Folders, TreeWatch
from toka_runtime.limits.watch import LimitWatch
from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.events import LimitReached
from toka_runtime.protocol.ids import AgentName, CallId, RunId
from toka_runtime.protocol.limits import LimitName
from toka_runtime.protocol.usage import ResourceLimits
from toka_runtime.sandbox.launcher import ForkServer
from toka_runtime.sandbox.plan import AgentProcess, SandboxPlan, StopProof, ToolRequest

TOOLS = """
import os, signal, subprocess, time
def execute(request, emit):
    what = request["arguments"]
    for _ in range(what.get("sleepers", 0)):
        subprocess.Popen(["sleep", "1000"])
    for _ in range(what.get("hogs", 0)):
        if os.fork() == 0:
            while True:
                pass
    emit("stdout", b"up")
    held = []
    while what.get("eats"):
        held.append(b"x" * (4 << 20))
    signal.pause()
"""
MIB = 1 << 20
LIMIT = 256 * MIB
ROUNDS = 15
HOG_S = 6.0


def row(name: str, value: str) -> None:
    print(f"  {name:<72} {value}")


def median_ms(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    return (
        f"{statistics.median(ordered) * 1000:8.2f} ms   (best {ordered[0] * 1000:.2f}, worst {ordered[-1] * 1000:.2f})"
    )


def timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


class Bench:
    def __init__(self, server: ForkServer, root: str) -> None:
        self.server = server
        self._root = root
        self._number = 0

    async def launch(self, limits: ResourceLimits) -> tuple[AgentProcess, SandboxPlan]:
        self._number += 1
        plan = SandboxPlan(
            agent=AgentName(f"agent-{self._number}"),
            run=RunId(f"r{self._number}"),
            root=self._root,
            rights=Rights(),
            limits=limits,
        )
        return await self.server.launch(plan), plan

    @asynccontextmanager
    async def at_work(self, limits: ResourceLimits, **what: int) -> AsyncIterator[tuple[AgentProcess, SandboxPlan]]:
        """An agent whose tool does this, until the block ends."""
        agent, plan = await self.launch(limits)
        up = asyncio.Event()
        request = ToolRequest(call=CallId("c"), tool="work", arguments=dict(what), root=plan.root, timeout_s=600)
        running = spawn(agent.run_tool(request, lambda stream, data: up.set()))
        await up.wait()
        try:
            yield agent, plan
        finally:
            await cancel_and_wait(running)
            await agent.kill()


def watch_of(agent: AgentProcess, plan: SandboxPlan, log: KernelLog) -> TreeWatch:
    return TreeWatch(
        agent.process,
        plan.limits,
        agent.held,
        Folders((plan.root,)),
        processes_held=True,
        kernel_log=log,
        now=time.monotonic(),
    )


@asynccontextmanager
async def watched(
    agent: AgentProcess, plan: SandboxPlan, reached: Callable[[LimitReached], None]
) -> AsyncIterator[None]:
    async def tell(event: LimitReached) -> None:
        reached(event)

    watching = LimitWatch(SystemClock())
    watching.add(watch_of(agent, plan, KernelLog()), tell, agent.brake)
    running = spawn(watching.run())
    try:
        yield
    finally:
        await cancel_and_wait(running)


async def bomb(bench: Bench) -> tuple[float, float, str]:
    """(most that it had, seconds from its start to the word, mechanism)."""
    told: asyncio.Future[LimitReached] = asyncio.get_running_loop().create_future()

    def reached(event: LimitReached) -> None:
        if not told.done():
            told.set_result(event)

    agent, plan = await bench.launch(ResourceLimits(memory_bytes=LIMIT))
    async with watched(agent, plan, reached):
        request = ToolRequest(call=CallId("c"), tool="work", arguments={"eats": 1}, root=plan.root, timeout_s=600)
        began = time.perf_counter()
        running = spawn(agent.run_tool(request, lambda stream, data: None))
        event = await told
        took = time.perf_counter() - began
        await agent.kill()
        await cancel_and_wait(running)
    return event.used, took, event.mechanism


async def hog(bench: Bench, asked: float) -> float:
    """Share of one core that two hogs were given."""
    async with (
        bench.at_work(ResourceLimits(cpu_fraction=asked), hogs=2) as (agent, plan),
        watched(agent, plan, lambda event: None),
    ):
        meter = TreeMeter(agent.process)
        first, began = meter.sample().cpu_s, time.perf_counter()
        await asyncio.sleep(HOG_S)
        return (meter.sample().cpu_s - first) / (time.perf_counter() - began)


async def stopping(bench: Bench, processes: int) -> dict[str, list[float]]:
    """Freeze and kill one tree, by each mechanism."""
    found: dict[str, list[float]] = {}

    def note(proof: StopProof, act: str) -> None:
        assert proof.confirmed
        found.setdefault(f"{act} by {proof.mechanism}", []).append(proof.duration_ms / 1000)

    for _ in range(ROUNDS):
        async with bench.at_work(ResourceLimits(), sleepers=processes) as (agent, _):
            note(await agent.pause(), "pause")
            note(await agent.resume(), "resume")
            if (freezer := agent.held.freezer) is not None:
                found.setdefault(f"freeze by {freezer.mechanism}", []).append(timed(lambda: freezer.freeze(2.0)))
                freezer.thaw(2.0)
            note(await agent.kill(), "kill")
        async with bench.at_work(ResourceLimits(), sleepers=processes) as (agent, _):
            if (killer := agent.held.killer) is not None:
                found.setdefault(f"kill by {killer.mechanism}", []).append(timed(lambda: killer.kill(2.0)))
    return found


async def watching(bench: Bench, agents: int, limits: ResourceLimits) -> tuple[float, float]:
    """(processor time of one round of looks, what passes between two), in seconds."""
    started = await asyncio.gather(*(bench.launch(limits) for _ in range(agents)))
    log = KernelLog()
    watches = [watch_of(agent, plan, log) for agent, plan in started]
    for watch in watches:
        watch.look(time.monotonic())
    rounds: list[float] = []
    for _ in range(ROUNDS):
        # What this process works, not what it waits for others who have the processor.
        began = time.process_time()
        for watch in watches:
            watch.look(time.monotonic())
        rounds.append(time.process_time() - began)
    await asyncio.gather(*(agent.kill() for agent, _ in started))
    return statistics.median(rounds), watches[0].interval_s


async def launches(bench: Bench, limits: ResourceLimits) -> list[float]:
    took: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        agent, _ = await bench.launch(limits)
        took.append(time.perf_counter() - began)
        await agent.kill()
    return took


async def measure(name: str, enforcer: Enforcer, agents: int, root: str) -> None:
    print(f"\n{name}" + (f": {enforcer.problem}" if enforcer.problem else ""))
    limits = ResourceLimits(memory_bytes=LIMIT, cpu_fraction=0.25)
    server = ForkServer(
        worker_main="toka_runtime.worker.loop:main",
        tool_function="tools:execute",
        import_paths=[root],
        enforcer=enforcer,
    )
    bench = Bench(server, root)
    try:
        await server.start()
        made = [timed(lambda: enforcer.prepare(RunId("r"), limits, processes=64).close()) for _ in range(100)]
        row("make the groups of one agent and remove them", median_ms(made))
        row("start an agent (no walls)", median_ms(await launches(bench, limits)))
        used, took, mechanism = await bomb(bench)
        row(
            f"memory bomb, {LIMIT // MIB} MiB allowed, held by {mechanism}",
            f"{used / MIB:8.0f} MiB after {took * 1000:.0f} ms",
        )
        how = enforcer.mechanism(LimitName.CPU) or "stop and go"
        for asked in (0.25, 0.75):
            row(f"two processor hogs, {asked:.0%} of a core allowed, held by {how}", f"{await hog(bench, asked):8.1%}")
        one, interval = await watching(bench, agents, limits)
        row(
            f"look at {agents} agents once, of the processor's time",
            f"{one * 1000:8.2f} ms   ({one / interval:.1%} of a core while they are calm)",
        )
        for processes in (1, 10, 100):
            for act, times in sorted((await stopping(bench, processes)).items()):
                row(f"{act}, {processes} processes", median_ms(times))
    finally:
        await server.aclose()


async def main() -> None:
    agents = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory(prefix="toka-bench-") as root:
        Path(root, "tools.py").write_text(TOOLS)
        enforcer = Enforcer.open()
        try:
            await measure("with the control groups of this host", enforcer, agents, root)
        finally:
            enforcer.close()
        await measure("without control groups", Enforcer(), agents, root)


if __name__ == "__main__":
    asyncio.run(main())
