"""The shim: root of one agent's process tree. Trusted, forked from the fork server; standard library only.

It forks the worker and a child for each tool call, adopts and reaps orphans, and stops, continues or kills the tree on
request. End of file on its control socket means that the runtime is gone: it kills the tree and ends. It is to become
process 1 of the agent's own PID namespace: nothing here depends on the numbers that the runtime sees.

Control messages in: start, tool, kill_tool, stop, continue, term, kill, status (each with `id`, answered with the same
`id` and `ok`); out besides: exit (worker or tool ended), empty (nothing is left after term).
"""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from toka_runtime.sandbox import kernel
from toka_runtime.sandbox.confine import PROTECTIONS as CONFINED
from toka_runtime.sandbox.confine import Confinement, restrict_worker
from toka_runtime.sandbox.control import ControlSocket, Message, close_all, reset_signals
from toka_runtime.sandbox.descriptors import SPARE, keep_only
from toka_runtime.sandbox.exec_child import STANDARD, take_over
from toka_runtime.sandbox.observer import BROKERED_ONLY, KERNEL_OBSERVED
from toka_runtime.sandbox.seccomp import can_listen
from toka_runtime.sandbox.tool_child import ToolFunction, serve_call
from toka_runtime.sandbox.tree import (
    KILL_S,
    PAUSE_S,
    Swept,
    continue_tree,
    kill_children,
    kill_strays,
    kill_subtree,
    members,
    proc_stat,
    reap,
    signal_tree,
    stop_tree,
)

OPEN_FILES = 4096
TOOL_OOM_SCORE, WORKER_OOM_SCORE = 500, 200
"""Where the kernel kills for want of memory: a tool first, then the worker, the shim when nothing else is left."""
WorkerMain = Callable[[int], int]

CONTROL, WORKER_SOCKET, LISTENER = 3, 4, 5
"""Descriptor numbers in the shim; 2 is the agent's error output. Only a confined one has a listener."""


