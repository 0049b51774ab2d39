"""One agent's process tree, seen from the runtime: an AgentProcess over the shim's control socket."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path

from toka_runtime.aio import cancel_and_wait, spawn, to_the_end
from toka_runtime.clock import Clock
from toka_runtime.errors import ProcessError, ProtocolError, SandboxUnavailable
from toka_runtime.limits.cgroup_control import Freezer
from toka_runtime.limits.enforcer import Held
from toka_runtime.protocol.ids import ProcessRef
from toka_runtime.sandbox.channel import FrameChannel
from toka_runtime.sandbox.control import Message
from toka_runtime.sandbox.plan import (
    OutputChunk,
    RefusalSink,
    SandboxPlan,
    StopProof,
    ToolOutcome,
    ToolRequest,
    WorkerChannel,
)
from toka_runtime.sandbox.requests import ControlPeer, NoAnswer, Refused, process_end
from toka_runtime.sandbox.tool_call import ToolCall
from toka_runtime.sandbox.tree import (
    KILL_S,
    PAUSE_S,
    Swept,
    children,
    continue_tree,
    kill_subtree,
    proc_stat,
    stop_tree,
)

TOOL_GRACE_S = 5.0
"""A tool ends itself at its timeout; so much later it is ended from outside."""
ANSWER_S = 5.0
"""For requests that take the shim no time."""
UNCONFINED = (
    "`toka-runtime doctor` says what is missing; `sandbox: none` runs it unconfined, on your own responsibility"
)
START_S = 30.0
"""For being born: the fork server may have many others to fork first."""
PAUSE_ANSWER_S = PAUSE_S + ANSWER_S
GROUP_KILL_S = 2.0
"""For the kernel to empty a control group."""
KILL_ANSWER_S = KILL_S + 1.0
"""Later than this a shim is taken for stuck, and its tree is handled from outside."""
STDERR_TAIL_BYTES = 4096
STDERR_PAUSE_S = 0.05
PIPE_BYTES = 65536
KILLED = -int(signal.SIGKILL)

Gone = Callable[[], Awaitable[tuple[int, ...] | None]]
"""What the fork server says after the shim has ended: the pids that are left of its tree; None when nobody knows."""


class ShimProcess:
    """Implements AgentProcess. Made by `ForkServer.launch`; call `kill` when done with it, also after `wait`."""

    def __init__(
        self,
        plan: SandboxPlan,
        shim: socket.socket,
        errors: int,
        channel: FrameChannel,
        *,
        clock: Clock,
        on_stderr: Callable[[SandboxPlan, bytes], None] | None,
        gone: Gone,
    ) -> None:
        """Owns `shim` (control socket), `errors` (read end of the agent's error output) and `channel`."""
        self.plan = plan
        self.process = ProcessRef(pid=0, started_ticks=0)
        self.worker_pid = 0
        self.listener: socket.socket | None = None
        """On the loopback of a confined agent, for its proxy to serve. Whoever serves it owns it."""
        self._proxy_port: int | None = None
        self.confined = False
        """The kernel is to confine it; set before `start`."""
        self.user: int | None = None
        """Its own user id, where the runtime may give it one (as root)."""
        self.held = Held({})
        """Its control groups; removed with the proof of its end. Set before `start`."""
        self.protections: tuple[str, ...] = ()
        self.channel: WorkerChannel = channel
        self._frames = channel
        self.stderr_tail = b""
        """The last of what the worker (or the interpreter) wrote to its error output."""
        self._clock = clock
        self._on_stderr = on_stderr
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._control = ControlPeer(shim, f"the shim of {plan.agent}", self._event, self._control_closed)
        self._errors = errors
        os.set_blocking(errors, False)
        self._loop.add_reader(errors, self._stderr_readable)
        self._pidfd = -1
        self._exit: asyncio.Future[int] = self._loop.create_future()
        self._empty = asyncio.Event()
        self._shim_gone = asyncio.Event()
        self._calls = count(1)
        self._tools: dict[int, asyncio.Future[int]] = {}
        self._proof: StopProof | None = None
        self._killing: asyncio.Task[StopProof] | None = None
        self._braked = False
        self._frozen: Freezer | None = None
        """What holds the whole tree, its shim included, while it is paused by its control group."""
        self._doomed: set[int] = set()
        """Calls whose tools are to be ended as soon as the shim can."""
        self._stopping = asyncio.Lock()
        """Held by whoever stops the tree or lets it go."""
        self._running = asyncio.Event()
        self._running.set()
        self._paused_s = 0.0
        self._paused_at = 0.0

    async def start(self, pid: Awaitable[int]) -> None:
        """`pid` is the shim's, as the fork server says. Raises ProcessError; `kill` cleans up then."""
        # The shim finds the request when it is born: one wait instead of two.
        answering = spawn(self._control.request("start", timeout_s=START_S, root=self.plan.root))
        try:
            number = await pid
            self._pidfd = os.pidfd_open(number)
            self.process = ProcessRef(pid=number, started_ticks=_started_ticks(number))
            born = await answering
        except (OSError, ProcessLookupError) as error:
            raise ProcessError(f"the shim of {self.plan.agent} ended at once: {error}{self._stderr_text()}") from None
        except SandboxUnavailable:
            raise
        except ProcessError as error:
            message = f"{self.plan.agent} could not be started: {error.message}{self._stderr_text()}"
            if self.confined and isinstance(error, Refused):
                raise SandboxUnavailable(message, hint=UNCONFINED) from None
            raise ProcessError(message, hint=error.hint) from None
        finally:
            await cancel_and_wait(answering)
        if born["started_ticks"] != self.process.started_ticks:
            raise ProcessError(f"process {number} is not the shim of {self.plan.agent}")
        self.worker_pid = _outer_pid(number, int(born["worker"]))
        self.protections = tuple(born["protections"])
        if born["descriptors"]:
            self.listener = socket.socket(fileno=born["descriptors"][0])
            self.listener.setblocking(False)
            self._proxy_port = int(self.listener.getsockname()[1])

    # -- tools ----------------------------------------------------------------------------------------------------

    async def run_tool(
        self,
        request: ToolRequest,
        on_output: OutputChunk,
        on_refused: RefusalSink | None = None,
        standard: Sequence[int] = (),
    ) -> ToolOutcome:
        """See ToolRunner. The time that the agent is paused does not count against the timeout. `standard`: the
        descriptors that `exec_child` wants; the caller keeps its own."""
        number = next(self._calls)
        ended: asyncio.Future[int] = self._loop.create_future()
        self._tools[number] = ended
        call = ToolCall(self.plan, request, on_output, proxy_port=self._proxy_port)
        observed = self.confined and on_refused is not None and call.executes
        channels: list[FrameChannel] = []
        hearing: asyncio.Task[None] | None = None
        try:
            with ExitStack() as childrens_ends:
                descriptors: list[int] = []
                for _ in range(2 if observed else 1):
                    channel, descriptor = await self._tool_channel(request, childrens_ends)
                    channels.append(channel)
                    descriptors.append(descriptor)
                await self._until_thawed()
                await self._control.request(
                    "tool", timeout_s=ANSWER_S, descriptors=[*descriptors, *standard], call=number
                )
            if on_refused is not None and observed:
                hearing = spawn(call.hear(channels[1], on_refused))
            working, ticking = spawn(call.converse(channels[0])), spawn(self._elapse(request.timeout_s + TOOL_GRACE_S))
            try:
                await asyncio.wait({working, ticking}, return_when=asyncio.FIRST_COMPLETED)
                if not working.done():
                    return call.timed_out()
            finally:
                await cancel_and_wait(ticking)
                await cancel_and_wait(working)
            return working.result() or call.without_result(await self._tool_exit(number))
        except ProtocolError as error:
            return call.broken(error)
        finally:
            for channel in channels[:1]:
                channel.close()
            if not ended.done():
                await to_the_end(self._end_tool(number))
            self._tools.pop(number, None)
            if hearing is not None:
                await to_the_end(_heard(hearing))
            for channel in channels:
                channel.close()

    async def _tool_channel(self, request: ToolRequest, childrens_ends: ExitStack) -> tuple[FrameChannel, int]:
        """Our end, and the descriptor of the other. Raises ProcessError."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            raise ProcessError(f"the tool {request.tool} could not be started: {error.strerror}") from None
        childrens_ends.enter_context(theirs)
        try:
            return await FrameChannel.open(ours, f"the tool {request.tool}"), theirs.fileno()
        except BaseException:
            ours.close()
            raise

    async def _until_thawed(self) -> None:
        """The shim hears nothing before. Returns as well when the tree has ended."""
        while self._frozen is not None and not self._control.closed:
            thawing, ending = spawn(self._running.wait()), spawn(self._shim_gone.wait())
            try:
                await asyncio.wait({thawing, ending}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await cancel_and_wait(thawing)
                await cancel_and_wait(ending)

    async def _tool_exit(self, call: int) -> int:
        """The exit code of a tool that has closed its socket."""
        ended = self._tools[call]
        await asyncio.wait([ended], timeout=ANSWER_S)
        if not ended.done() or self._control.closed or self._killing is not None:
            raise ProcessError(f"the process tree of {self.plan.agent} is gone")
        return ended.result()

    async def _end_tool(self, call: int) -> None:
        """Returns when the tool and all that it started are gone, or the whole tree is."""
        ended = self._tools[call]
        if self._frozen is not None:
            # Nothing of it runs; whoever goes on, or ends the tree, sees to it.
            self._doomed.add(call)
            return
        # Normally it is just about to end: it has sent its result.
        await asyncio.wait([ended], timeout=0.05)
        if ended.done() or self._control.closed:
            return
        try:
            answer = await self._control.request("kill_tool", timeout_s=KILL_S + ANSWER_S, call=call)
        except ProcessError:
            return
        if answer.get("unknown"):
            # Cancelled before the shim was asked for it.
            return
        await asyncio.wait([ended], timeout=ANSWER_S)

    async def _elapse(self, seconds: float) -> None:
        began = self._unpaused()
        while (left := seconds - (self._unpaused() - began)) > 0:
            await self._running.wait()
            await self._clock.sleep(left)

    def _unpaused(self) -> float:
        now = self._clock.monotonic()
        return now - self._paused_s - (0.0 if self._running.is_set() else now - self._paused_at)

    # -- pause, resume, stop, kill --------------------------------------------------------------------------------

    async def pause(self) -> StopProof:
        async with self._stopping:
            return await self._pause()

    async def _pause(self) -> StopProof:
        began = time.monotonic()
        if self._running.is_set():
            self._running.clear()
            self._paused_at = self._clock.monotonic()
        try:
            if (proof := await asyncio.to_thread(self._freeze, began)) is not None:
                return proof
            return _proof(await self._ask("stop", PAUSE_ANSWER_S), began)
        except NoAnswer:
            return _proof_of(await asyncio.to_thread(stop_tree, self.process.pid), began)
        except ProcessError:
            self._running.set()
            raise

    def _freeze(self, began: float) -> StopProof | None:
        """None: there is no control group to freeze it by. Blocking."""
        freezer = self.held.freezer
        try:
            if freezer is None or self.process.pid not in freezer.members():
                return None
            confirmed = freezer.freeze(PAUSE_S)
            survivors = () if confirmed else freezer.awake()
            self._frozen = freezer
            return StopProof(
                confirmed=confirmed,
                mechanism=freezer.mechanism,
                processes=len(freezer.members()) - len(survivors),
                duration_ms=(time.monotonic() - began) * 1000,
                survivors=survivors,
            )
        except OSError:
            return None

    def _thaw(self, began: float) -> StopProof | None:
        """None: it was not frozen by its group, which is gone now. Blocking."""
        freezer, self._frozen = self._frozen, None
        if freezer is None:
            return None
        try:
            confirmed = freezer.thaw(PAUSE_S)
            return StopProof(
                confirmed=confirmed,
                mechanism=freezer.mechanism,
                processes=len(freezer.members()),
                duration_ms=(time.monotonic() - began) * 1000,
                survivors=() if confirmed else freezer.members(),
            )
        except OSError:
            return None

    async def resume(self) -> StopProof:
        async with self._stopping:
            return await self._resume()

    async def brake(self, still: bool) -> None:
        async with self._stopping:
            if still == self._braked or not self._running.is_set() or self._proof is not None:
                return
            self._braked = still
            await asyncio.to_thread(stop_tree if still else continue_tree, self.process.pid)

    async def _resume(self) -> StopProof:
        began = time.monotonic()
        proof = await asyncio.to_thread(self._thaw, began)
        if proof is None or self._braked:
            # Those that were stopped by signals, too.
            proof = _proof(await self._ask("continue", PAUSE_ANSWER_S), began)
        self._braked = False
        if not self._running.is_set():
            self._paused_s += self._clock.monotonic() - self._paused_at
            self._running.set()
        doomed, self._doomed = self._doomed, set()
        for call in doomed:
            with suppress(ProcessError):
                await self._control.request("kill_tool", timeout_s=KILL_S + ANSWER_S, call=call)
        return proof

    async def terminate(self, grace_s: float) -> StopProof:
        if self._proof is None:
            try:
                # One that is frozen acts on nothing.
                await asyncio.to_thread(self._thaw, time.monotonic())
                await self._ask("term", PAUSE_ANSWER_S)
                empty, ticking = spawn(self._empty.wait()), spawn(self._clock.sleep(grace_s))
                try:
                    await asyncio.wait({empty, ticking}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    await cancel_and_wait(empty)
                    await cancel_and_wait(ticking)
            except ProcessError:
                pass
        return await self.kill()

    async def kill(self) -> StopProof:
        """Never raises. A proof that is confirmed is final; an unconfirmed kill is tried again by the next call."""
        if self._proof is not None and self._proof.confirmed:
            return self._proof
        if self._killing is None or self._killing.done():
            self._killing = spawn(self._kill(), name=f"kill {self.plan.agent}")
        # Shared, and not ended by a caller who is cancelled.
        return await asyncio.shield(self._killing)

    async def _kill(self) -> StopProof:
        began = time.monotonic()
        proof = await self._kill_group(began)
        if proof is None:
            proof = await self._kill_by_signals(began)
        self._proof = proof
        if proof.confirmed:
            self.close()
            await asyncio.to_thread(self.held.close)
        return proof

    async def _kill_group(self, began: float) -> StopProof | None:
        """None: there is no control group to kill it by, or that was not enough."""
        freezer, killer = self.held.freezer, self.held.killer
        if freezer is None or killer is None:
            return None
        try:
            processes = freezer.members()
            if self.process.pid not in processes:
                return None
            left = await asyncio.to_thread(killer.kill, GROUP_KILL_S)
        except OSError:
            return None
        if left or not await self._shim_ended(ANSWER_S):
            return None
        return StopProof(
            confirmed=True,
            mechanism=killer.mechanism,
            processes=len(processes),
            duration_ms=(time.monotonic() - began) * 1000,
        )

    async def _kill_by_signals(self, began: float) -> StopProof:
        await asyncio.to_thread(self._thaw, began)
        answer: Message | None = None
        with suppress(ProcessError):
            answer = await self._ask("kill", KILL_ANSWER_S)
        if answer is None:
            return await self._kill_from_outside(began)
        if answer["confirmed"]:
            await self._shim_ended(ANSWER_S)
        return _proof(answer, began, more=1)

    async def _kill_from_outside(self, began: float) -> StopProof:
        """The shim is dead, stuck or stopped. What it held goes to the fork server, which kills it."""
        swept = Swept(0, (), 0.0)
        if self._pidfd >= 0 and not await self._shim_ended(0):
            swept = await asyncio.to_thread(kill_subtree, self.process.pid)
            await self._shim_ended(ANSWER_S)
        left = await self._gone() if self.process.pid else ()
        if left is None:
            # Nobody saw where its processes went.
            return _proof_of(swept, began).model_copy(update={"confirmed": False})
        return _proof_of(Swept(swept.processes, tuple({*swept.survivors, *left}), 0.0), began)

    async def _shim_ended(self, timeout_s: float) -> bool:
        """The shim's process has ended. Without its pid (a start that was cut short) its socket must do."""
        end = process_end(self._pidfd) if self._pidfd >= 0 else spawn(self._shim_gone.wait())
        try:
            done, _ = await asyncio.wait([end], timeout=timeout_s)
            return bool(done)
        finally:
            end.cancel()

    @property
    def ended(self) -> bool:
        """Its end is proven."""
        return self._proof is not None and self._proof.confirmed

    async def wait(self) -> int:
        return await asyncio.shield(self._exit)

    # -- the shim -------------------------------------------------------------------------------------------------

    async def _ask(self, action: str, timeout_s: float) -> Message:
        self._wake_shim()
        return await self._control.request(action, timeout_s=timeout_s)

    def _wake_shim(self) -> None:
        """A process of the agent may have stopped it. To a shim that runs this means nothing."""
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGCONT)

    def _event(self, message: Message) -> None:
        match message:
            case {"t": "exit", "what": "worker", "status": int(status)}:
                if not self._exit.done():
                    self._exit.set_result(status)
            case {"t": "exit", "what": "tool", "call": int(call), "status": int(status)}:
                ended = self._tools.get(call)
                if ended is not None and not ended.done():
                    ended.set_result(status)
            case {"t": "empty"}:
                self._empty.set()
            case _:
                pass

    def _control_closed(self) -> None:
        """The worker dies with the shim, by SIGKILL."""
        if not self._exit.done():
            self._exit.set_result(KILLED)
        for ended in self._tools.values():
            if not ended.done():
                ended.set_result(KILLED)
        self._empty.set()
        self._shim_gone.set()

    def _stderr_readable(self) -> None:
        try:
            data = os.read(self._errors, PIPE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close_errors()
            return
        if len(data) == PIPE_BYTES:
            # Whoever floods waits, not this loop.
            self._loop.remove_reader(self._errors)
            self._loop.call_later(STDERR_PAUSE_S, self._read_errors_again)
        self.stderr_tail = (self.stderr_tail + data)[-STDERR_TAIL_BYTES:]
        if self._on_stderr is not None:
            self._on_stderr(self.plan, data)

    def _read_errors_again(self) -> None:
        if self._errors >= 0:
            self._loop.add_reader(self._errors, self._stderr_readable)

    def _stderr_text(self) -> str:
        if self._errors >= 0:
            self._stderr_readable()
        text = self.stderr_tail.decode(errors="replace").strip()
        return f"; it said: {text}" if text else ""

    def _close_errors(self) -> None:
        if self._errors >= 0:
            self._loop.remove_reader(self._errors)
            os.close(self._errors)
            self._errors = -1

    def close(self) -> None:
        """Give the descriptors back. A shim that still lives sees end of file and kills its tree. Safe to call
        twice."""
        self._control.close()
        for _ in range(4):
            # What a dead tree wrote last.
            if self._errors >= 0:
                self._stderr_readable()
        self._frames.close()
        self._close_errors()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


async def _heard(hearing: asyncio.Task[None]) -> None:
    """The observer has ended with its call; what it told last is still passed on. Raises what the listener raised."""
    await asyncio.wait([hearing], timeout=ANSWER_S)
    if hearing.done():
        hearing.result()
    else:
        await cancel_and_wait(hearing)


def _proof(answer: Message, began: float, more: int = 0) -> StopProof:
    """`more`: processes beside those that the shim counted (the shim itself)."""
    return StopProof(
        confirmed=bool(answer["confirmed"]),
        mechanism="signals",
        processes=int(answer["processes"]) + more,
        duration_ms=(time.monotonic() - began) * 1000,
        survivors=tuple(answer["survivors"]),
    )


def _proof_of(swept: Swept, began: float) -> StopProof:
    return StopProof(
        confirmed=swept.confirmed,
        mechanism="signals",
        processes=swept.processes,
        duration_ms=(time.monotonic() - began) * 1000,
        survivors=swept.survivors,
    )


def _outer_pid(shim: int, inner: int) -> int:
    """The number that a child of the shim has here, for the one that it has in the shim's PID namespace."""
    for pid in children(shim):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        numbers = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [str(pid)])
        if int(numbers[-1]) == inner:
            return pid
    return inner


def _started_ticks(pid: int) -> int:
    stat = proc_stat(pid)
    if stat is None:
        raise ProcessLookupError(f"no process {pid}")
    return stat.started_ticks
