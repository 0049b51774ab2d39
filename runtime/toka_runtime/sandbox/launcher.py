"""Starts agents: keeps the fork server alive and asks it for one shim an agent."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from toka_runtime.aio import see_through
from toka_runtime.clock import Clock, SystemClock
from toka_runtime.errors import ForkServerLost, ProcessError, SandboxUnavailable
from toka_runtime.limits import defaults
from toka_runtime.limits.enforcer import Enforcer, Held
from toka_runtime.protocol.limits import LimitName, OnLimit
from toka_runtime.protocol.spec import SandboxMode
from toka_runtime.sandbox.channel import FrameChannel
from toka_runtime.sandbox.control import Message
from toka_runtime.sandbox.plan import AgentProcess, SandboxPlan, StopProof
from toka_runtime.sandbox.process import UNCONFINED, ShimProcess
from toka_runtime.sandbox.requests import ControlPeer, Refused, process_end
from toka_runtime.sandbox.view import agent_user, confinement_of, give_to
from toka_runtime.sandbox.zygote_start import COMMAND, TOOL_FUNCTION, WORKER_MAIN, Beginning, begin_zygote

READY_S = 30.0
"""For the fork server to load: a slow disk with cold caches is waited for."""
FORK_S = 30.0
"""For a fork, with many others before it in the queue."""
END_S = 10.0

StderrSink = Callable[[SandboxPlan, bytes], None]


class ForkServer:
    """Implements Launcher. The fork server starts with `start` or the first launch. When it dies, running agents live
    on (each has its own line to the runtime) and the next launch starts another one."""

    def __init__(
        self,
        *,
        on_stderr: StderrSink | None = None,
        clock: Clock | None = None,
        worker_main: str = WORKER_MAIN,
        tool_function: str = TOOL_FUNCTION,
        import_paths: Sequence[str] = (),
        confine: bool = False,
        enforcer: Enforcer | None = None,
        on_start: Callable[[int], None] | None = None,
        beginning: Beginning | None = None,
    ) -> None:
        """`on_stderr` gets what workers write to their error output. `worker_main` and `tool_function`
        (`module:function`, found in `import_paths`) replace what runs in the children. `enforcer` makes the
        agents' control groups (None: there are none). `on_start` is told the pid of each fork server.
        `beginning` is taken for the first one; it has to be of the same `worker_main` and `tool_function`."""
        self._on_stderr = on_stderr
        self._on_start = on_start
        self._beginning = beginning
        self._clock = clock or SystemClock()
        self._worker_main, self._tool_function = worker_main, tool_function
        self._import_paths = tuple(import_paths)
        self._confine = confine
        self._enforcer = enforcer or Enforcer()
        self._zygote: ZygoteProcess | None = None
        self._starting = asyncio.Lock()
        self._agents: dict[ShimProcess, ZygoteProcess] = {}
        self._closed = False

    @property
    def zygote_pid(self) -> int | None:
        """None while no fork server lives."""
        return self._zygote.pid if self._zygote is not None and not self._zygote.closed else None

    async def start(self) -> None:
        """Have a fork server ready. Raises ProcessError, SandboxUnavailable."""
        await self._ready_zygote()

    async def launch(self, plan: SandboxPlan) -> AgentProcess:
        zygote = await self._ready_zygote()
        with ExitStack() as childrens_ends:
            process, descriptors = await self._prepare(plan, zygote, childrens_ends)
            try:
                process.held = await self._held(plan)
                confinement = await self._confinement(plan, process)
                process.confined = confinement is not None
                await process.start(_forked(zygote, plan, process.held, confinement, childrens_ends, descriptors))
            except BaseException:
                # Only with these closed is the end of the other side the end of the file.
                childrens_ends.close()
                await see_through(self._kill(process))
                raise
        return process

    async def _prepare(
        self, plan: SandboxPlan, zygote: ZygoteProcess, childrens_ends: ExitStack
    ) -> tuple[ShimProcess, tuple[int, int, int]]:
        """The runtime's side of an agent that is not born yet, and the descriptors that the shim is to get."""
        with ExitStack() as ours:
            try:
                control, shim_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                ours.enter_context(control)
                childrens_ends.enter_context(shim_end)
                worker, worker_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
                ours.enter_context(worker)
                childrens_ends.enter_context(worker_end)
                errors, errors_end = os.pipe()
                ours.callback(os.close, errors)
                childrens_ends.callback(os.close, errors_end)
            except OSError as error:
                message = f"{plan.agent} could not be started: {error.strerror}"
                raise ProcessError(message, hint="raise the limit of open files (ulimit -n)") from None
            channel = await FrameChannel.open(worker, f"the worker of {plan.agent}")
            if self._closed:
                channel.close()
                raise ProcessError("the launcher is closed")
            process = ShimProcess(
                plan,
                control,
                errors,
                channel,
                clock=self._clock,
                on_stderr=self._on_stderr,
                gone=lambda: zygote.remains(process.process.pid),
            )
            ours.pop_all()
        self._agents[process] = zygote
        return process, (shim_end.fileno(), worker_end.fileno(), errors_end)

    async def _held(self, plan: SandboxPlan) -> Held:
        """Raises ProcessError: half a set of limits is none."""
        processes = plan.limits.processes or defaults.PROCESSES
        whole = plan.on_limit is OnLimit.KILL
        try:
            return await asyncio.to_thread(
                self._enforcer.prepare, plan.run, plan.limits, processes=processes, whole=whole
            )
        except OSError as error:
            raise ProcessError(f"the control groups of {plan.agent} could not be made: {error}") from None

    async def _confinement(self, plan: SandboxPlan, process: ShimProcess) -> dict[str, Any] | None:
        """None where the agent is not to be confined. Raises SandboxUnavailable."""
        if not self._confine or plan.mode is SandboxMode.NONE:
            return None
        process.user = user = agent_user(plan, {other.user for other in self._agents if other.user is not None})
        try:
            if user is not None and plan.own_folder:
                await asyncio.to_thread(give_to, user, (plan.root, *plan.scratch))
            counted = LimitName.PROCESSES in process.held.limits
            return await asyncio.to_thread(confinement_of, plan, user, processes_counted=counted)
        except OSError as error:
            raise SandboxUnavailable(f"the view of {plan.agent} cannot be made: {error}") from None

    async def aclose(self) -> None:
        """Raises ProcessError when a process is left, naming it. Safe to call twice."""
        self._closed = True
        async with self._starting:
            pass  # A fork server that is being started is seen through; nothing is launched after it.
        proofs = await asyncio.gather(*(self._kill(process) for process in list(self._agents)))
        for process in self._agents:
            process.close()
        if self._beginning is not None:
            await asyncio.to_thread(self._beginning.abandon)
            self._beginning = None
        if self._zygote is not None:
            await self._zygote.aclose()
        self._agents.clear()
        survivors = sorted({pid for proof in proofs for pid in proof.survivors})
        unconfirmed = sum(not proof.confirmed for proof in proofs)
        if unconfirmed:
            left = f"still there: {survivors}" if survivors else "what they left is unknown"
            raise ProcessError(f"the end of {unconfirmed} agents could not be confirmed; {left}")

    async def _kill(self, process: ShimProcess) -> StopProof:
        proof = await process.kill()
        if proof.confirmed:
            self._forget(process)
        return proof

    def _forget(self, process: ShimProcess) -> None:
        if (zygote := self._agents.pop(process, None)) is not None:
            zygote.forget(process.process.pid)

    async def _ready_zygote(self) -> ZygoteProcess:
        async with self._starting:
            if self._closed:
                raise ProcessError("the launcher is closed")
            for process in [process for process in self._agents if process.ended]:
                self._forget(process)
            if self._zygote is not None and not self._zygote.closed:
                return self._zygote
            if self._zygote is not None:
                await self._zygote.aclose()
            beginning = self._beginning or begin_zygote(
                self._worker_main, self._tool_function, self._import_paths, command=COMMAND
            )
            self._beginning = None
            self._zygote = await ZygoteProcess.start(beginning)
            if self._on_start is not None:
                self._on_start(self._zygote.pid)
            return self._zygote


