"""In the child for one call: runs the command of `toka-runtime exec` on the caller's own descriptors.

Standard library only. `STANDARD` descriptors come with such a call: standard input, output and error, and a pipe that
says, a byte each, which signals to pass on to the command.
"""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
import subprocess
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Any

STANDARD = 4
SIGNALS = 100
"""Number of the pipe for signals in the child; nothing else is moved there."""
_LOOK_MS = 100


def idle(descriptor: int) -> int:
    """A worker without a task: until the runtime closes its end."""
    while os.read(descriptor, 4096):
        pass
    return 0


def take_over(first: int) -> None:
    """Make the `STANDARD` descriptors from `first` on what they are for."""
    for number in range(3):
        os.dup2(first + number, number)
    os.dup2(first + 3, SIGNALS, inheritable=False)
    for number in range(first, first + STANDARD):
        os.close(number)


def execute(request: dict[str, Any], emit: Callable[[str, bytes], None]) -> dict[str, Any]:
    """A tool function: run `arguments["argv"]` to its end. `exit_code` is negative for a signal; `content` has the CPU
    seconds of all that has ended and the peak memory in bytes of the largest process, separated by a space."""
    del emit
    argv = [str(word) for word in request["arguments"]["argv"]]
    terminal = next((number for number in range(3) if os.isatty(number)), None)
    try:
        process = subprocess.Popen(
            argv,
            start_new_session=True,
            # This process has one thread, so what runs between fork and exec cannot find a lock held.
            preexec_fn=None if terminal is None else lambda: _control_terminal(terminal),
        )
    except FileNotFoundError as error:
        return {"ok": False, "code": "tool.not_found", "content": f"{error.filename}: there is no such program"}
    except OSError as error:
        return {"ok": False, "code": "tool.refused", "content": f"{error.filename}: {error.strerror}"}
    # Theirs alone from here on: who reads the output sees its end when the command has ended.
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    _pass_signals(process)
    _wait_for_orphans()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    content = f"{used.ru_utime + used.ru_stime:.6f} {used.ru_maxrss * 1024}"
    return {"ok": True, "content": content, "exit_code": process.returncode}


def _control_terminal(number: int) -> None:
    fcntl.ioctl(number, termios.TIOCSCTTY, 0)


def _wait_for_orphans() -> None:
    """Those that have ended: only then is their time in this process's account."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _pass_signals(process: subprocess.Popen[bytes]) -> None:
    """Until the command has ended."""
    poll = select.poll()
    poll.register(SIGNALS, select.POLLIN)
    with suppress(OSError):
        poll.register(os.pidfd_open(process.pid), select.POLLIN)
    while process.poll() is None:
        if not any(descriptor == SIGNALS for descriptor, _ in poll.poll(_LOOK_MS)):
            continue
        numbers = os.read(SIGNALS, 64)
        if not numbers:
            poll.unregister(SIGNALS)
        for number in numbers:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
                # A stopped process acts on a signal only when it goes on.
                os.killpg(process.pid, signal.SIGCONT)
