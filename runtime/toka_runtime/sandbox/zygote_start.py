"""Starts a fork server's process. Light to import: who has little time lets it load beside its own imports."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import toka_runtime
from toka_runtime.errors import ProcessError

WORKER_MAIN = "toka_runtime.worker.loop:main"
TOOL_FUNCTION = "toka_runtime.worker.tools:execute"

COMMAND = (
    "import sys; sys.path.extend(sys.argv[4:]); "
    "from toka_runtime.sandbox.zygote import main; main(int(sys.argv[1]), sys.argv[2], sys.argv[3])"
)
"""For `python -I -S -c`: arguments are the control descriptor, the worker's main, the tool function, and the folders
that hold the packages: no site-packages are set up, so an editable install, a wheel and a checkout are alike."""


class Beginning(NamedTuple):
    """A fork server that may still be loading. Whoever has it owns the descriptors and waits for the process."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    log: int
    """What it writes to its error output; a file in memory."""

    def abandon(self) -> None:
        """It has forked nothing that lives on without it: it was not asked for anything yet."""
        self.control.close()
        os.close(self.log)
        self.process.wait()


def begin_zygote(
    worker_main: str, tool_function: str, import_paths: Sequence[str] = (), *, command: str = COMMAND
) -> Beginning:
    """Returns after a vfork, in a few milliseconds. Raises ProcessError."""
    # Where this very package lies: the fork server has no site-packages, no .pth files, no working folder.
    package = str(Path(toka_runtime.__file__).parent.parent)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    log = os.memfd_create("toka-zygote-log")
    with theirs:
        words = [str(theirs.fileno()), worker_main, tool_function, package, *import_paths]
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", command, *words],
                env={},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            os.close(log)
            raise ProcessError(f"the fork server could not be started: {error}") from None
    return Beginning(process, ours, log)