class Shim:
    def __init__(
        self, agent: str, worker_main: WorkerMain, tool_function: ToolFunction, confinement: Confinement | None = None
    ) -> None:
        self._agent = agent
        self._confinement = confinement
        self._worker_main = worker_main
        self._tool_function = tool_function
        self._control = ControlSocket(CONTROL)
        self._worker: int | None = None
        self._worker_lives = False
        self._tools: dict[int, int] = {}
        """Pid → number of the call."""
        self._waiting: dict[int, list[int]] = {}
        """Number of the call → descriptors, for calls that came while paused."""
        self._paused = False
        self._ending = False
        self._outgoing: list[int] = []
        """Descriptors that go out with the next answer."""

    def run(self) -> None:
        """Returns when the tree is empty and nobody needs it any more."""
        self._control.serve(self._on_message, self._on_children)
        for waiting in self._waiting.values():
            close_all(waiting)
        # After a confirmed kill there is nothing left to do here; after end of file, everything.
        while not kill_children(self._ended, timeout_s=60.0).confirmed:
            time.sleep(0.05)

    # -- requests -------------------------------------------------------------------------------------------------

    def _on_message(self, message: Message, descriptors: list[int]) -> bool:
        action, number = str(message.get("t")), message.get("id")
        go_on = True
        try:
            match action:
                case "start":
                    answer = self._start(str(message["root"]))
                case "tool":
                    answer = self._tool(int(message["call"]), descriptors)
                case "kill_tool":
                    answer = self._kill_tool(int(message["call"]))
                case "stop":
                    self._paused = True
                    answer = _swept(stop_tree(os.getpid(), PAUSE_S))
                case "continue":
                    answer = self._continue()
                case "term":
                    answer = self._terminate()
                case "kill":
                    swept = kill_children(self._ended, KILL_S)
                    answer = _swept(swept)
                    go_on = not swept.confirmed
                case "status":
                    answer = self._status()
                case _:
                    raise ValueError(f"unknown request {action!r}")
        except (OSError, ValueError, KeyError) as error:
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}", "errno": getattr(error, "errno", None)}
        finally:
            close_all(descriptors)
        self._control.send({"t": "answer", "id": number, "ok": True, **answer}, self._outgoing)
        close_all(self._outgoing)
        self._outgoing.clear()
        return go_on

    def _start(self, root: str) -> Message:
        if self._worker is not None:
            raise ValueError("the worker was started already")
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._worker = self._fork_worker(folder)
            self._worker_lives = True
        finally:
            os.close(folder)
            # Held by the worker alone from here on: its end is the end of file for the runtime.
            os.close(WORKER_SOCKET)
        stat = proc_stat(os.getpid())
        assert stat is not None  # noqa: S101  # it is this very process
        walls: list[str] = []
        if self._confinement is not None:
            made_by = self._confinement.get("made_by")
            walls = [*CONFINED, *([f"namespaces made by {made_by}"] if made_by else [])]
            walls.append(KERNEL_OBSERVED if can_listen() else BROKERED_ONLY)
            self._outgoing.append(LISTENER)
        return {"worker": self._worker, "started_ticks": stat.started_ticks, "protections": [*walls, *PROTECTIONS]}

    def _tool(self, call: int, descriptors: list[int]) -> Message:
        if self._worker is None or self._ending or len(descriptors) % STANDARD not in (1, 2):
            raise ValueError("the agent is being stopped" if self._ending else "not ready for a tool call")
        if self._paused:
            self._waiting[call] = descriptors.copy()
            descriptors.clear()
            return {"queued": True}
        return {"pid": self._fork_tool(call, descriptors)}

    def _kill_tool(self, call: int) -> Message:
        if (descriptors := self._waiting.pop(call, None)) is not None:
            close_all(descriptors)
            self._control.send({"t": "exit", "what": "tool", "call": call, "status": -9})
            return _swept(Swept(0, (), 0.0))
        pid = next((pid for pid, number in self._tools.items() if number == call), None)
        if pid is None:
            return {"unknown": True}
        swept = kill_subtree(pid)
        self._on_children()
        return _swept(swept)

    def _continue(self) -> Message:
        self._paused = False
        swept = continue_tree(os.getpid())
        waiting, self._waiting = self._waiting, {}
        for call, descriptors in waiting.items():
            try:
                if self._ending:
                    raise InterruptedError("the agent is being stopped")
                self._fork_tool(call, descriptors)
            except OSError:
                self._control.send({"t": "exit", "what": "tool", "call": call, "status": -9})
            finally:
                close_all(descriptors)
        return _swept(swept)

    def _terminate(self) -> Message:
        self._ending = True
        reached = signal_tree(os.getpid(), 15)
        if self._paused:
            # A stopped process acts on SIGTERM only when it goes on.
            self._continue()
        self._on_children()
        return {"processes": reached}

    def _status(self) -> Message:
        found = members(os.getpid())
        return {"paused": self._paused, "worker": self._worker, "tools": len(self._tools), "processes": len(found)}

    # -- children -------------------------------------------------------------------------------------------------

    def _on_children(self) -> None:
        if reap(self._ended) and self._ending:
            self._control.send({"t": "empty"})
        if not self._ending:
            # What a tool leaves behind ends with it. During a stop everybody keeps the grace.
            worker = {self._worker} if self._worker is not None and self._worker_lives else set[int]()
            kill_strays(worker | self._tools.keys())
            reap(self._ended)

    def _ended(self, pid: int, status: int) -> None:
        if pid == self._worker and self._worker_lives:
            self._worker_lives = False
            self._control.send({"t": "exit", "what": "worker", "pid": pid, "status": status})
        elif (call := self._tools.pop(pid, None)) is not None:
            self._control.send({"t": "exit", "what": "tool", "call": call, "status": status})

    def _fork_tool(self, call: int, descriptors: list[int]) -> int:
        """With the socket for its request and result, where the kernel's refusals are to be reported one for them, and
        for a command of the operator's the `STANDARD` ones."""
        own = len(descriptors) % STANDARD

        def prepare(report: int) -> None:
            keep_only(*descriptors, spare=report)
            if own < len(descriptors):
                take_over(3 + own)
            kernel.adopt_orphans()
            kernel.set_title(f"toka:{self._agent} tool")
            _offer_to_oom_killer(TOOL_OOM_SCORE)

        def body() -> int:
            sock, *reports = (socket.socket(fileno=number) for number in range(3, 3 + own))
            return serve_call(sock, self._agent, self._tool_function, self._confinement, *reports)

        pid = _fork(prepare, body)
        self._tools[pid] = call
        return pid

    def _fork_worker(self, folder: int) -> int:
        def prepare(report: int) -> None:
            os.fchdir(folder)
            keep_only(WORKER_SOCKET, errors_to=2, spare=report)
            kernel.set_title(f"toka:{self._agent} worker")
            _offer_to_oom_killer(WORKER_OOM_SCORE)
            if self._confinement is not None:
                restrict_worker(self._confinement)

        return _fork(prepare, lambda: self._worker_main(3))


