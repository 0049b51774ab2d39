"""What it costs a command to be observed: µs an open inside of the sandbox, and ms a call, each with and without.

The same confined agent and the same program; only the observer is there or not. The design's budget is 50 µs an open.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import tempfile
import time
from pathlib import Path

from toka_runtime.policy.catalogue import load_catalogue
from toka_runtime.policy.rules import compile_rights
from toka_runtime.protocol.ids import AgentName, CallId, RunId
from toka_runtime.protocol.spec import AgentSpec, Security
from toka_runtime.sandbox.launcher import ForkServer
from toka_runtime.sandbox.plan import AgentProcess, KernelRefusal, RefusalSink, SandboxPlan, ToolOutcome, ToolRequest

OPENS, CALLS, ROUNDS = 10_000, 20, 3
PROGRAM = f"""
import os, time
count = {OPENS}
os.makedirs("many", exist_ok=True)
for number in range(count):
    os.close(os.open(f"many/{{number}}", os.O_CREAT | os.O_WRONLY))
def opened(name, path, flags=os.O_RDONLY):
    began = time.perf_counter()
    for number in range(count):
        try:
            os.close(os.open(path.format(number), flags))
        except OSError:
            pass
    print(f"{{name}}={{(time.perf_counter() - began) / count * 1e6:.1f}}")
opened("one system file", "/usr/bin/env")
opened("own files", os.getcwd() + "/many/{{}}")
opened("own files, relative", "many/{{}}")
opened("missing files", "/usr/missing/{{}}")
opened("refused files", "/usr/refused-{{}}", os.O_CREAT | os.O_WRONLY)
"""


async def _drop(refusal: KernelRefusal) -> None:
    del refusal


async def _run(agent: AgentProcess, command: str, root: str, observer: RefusalSink | None) -> ToolOutcome:
    request = ToolRequest(call=CallId("c"), tool="run_command", arguments={"command": command}, root=root)
    return await agent.run_tool(request, lambda stream, data: None, observer)


async def _opens(agent: AgentProcess, root: str, observer: RefusalSink | None) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        outcome = await _run(agent, "python3 -I program.py", root, observer)
        for name, value in re.findall(r"^(.+)=([0-9.]+)$", outcome.content, re.MULTILINE):
            found.setdefault(name, []).append(float(value))
    return {name: statistics.median(values) for name, values in found.items()}


async def _call_ms(agent: AgentProcess, root: str, observer: RefusalSink | None) -> float:
    times: list[float] = []
    for _ in range(CALLS):
        began = time.perf_counter()
        await _run(agent, "true", root, observer)
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="toka-bench-", dir="/var/tmp") as folder:
        root = Path(folder, "agent")
        root.mkdir()
        (root / "program.py").write_text(PROGRAM)
        capabilities = ("filesystem-read", "filesystem-write", "script-execution")
        spec = AgentSpec(name=AgentName("bench"), security=Security(capabilities_required=capabilities))
        plan = SandboxPlan(
            agent=spec.name,
            run=RunId("bench"),
            root=str(root),
            rights=compile_rights(spec, load_catalogue()),
            environment={"PATH": "/usr/bin:/bin"},
        )
        server = ForkServer(confine=True)
        try:
            agent = await server.launch(plan)
            for observer in (None, _drop):
                # Both once before: the first call of each loads what the others find in memory.
                await _run(agent, "true", plan.root, observer)
            alone, observed = await _opens(agent, plan.root, None), await _opens(agent, plan.root, _drop)
            call_alone, call_observed = await _call_ms(agent, plan.root, None), await _call_ms(agent, plan.root, _drop)
        finally:
            await server.aclose()
    print(f"{'':24}{'alone':>10}{'observed':>10}{'cost':>10}")
    for name, value in alone.items():
        print(f"{name:24}{value:7.1f} µs{observed[name]:7.1f} µs{observed[name] - value:7.1f} µs")
    print(f"{'a call of `true`':24}{call_alone:7.1f} ms{call_observed:7.1f} ms{call_observed - call_alone:7.1f} ms")


if __name__ == "__main__":
    asyncio.run(main())
