"""Whether an observer works here: a process is observed while it tries what no rule covers."""

from __future__ import annotations

import os
import socket

from toka_runtime.sandbox import kernel
from toka_runtime.sandbox.landlock import READ_DIR
from toka_runtime.sandbox.observer import observe
from toka_runtime.sandbox.observer_rules import Judge, PathRules
from toka_runtime.sandbox.probe_seen import Seen
from toka_runtime.worker.frames import FrameSocket

OBSERVER = "observer"
KERNEL_OBSERVED = "what the kernel refuses a command is told (kernel-observed)"
BROKERED_ONLY = "what the kernel refuses a command is not told (brokered only)"
_TRIED = "/usr"


def try_observer() -> Seen:
    """Run in a throw-away process that adopts orphans."""
    told, reports = socket.socketpair()
    _, answers = socket.socketpair()
    nothing = Judge(PathRules([], READ_DIR), [_TRIED], [], tcp=False, port=None)
    code = observe(reports, answers, kernel.no_new_privileges, lambda: nothing)
    if code is None:
        try:
            os.listdir(_TRIED)  # noqa: PTH208  # the call that is observed
        finally:
            os._exit(0)
    reports.close()
    frame = FrameSocket(told).read()
    if frame is None:
        return Seen(False, f"{BROKERED_ONLY}: no listener, or the memory of processes is not to be read")
    return Seen(frame.get("target") == _TRIED, KERNEL_OBSERVED)
