"""The tools that agents call, as they run in the tool child. Standard library only.

`execute` does one call to its end. It decides nothing about authority: policy has allowed the call before, and the
kernel confines the process. What it refuses itself (links planted after the check, pipes, devices) it reports.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from toka_runtime.worker.toolbox.capped import cap_text
from toka_runtime.worker.toolbox.command import run_command
from toka_runtime.worker.toolbox.context import Emit, ToolContext, ToolResult
from toka_runtime.worker.toolbox.failure import TimeIsUp, ToolFailure, fail
from toka_runtime.worker.toolbox.files import edit_file, read_file, write_file
from toka_runtime.worker.toolbox.search import list_files, search_text

_TICK_S = 0.25


def _fetch_url(context: ToolContext) -> ToolResult:
    # Imported when needed: TLS costs 30 ms and 5 MB that no other tool uses.
    from toka_runtime.worker.toolbox.fetch import fetch_url

    return fetch_url(context)


TOOLS: dict[str, Callable[[ToolContext], ToolResult]] = {
    "list_files": list_files,
    "read_file": read_file,
    "search_text": search_text,
    "write_file": write_file,
    "edit_file": edit_file,
    "run_command": run_command,
    "fetch_url": _fetch_url,
}


def execute(request: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Carry out one call. `request` has the fields of `ToolRequest`, the answer those of `ToolOutcome`; never raises
    for what a tool can meet. `emit("stdout" | "stderr", data)` gets live output of commands."""
    cap_bytes: int = request.get("output_cap_bytes", 64_000)
    try:
        root_fd = os.open(request["root"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return _failed("tool.workspace", f"the agent's folder cannot be opened: {error.strerror}")
    tool = TOOLS.get(request["tool"])
    try:
        if tool is None:
            return _failed("tool.invalid", f"there is no tool {request['tool']!r}")
        context = ToolContext(
            root=request["root"],
            root_fd=root_fd,
            arguments=request["arguments"],
            environment=request.get("environment", {}),
            timeout_s=_own_timeout(request),
            cap_bytes=cap_bytes,
            emit=emit,
        )
        with _alarm(0.0 if tool is run_command else context.timeout_s):
            result = _guarded(tool, context)
    except ToolFailure as failure:
        return _failed(failure.code, failure.message, failure.refused_target)
    except TimeIsUp:
        return _failed("tool.timeout", f"stopped after {_own_timeout(request):g} s: ask for less at once")
    finally:
        os.close(root_fd)
    content, size, digest = cap_text(result.content, cap_bytes)
    return {
        "ok": result.ok,
        "content": content,
        "code": result.code,
        "exit_code": result.exit_code,
        "result_bytes": size if result.result_bytes is None else result.result_bytes,
        "digest": result.digest or digest,
        "refused_target": "",
    }


def _guarded(tool: Callable[[ToolContext], ToolResult], context: ToolContext) -> ToolResult:
    try:
        return tool(context)
    except BrokenPipeError:
        raise  # nobody listens to `emit` any more
    except OSError as error:
        fail(error, str(context.arguments.get("path", error.filename or "")))
    except (MemoryError, RecursionError) as error:
        raise ToolFailure("tool.too_large", f"the tool ran out of room: {type(error).__name__}") from None


def _own_timeout(request: dict[str, Any]) -> float:
    granted = float(request.get("timeout_s", 120.0))
    return min(granted, float(request["arguments"].get("timeout_s", granted)))


@contextmanager
def _alarm(seconds: float) -> Generator[None]:
    """Interrupt work that takes too long, such as a regular expression that backtracks for ever. Ticks are counted, not
    time: while the agent is paused none comes."""
    left = max(round(seconds / _TICK_S), 1)

    def tick(_signal: int, _frame: FrameType | None) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            raise TimeIsUp

    if seconds <= 0:
        yield
        return
    try:
        before = signal.signal(signal.SIGALRM, tick)
    except ValueError:  # only the main thread may; elsewhere the deadline of the caller holds
        yield
        return
    interval = min(_TICK_S, seconds)
    signal.setitimer(signal.ITIMER_REAL, interval, interval)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _failed(code: str, message: str, refused_target: str = "") -> dict[str, Any]:
    content, size, digest = cap_text(message, 8_000)
    return {
        "ok": False,
        "content": content,
        "code": code,
        "exit_code": None,
        "result_bytes": size,
        "digest": digest,
        "refused_target": refused_target,
    }
