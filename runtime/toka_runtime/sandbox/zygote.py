"""The fork server: started early with an empty environment, one thread and no secret; forks a shim for each agent.

`begin_zygote` (zygote_start.py) runs `COMMAND` in it. Standard library and `toka_runtime.worker` only. It adopts what a
dead shim leaves behind and kills it; at end of file on its control socket it kills everything and ends.

Control messages in: shim {id, agent, confinement, groups} with three descriptors (control socket, worker socket, error
output); out: ready or failed, answer {id, ok, pid}, gone {pid, status, killed, survivors}.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from toka_runtime.sandbox import groups, kernel
from toka_runtime.sandbox.bwrap import Inside, fork_first_or_bwrap
from toka_runtime.sandbox.bwrap_first import load
from toka_runtime.sandbox.confine import Confinement, filter_calls
from toka_runtime.sandbox.control import ControlSocket, Message, close_all, reset_signals
from toka_runtime.sandbox.descriptors import keep_only
from toka_runtime.sandbox.shim import Shim, harden, leave
from toka_runtime.sandbox.spare import SpareSandbox
from toka_runtime.sandbox.tree import kill_children, kill_strays, reap


class Code(NamedTuple):
    """What runs in an agent's processes."""

    worker_main: Any
    tool_function: Any


class Zygote:
    def __init__(self, control: ControlSocket, code: Code, names: Code, import_paths: list[str]) -> None:
        """`names`: of `code`, as `module:function`, for an interpreter that has to load it again."""
        self._control = control
        self._code, self._names, self._import_paths = code, names, import_paths
        self._shims: set[int] = set()
        self._spare = SpareSandbox(_last_walls, self._from_spare)
        self._user_of_next: bool | None = None
        """Set once an agent could be confined: the next one is expected to be like it."""
        self._gone: list[tuple[int, int]] = []

    def run(self) -> None:
        self._control.serve(self._on_message, self._on_children, self._on_idle)
        while not kill_children(lambda pid, status: None, timeout_s=60.0).confirmed:
            time.sleep(0.05)

    def _on_message(self, message: Message, descriptors: list[int]) -> bool:
        answer: Message
        try:
            if message.get("t") != "shim" or len(descriptors) != 3:
                raise ValueError(f"unknown request {message.get('t')!r} with {len(descriptors)} descriptors")
            pid = self._fork(
                str(message["agent"]), descriptors, message.get("confinement"), list(message.get("groups", ()))
            )
            self._shims.add(pid)
            answer = {"ok": True, "pid": pid}
        except (OSError, ValueError, KeyError) as error:
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}", "errno": getattr(error, "errno", None)}
        finally:
            close_all(descriptors)
        self._control.send({"t": "answer", "id": message.get("id"), **answer})
        return True

    def _fork(
        self, agent: str, descriptors: list[int], confinement: Confinement | None, control_groups: list[str]
    ) -> int:
        def body(*listener: int) -> NoReturn:
            become_shim(agent, self._code, descriptors, confinement, listener, control_groups)

        if confinement is not None:
            order = {**confinement, "agent": agent}
            if (spare := self._spare.take(order, descriptors, control_groups)) is not None:
                return spare
            settings = {"agent": agent, "code": self._names}
            inside = Inside(f"{__name__}:shim_in_bwrap", settings, descriptors, self._import_paths)
            pid = fork_first_or_bwrap(confinement, _last_walls, body, inside, control_groups)
            self._user_of_next = bool(confinement["user"])
            return pid
        pid = os.fork()
        if pid == 0:
            body()
        return pid

    def _from_spare(self, order: Confinement, descriptors: list[int], listener: int) -> NoReturn:
        become_shim(str(order["agent"]), self._code, descriptors, order, (listener,))

    def _on_idle(self) -> None:
        if self._user_of_next is not None:
            self._spare.fill(user=self._user_of_next)

    def _on_children(self) -> None:
        reap(self._ended)
        if not self._gone:
            return
        # A shim that ended in order has left nothing. What another left has come to us.
        swept = kill_strays(self._shims | {self._spare.pid}, timeout_s=2.0)
        reap(self._ended)
        gone, self._gone = self._gone, []
        for pid, status in gone:
            self._control.send(
                {"t": "gone", "pid": pid, "status": status, "killed": swept.processes, "survivors": swept.survivors}
            )

    def _ended(self, pid: int, status: int) -> None:
        self._spare.ended(pid)
        if pid in self._shims:
            self._shims.discard(pid)
            self._gone.append((pid, status))


def become_shim(
    agent: str,
    code: Code,
    descriptors: list[int],
    confinement: Confinement | None,
    listener: tuple[int, ...] = (),
    control_groups: list[str] | None = None,
) -> NoReturn:
    exit_code = 1
    try:
        reset_signals()
        control, worker, errors = descriptors
        keep_only(control, worker, *listener, errors_to=errors)
        if confinement is None:
            groups.enter(control_groups or ())
            harden()
        kernel.set_title(f"toka:{agent}")
        # What the fork server had is frozen: collecting costs the children only what is their own.
        gc.enable()
        Shim(agent, *code, confinement).run()
        exit_code = 0
    finally:
        leave(exit_code)


def shim_in_bwrap(
    confinement: Confinement, settings: dict[str, Any]
) -> tuple[Callable[[], None], Callable[[int], NoReturn]]:
    """See `bwrap.Inside.first`. The descriptors come as those of a request do."""
    code = Code(*map(load, settings["code"]))
    return _last_walls, lambda listener: become_shim(settings["agent"], code, [3, 4, 5], confinement, (listener,))


def _last_walls() -> None:
    harden()
    filter_calls()


def main(descriptor: int, worker_main: str, tool_function: str) -> None:
    """Serve until the runtime is gone."""
    kernel.set_title("toka:zygote")
    control = ControlSocket(descriptor)
    try:
        # Before anything is forked, so that no child has to read a file later.
        names = Code(worker_main, tool_function)
        code = Code(*map(load, names))
        if not hasattr(os, "pidfd_open") or not hasattr(signal, "pidfd_send_signal"):
            raise OSError("this Python has no pidfd calls")
        os.close(os.pidfd_open(os.getpid()))
        kernel.adopt_orphans()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, AttributeError, OSError, SyntaxError) as error:
        control.send({"t": "failed", "error": f"{type(error).__name__}: {error}"})
        sys.exit(1)
    gc.collect()
    gc.freeze()
    gc.disable()
    control.send({"t": "ready", "pid": os.getpid()})
    Zygote(control, code, names, sys.argv[4:]).run()
