"""Whether an observer works here: a process is observed while it tries what no rule covers."""

from __future__ import annotations

import os
import socket

from toka_runtime.sandbox import kernel
from toka_runtime.sandbox.landlock import READ_DIR, READ_FILE
from toka_runtime.sandbox.observer import BROKERED_ONLY, KERNEL_OBSERVED, observe
from toka_runtime.sandbox.observer_rules import Judge, PathRules
from toka_runtime.sandbox.probe_seen import Seen
from toka_runtime.worker.frames import FrameSocket

OBSERVER = "observer"
_TRIED = "/usr"


def try_observer() -> Seen:
    """Run in a throw-away process that adopts orphans."""
    told, reports = socket.socketpair()
    _, answers = socket.socketpair()
    nothing = Judge(PathRules([], READ_FILE | READ_DIR), [_TRIED], [], tcp=False, port=None)
    code = observe(reports, answers, kernel.no_new_privileges, lambda: nothing)
    if code is None:
        try:
            # As for a command: a program of its own, whose memory is as readable as any.
            os.execv("/bin/sh", ["sh", "-c", f": < {_TRIED}"])  # noqa: S606  # a fixed command
        finally:
            os._exit(1)
    reports.close()
    frames = FrameSocket(told)
    while frame := frames.read():
        if frame["target"] == _TRIED:
            return Seen(True, KERNEL_OBSERVED)
    return Seen(False, f"{BROKERED_ONLY}: no listener, or the memory of processes is not to be read")