async def _forked(
    zygote: ZygoteProcess,
    plan: SandboxPlan,
    held: Held,
    confinement: dict[str, Any] | None,
    childrens_ends: ExitStack,
    descriptors: tuple[int, int, int],
) -> int:
    pid = await zygote.fork_shim(plan, held.groups, confinement, *descriptors)
    # It has its own now. With ours open a shim that dies at once would not be missed.
    childrens_ends.close()
    return pid


class ZygoteProcess:
    """The runtime's side of one fork server."""

    def __init__(self, beginning: Beginning) -> None:
        process, control, log = beginning
        self.pid = process.pid
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[Message] = self._loop.create_future()
        self._remains: dict[int, asyncio.Future[tuple[int, ...] | None]] = {}
        self._control = ControlPeer(control, f"the fork server (pid {process.pid})", self._event, self._control_closed)

    @property
    def closed(self) -> bool:
        return self._control.closed

    @classmethod
    async def start(cls, beginning: Beginning) -> ZygoteProcess:
        """When it is ready. Raises ProcessError, SandboxUnavailable."""
        zygote = cls(beginning)
        try:
            async with asyncio.timeout(READY_S):
                message = await zygote._ready
        except TimeoutError:
            await see_through(zygote.aclose())
            raise ProcessError(f"the fork server was not ready within {READY_S:g} s") from None
        except BaseException:
            await see_through(zygote.aclose())
            raise
        if message["t"] != "ready":
            await see_through(zygote.aclose())
            raise SandboxUnavailable(f"the fork server cannot work here: {message.get('error')}")
        return zygote

    async def fork_shim(
        self, plan: SandboxPlan, groups: Sequence[str], confinement: dict[str, Any] | None, *descriptors: int
    ) -> int:
        """The pid of a new shim. Raises ProcessError, saying so when the fork server has died."""
        try:
            answer = await self._control.request(
                "shim",
                timeout_s=FORK_S,
                descriptors=descriptors,
                agent=plan.agent,
                confinement=confinement,
                groups=list(groups),
            )
        except Refused as error:
            if confinement is None:
                raise
            raise SandboxUnavailable(
                f"{plan.agent} cannot be confined here and is not started: {error.message}",
                hint=UNCONFINED,
            ) from None
        except ProcessError as error:
            if not self._control.closed:
                raise
            await asyncio.wait([process_end(self._pidfd)], timeout=1.0)
            code = self._process.poll()
            raise ForkServerLost(
                f"{error.message}: it ended with {code}{self._last_words()}", hint="the next start makes a new one"
            ) from None
        pid = int(answer["pid"])
        self._remains[pid] = self._loop.create_future()
        return pid

    async def remains(self, shim: int) -> tuple[int, ...] | None:
        """After the shim has ended: the pids that are left of its tree, all others were killed. None: not known."""
        known = self._remains.get(shim)
        if known is None:
            return None
        await asyncio.wait([known], timeout=END_S)
        return known.result() if known.done() else None

    def forget(self, shim: int) -> None:
        """Nobody will ask about it any more; its number may come to mean another."""
        self._remains.pop(shim, None)

    async def aclose(self) -> None:
        """It kills all that it has forked and ends; by force when it does not. Safe to call twice."""
        self._control.close()
        if self._pidfd < 0:
            return
        end = process_end(self._pidfd)
        await asyncio.wait([end], timeout=END_S)
        if not end.done():
            end.cancel()
            self._process.kill()
        # It has ended, or is about to: this does not wait long.
        await asyncio.to_thread(self._process.wait)
        os.close(self._pidfd)
        os.close(self._log)
        self._pidfd = self._log = -1

    def _event(self, message: Message) -> None:
        match message:
            case {"t": "ready" | "failed"}:
                if not self._ready.done():
                    self._ready.set_result(message)
            case {"t": "gone", "pid": int(pid)}:
                known = self._remains.get(pid)
                if known is not None and not known.done():
                    known.set_result(tuple(message["survivors"]))
            case _:
                pass

    def _control_closed(self) -> None:
        if not self._ready.done():
            self._ready.set_exception(ProcessError(f"the fork server ended while starting{self._last_words()}"))
        for known in self._remains.values():
            if not known.done():
                known.set_result(None)

    def _last_words(self) -> str:
        if self._log < 0:
            return ""
        text = os.pread(self._log, 65536, 0).decode(errors="replace").strip()
        return f"; it said: {text[-1000:]}" if text else ""