def _fork(prepare: Callable[[int], None], body: Callable[[], int]) -> int:
    """Fork a child that prepares itself and then runs `body`; it never returns from here. Raises OSError when preparing
    fails: nothing of `body` has run then."""
    read_end, write_end = os.pipe()
    try:
        report = fcntl.fcntl(write_end, fcntl.F_DUPFD_CLOEXEC, SPARE)
        os.close(write_end)
        parent = os.getpid()
        try:
            pid = os.fork()
            if pid == 0:
                _child(parent, report, prepare, body)
        finally:
            os.close(report)
        # The child closes its end when it is ready, or by dying.
        problem = os.read(read_end, 4096)
    finally:
        os.close(read_end)
    if problem:
        os.waitpid(pid, 0)
        raise OSError(problem.decode(errors="replace"))
    return pid


def _child(parent: int, report: int, prepare: Callable[[int], None], body: Callable[[], int]) -> NoReturn:
    code = 1
    try:
        try:
            reset_signals()
            os.setsid()
            kernel.die_with_parent(parent)
            prepare(report)
            os.environ.clear()
        except Exception as error:  # noqa: BLE001  # told to the shim, which tells the runtime
            os.write(report, f"{type(error).__name__}: {error}".encode()[:4096])
        else:
            os.close(report)
            code = body()
    finally:
        leave(code)


def _offer_to_oom_killer(score: int) -> None:
    # A matter of who goes first, not of safety: where it can't be said, the biggest goes.
    with suppress(OSError):
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, str(score).encode())
        finally:
            os.close(descriptor)


def leave(code: int) -> NoReturn:
    """End a forked child, whatever state it is in: it must never return into its parent's code."""
    try:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code & 0xFF)


def harden() -> None:
    """For the shim and all that it forks. Raises OSError when the kernel refuses any of it."""
    os.setsid()
    kernel.no_new_privileges()
    kernel.adopt_orphans()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = OPEN_FILES if most == resource.RLIM_INFINITY else min(OPEN_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    os.umask(0o077)


PROTECTIONS = [
    "own session, orphans are adopted",
    "dies with the runtime",
    "no new privileges",
    "empty environment, no inherited descriptors",
    "no core dumps",
    f"at most {OPEN_FILES} open files a process",
    "new files are private (umask 077)",
]
"""In force after `harden` and `_child`: each of them is checked when it is set, none is assumed."""


def _swept(swept: Swept) -> dict[str, Any]:
    return {
        "confirmed": swept.confirmed,
        "processes": swept.processes,
        "survivors": swept.survivors[:1000],
        "duration_ms": swept.duration_ms,
    }
