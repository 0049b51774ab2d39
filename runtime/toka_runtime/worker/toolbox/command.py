"""run_command: a shell command in its own session, output live, ended whole."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import IO, Any

from toka_runtime.worker.toolbox.capped import HeadTail
from toka_runtime.worker.toolbox.context import ToolContext, ToolResult
from toka_runtime.worker.toolbox.descendants import adopt_orphans, children, descendants, end_all, reap, signal_all
from toka_runtime.worker.toolbox.failure import ToolFailure
from toka_runtime.worker.toolbox.text import count

TERM_GRACE_S = 2.0
DRAIN_S = 0.3
"""How long output is still awaited when the command itself has ended but something it started holds the pipe."""
LIVE_BYTES = 8 << 20
"""More output than this is not passed on live; the result still has its head and tail."""
_CHUNK = 65536
_LOOK_S = 0.25
_SLACK_S = 0.1
# They make a shell run other code before the command, or instead of it.
_UNSAFE_NAMES = ("BASH_ENV", "ENV", "SHELLOPTS", "BASHOPTS", "PS4", "PROMPT_COMMAND", "IFS", "CDPATH")


@dataclass
class _Live:
    """Passes output on, up to a bound."""

    context: ToolContext
    keep: HeadTail
    passed: int = 0
    held_back: int = field(default=0)

    def take(self, stream: str, data: bytes) -> None:
        self.keep.add(data)
        room = max(LIVE_BYTES - self.passed, 0)
        if room:
            self.context.emit(stream, data[:room])
            self.passed += min(len(data), room)
        self.held_back += max(len(data) - room, 0)

    def close(self) -> None:
        if self.held_back:
            self.context.emit("stderr", f"\n… {self.held_back:,} bytes not shown live\n".encode())


def run_command(context: ToolContext) -> ToolResult:
    """`bash -c` (`sh -c` where there is no bash), or `argv` as it is for the runtime's own checks."""
    adopt_orphans()
    leave = frozenset(children(os.getpid()))
    try:
        process = subprocess.Popen(
            _argv(context.arguments),
            cwd=context.root,
            env=_environment(context.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise ToolFailure("tool.not_found", f"{error.filename}: there is no such program") from None
    except PermissionError as error:
        target = str(error.filename)
        raise ToolFailure("tool.refused", f"{target}: not allowed to run it", refused_target=target) from None
    live = _Live(context, HeadTail(context.cap_bytes - 300))
    try:
        timed_out = _follow(process, live, context.timeout_s, leave)
        left = [pid for pid in descendants(os.getpid(), leave) if pid != process.pid]
    finally:
        survivors = end_all(leave)
    live.close()
    return _result(process.returncode, live.keep, context.timeout_s, timed_out, len(left), survivors)


def _argv(arguments: dict[str, Any]) -> list[str]:
    if "argv" in arguments:
        return list(arguments["argv"])
    command: str = arguments["command"]
    bash = next((path for path in ("/bin/bash", "/usr/bin/bash") if os.access(path, os.X_OK)), None)
    return [bash, "--noprofile", "--norc", "-c", command] if bash else ["/bin/sh", "-c", command]


def _environment(given: dict[str, str]) -> dict[str, str]:
    kept = {
        name: value for name, value in given.items() if name not in _UNSAFE_NAMES and not name.startswith("BASH_FUNC_")
    }
    kept.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    return kept


def _follow(process: subprocess.Popen[bytes], live: _Live, timeout_s: float, leave: frozenset[int]) -> bool:
    """Pass output on until the command ends. Returns whether it had to be stopped for time."""
    until = time.monotonic() + timeout_s
    assert process.stdout is not None  # noqa: S101  # it is a pipe
    assert process.stderr is not None  # noqa: S101  # likewise
    with selectors.DefaultSelector() as selector, process.stdout, process.stderr:
        for stream, pipe in (("stdout", process.stdout), ("stderr", process.stderr)):
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ, stream)
        exit_fd = _exit_descriptor(process.pid)
        if exit_fd is not None:
            selector.register(exit_fd, selectors.EVENT_READ, "")
        try:
            timed_out = _until_ended(process, selector, live, until, leave)
            if timed_out:
                _terminate(process, selector, live, leave)
            _drain(selector, live)
        finally:
            if exit_fd is not None:
                os.close(exit_fd)
    return timed_out


def _exit_descriptor(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _until_ended(
    process: subprocess.Popen[bytes],
    selector: selectors.BaseSelector,
    live: _Live,
    until: float,
    leave: frozenset[int],
) -> bool:
    before = time.monotonic()
    while process.poll() is None:
        left = until - before
        if left <= 0:
            return True
        # Without a pidfd nothing wakes us when the command ends and its pipes stay open.
        wait_s = min(left, _LOOK_S)
        _pump(selector, live, wait_s)
        reap(leave, known=process.pid)
        now = time.monotonic()
        # The agent was paused, and so was this process: that time does not count.
        until += max(now - before - wait_s - _SLACK_S, 0.0)
        before = now
    return False


def _pump(selector: selectors.BaseSelector, live: _Live, wait_s: float) -> bool:
    """Read what is there once. False when nothing came within `wait_s`, or no pipe is open any more."""
    came = False
    for key, _ in selector.select(wait_s):
        if not key.data:
            continue
        pipe: IO[bytes] = key.fileobj  # pyright: ignore[reportAssignmentType]  # only pipes carry a name
        try:
            data = os.read(pipe.fileno(), _CHUNK)
        except BlockingIOError:
            continue
        if data:
            live.take(key.data, data)
            came = True
        else:
            selector.unregister(pipe)
    return came


def _drain(selector: selectors.BaseSelector, live: _Live) -> None:
    """What is still in the pipes. Something left behind may go on writing: bounded in time."""
    for key in list(selector.get_map().values()):
        if not key.data:
            selector.unregister(key.fileobj)
    until = time.monotonic() + DRAIN_S
    while selector.get_map() and (left := until - time.monotonic()) > 0:
        _pump(selector, live, left)


def _terminate(
    process: subprocess.Popen[bytes], selector: selectors.BaseSelector, live: _Live, leave: frozenset[int]
) -> None:
    """TERM to everything, a grace in which it may still say something; the caller kills what is left."""
    everything = descendants(os.getpid(), leave)
    signal_all(everything, signal.SIGTERM)
    signal_all(everything, signal.SIGCONT)
    until = time.monotonic() + TERM_GRACE_S
    while process.poll() is None and (left := until - time.monotonic()) > 0:
        _pump(selector, live, min(left, 0.05))
    if process.poll() is None:
        process.kill()
        process.wait()


def _result(
    exit_code: int | None, keep: HeadTail, timeout_s: float, timed_out: bool, left: int, survivors: list[int]
) -> ToolResult:
    notes: list[str] = []
    code = ""
    if timed_out:
        code, exit_code = "tool.timeout", None
        notes.append(f"stopped after {timeout_s:g} s")
    elif exit_code is not None and exit_code < 0:
        code, exit_code = "tool.exit_status", 128 - exit_code
        notes.append(f"ended by {_signal_name(exit_code - 128)} (exit code {exit_code})")
    elif exit_code:
        code = "tool.exit_status"
        notes.append(f"exit code {exit_code}")
    if left and not timed_out:
        notes.append(f"{count(left, 'process').replace('processs', 'processes')} left running in the background: ended")
    if survivors:
        notes.append(f"could not be ended: {', '.join(map(str, survivors))}")
    text = keep.text()
    if text and not text.endswith("\n"):
        text += "\n"
    content = (text or "(no output)\n") + "".join(f"({note})\n" for note in notes)
    return ToolResult(
        content.rstrip("\n"),
        ok=not code,
        code=code,
        exit_code=exit_code,
        result_bytes=keep.total_bytes,
        digest=keep.digest,
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
