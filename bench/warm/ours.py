"""Starts programs in a sandbox of the runtime's, from a process like its fork server. For bench/sandbox.py.

python -I -S ours.py FOLDER-OF-THE-PACKAGE CONFINEMENT-FILE < {"argv": …, "out": path} … > milliseconds …
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import NoReturn

sys.path.append(sys.argv[1])

from toka_runtime.sandbox import kernel
from toka_runtime.sandbox.confine import filter_calls, fork_first, restrict_tool
from toka_runtime.sandbox.shim import harden

# The rest of the fork server: its size is what a fork costs.
for module in ("toka_runtime.sandbox.zygote", "toka_runtime.worker.loop", "toka_runtime.worker.tools"):
    import_module(module)
_CONFINEMENT = json.loads(Path(sys.argv[2]).read_text())
_WRITABLE = [path for path, writable in _CONFINEMENT["mounts"] if writable]


def run(argv: list[str], out: str) -> float:
    """All walls that a command of an agent has, in a sandbox of its own; until it has ended, in ms."""
    descriptor = os.open(out, os.O_WRONLY)

    def walls() -> None:
        harden()
        filter_calls()

    def body(_: int) -> NoReturn:
        try:
            os.dup2(descriptor, 1)
            restrict_tool(_CONFINEMENT, {"read": _WRITABLE, "write": _WRITABLE, "execute": True, "port": None})
            os.execve(argv[0], argv, {})
        finally:
            os._exit(126)

    began = time.perf_counter()
    pid = fork_first(_CONFINEMENT, walls, body)
    _, status = os.waitpid(pid, 0)
    took = (time.perf_counter() - began) * 1000
    os.close(descriptor)
    if status:
        sys.exit(f"ended with {os.waitstatus_to_exitcode(status)}")
    return took


def main() -> None:
    kernel.adopt_orphans()
    gc.collect()
    gc.freeze()
    gc.disable()
    for line in sys.stdin:
        print(run(**json.loads(line)), flush=True)


main()
