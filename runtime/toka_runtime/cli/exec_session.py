"""One agent's sandbox for one command of the operator's: started, watched, ended and proven empty."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from toka_runtime.aio import cancel_and_wait, see_through, spawn
from toka_runtime.broker.denials import DenialLog
from toka_runtime.broker.kernel_refusals import kernel_denial
from toka_runtime.broker.proxy import EgressProxy, proxy_environment
from toka_runtime.cli.exec_report import Report
from toka_runtime.cli.exec_start import TOOL_FUNCTION, WORKER_MAIN, Start
from toka_runtime.cli.exec_terminal import Terminal
from toka_runtime.cli.exit_codes import ExecCode
from toka_runtime.clock import SystemClock
from toka_runtime.errors import ProcessError, SandboxUnavailable
from toka_runtime.policy.catalogue import Catalogue
from toka_runtime.policy.engine import decide
from toka_runtime.protocol.capability import Operation, Rights
from toka_runtime.protocol.ids import CallId, new_run_id
from toka_runtime.protocol.spec import AgentSpec
from toka_runtime.protocol.states import StopReason
from toka_runtime.sandbox.launcher import ForkServer
from toka_runtime.sandbox.plan import KernelRefusal, SandboxPlan, ToolOutcome, ToolRequest
from toka_runtime.sandbox.process import ShimProcess
from toka_runtime.sandbox.toolchains import tool_environment
from toka_runtime.sandbox.view import operators_user
from toka_runtime.supervisor.agent_environment import agent_environment, make_scratch
from toka_runtime.supervisor.limits_watch import LimitGuard, Reactions

GRACE_S = 2.0
"""Between SIGTERM and the end by force, when the time is over."""
LONG_S = 10 * 365 * 86400.0
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@dataclass(frozen=True, slots=True)
class Order:
    spec: AgentSpec
    rights: Rights
    catalogue: Catalogue
    workspace: Path
    command: tuple[str, ...]
    environment: dict[str, str]
    """What the operator passes on; it wins."""
    timeout_s: float | None


def run_order(order: Order, report: Report, start: Start) -> int:
    """The exit code. Raises SandboxUnavailable and other TokaErrors: nothing was started then, or it is unknown what is
    left."""
    return asyncio.run(_run(order, report, start))


async def _run(order: Order, report: Report, start: Start) -> int:
    user = _user(order.workspace)
    scratch = Path(tempfile.mkdtemp(prefix="toka-exec-"))
    try:
        make_scratch(scratch)
        if user is not None:
            for folder in (scratch, *scratch.iterdir()):
                os.chown(folder, user, user)
        clock = SystemClock()
        guard = LimitGuard(start.enforcer, clock, redact=str, on_failure=_defect)
        server = ForkServer(
            confine=True,
            enforcer=start.enforcer,
            worker_main=WORKER_MAIN,
            tool_function=TOOL_FUNCTION,
            beginning=start.take(),
        )
        try:
            guard.start()
            guard.in_force(order.spec, confined=True)
            process = await server.launch(_plan(order, scratch))
            assert isinstance(process, ShimProcess)  # noqa: S101  # which alone passes descriptors on
            report.protections = process.protections
            async with _proxied(order, process, report) as denials:
                return await _Session(order, process, report, denials, guard).run()
        finally:
            await see_through(server.aclose())
            await see_through(guard.aclose())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _user(workspace: Path) -> int | None:
    try:
        return operators_user(str(workspace))
    except SandboxUnavailable:
        raise SandboxUnavailable(
            f"{workspace} belongs to root, and a sandboxed command never runs as root",
            hint="run this as an ordinary user, or give a folder to one (chown) and name it with --workspace",
        ) from None


def _defect(name: str, error: BaseException) -> None:
    print(f"error [internal]: {name}: {error!r}", file=sys.stderr)


def _plan(order: Order, scratch: Path) -> SandboxPlan:
    limits = order.spec.security.limits
    return SandboxPlan(
        agent=order.spec.name,
        run=new_run_id(),
        root=str(order.workspace),
        rights=order.rights,
        limits=limits,
        environment=agent_environment(order.spec, scratch),
        scratch=(str(scratch),),
        own_folder=False,
    )


@asynccontextmanager
async def _proxied(order: Order, process: ShimProcess, report: Report) -> AsyncGenerator[DenialLog]:
    clock = SystemClock()
    proxy = EgressProxy(
        rights=lambda: order.rights,
        emit=report.emit,
        clock=clock,
        limits=order.spec.security.limits,
        catalogue=order.catalogue,
        on_failure=_defect,
    )
    denials = DenialLog(report.emit, clock)
    try:
        if process.listener is not None:
            await proxy.serve(process.listener)
        yield denials
    finally:
        await see_through(proxy.aclose())
        await see_through(denials.flush())


class _Session:
    def __init__(
        self, order: Order, process: ShimProcess, report: Report, denials: DenialLog, guard: LimitGuard
    ) -> None:
        self._order, self._process, self._report = order, process, report
        self._denials, self._guard = denials, guard
        self._limit_reached = False

    async def run(self) -> int:
        reactions = Reactions(record=self._report.emit, stands=lambda: self._limit_reached, obey=self._end)
        watch = self._guard.watch(self._process, self._process.plan, reactions)
        signals, pass_on = os.pipe()
        loop = asyncio.get_running_loop()
        for number in _PASSED_ON:
            loop.add_signal_handler(number, partial(_pass_on, pass_on, number))
        try:
            with Terminal() as terminal:
                running = spawn(self._command(terminal, signals), name="command")
                try:
                    done = await asyncio.wait({running}, timeout=self._order.timeout_s)
                    if not done[0]:
                        _pass_on(pass_on, signal.SIGTERM)
                        await asyncio.wait({running}, timeout=GRACE_S)
                        self._report.limit = "timeout"
                        return ExecCode.TIMEOUT
                    if self._limit_reached:
                        return ExecCode.LIMIT
                    outcome = running.result()
                finally:
                    await cancel_and_wait(running)
                    # While the control groups are still there.
                    self._report.peak_memory_bytes = self._process.held.memory_peak_bytes() or None
                    last = await see_through(self._guard.finish(watch, reactions))
                    await see_through(self._ended())
        finally:
            for number in _PASSED_ON:
                loop.remove_signal_handler(number)
            os.close(signals)
            os.close(pass_on)
        return ExecCode.LIMIT if last is not None else self._code(outcome)

    async def _ended(self) -> None:
        proof = await self._process.kill()
        if not proof.confirmed:
            raise ProcessError(f"the end of the command is not proven; still there: {list(proof.survivors)}")

    async def _command(self, terminal: Terminal, signals: int) -> ToolOutcome:
        plan, order = self._process.plan, self._order
        visible = {name: os.environ[name] for name in order.rights.environment if name in os.environ}
        made = plan.environment | tool_environment(order.rights, plan.environment)
        if terminal.used and "TERM" in os.environ:
            made["TERM"] = os.environ["TERM"]
            del made["NO_COLOR"]
        if self._process.listener is not None:
            made |= proxy_environment(self._process.listener)
        request = ToolRequest(
            call=CallId("exec"),
            # Under this name it gets what the tool of this name gets.
            tool="run_command",
            arguments={"argv": list(order.command)},
            root=plan.root,
            environment=visible | made | order.environment,
            timeout_s=LONG_S,
        )
        standard = (*terminal.descriptors, signals)
        return await self._process.run_tool(request, lambda stream, data: None, self._refused, standard)

    async def _refused(self, refusal: KernelRefusal) -> None:
        root, rights = self._process.plan.root, self._order.rights
        target = refusal.target.removeprefix(f"{root}/") if refusal.target != root else "."
        operation = Operation(kind=refusal.kind, target=target, tool="run_command", call=CallId("exec"))
        remedies = self._order.catalogue.remedies
        denial = kernel_denial(operation, refusal.rule, lambda asked: decide(asked, rights, remedies))
        await self._denials.tell(denial, -1, refusal.count)

    async def _end(self, reason: StopReason, detail: str) -> None:
        del reason
        self._limit_reached = True
        print(f"toka-runtime exec: ended: {detail}", file=sys.stderr)
        await self._process.kill()

    def _code(self, outcome: ToolOutcome) -> int:
        if outcome.code in ("tool.not_found", "tool.refused"):
            print(f"toka-runtime exec: {outcome.content}", file=sys.stderr)
            return ExecCode.NOT_FOUND if outcome.code == "tool.not_found" else ExecCode.REFUSED
        if not outcome.ok or outcome.exit_code is None:
            raise SandboxUnavailable(f"the command could not be run: {outcome.content}")
        cpu, memory = outcome.content.split()[:2]
        self._report.cpu_s, self._report.largest_process_bytes = float(cpu), int(memory)
        return outcome.exit_code if outcome.exit_code >= 0 else 128 - outcome.exit_code


def _pass_on(pipe: int, number: int) -> None:
    with suppress(OSError):
        os.write(pipe, bytes((number,)))
