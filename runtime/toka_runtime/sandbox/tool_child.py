"""The child for one tool call: reads the request from its only descriptor, streams output, ends with the result.

Standard library only. Whatever the tool has started ends with it.
"""

from __future__ import annotations

import base64
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any

from toka_runtime.sandbox import kernel
from toka_runtime.sandbox.confine import Confinement, judge_of, restrict_tool
from toka_runtime.sandbox.observer import observe
from toka_runtime.sandbox.tree import kill_children
from toka_runtime.worker.frames import FrameSocket

ToolFunction = Callable[[dict[str, Any], Callable[[str, bytes], None]], dict[str, Any]]
"""`worker.tools.execute`: fields of ToolRequest in, fields of ToolOutcome out; `emit("stdout" | "stderr", bytes)`."""

_CHUNK_BYTES = 48 * 1024


def serve_call(
    sock: socket.socket,
    agent: str,
    function: ToolFunction,
    confinement: Confinement | None = None,
    reports: socket.socket | None = None,
) -> int:
    """Exit code of the child: 0 when it has delivered a result, even one that says that the tool failed. A confined one
    takes on the rights of this call before anything else; when it can't, it ends without a result. With `reports` a
    child of this one does it, and this one tells there what the kernel refuses it."""
    frames = FrameSocket(sock)
    request = frames.read()
    if request is None:
        return 0
    access: dict[str, Any] = request.pop("access", None) or {"read": [], "write": [], "execute": False}
    if confinement is not None and reports is not None:
        kernel.set_title(f"toka:{agent} observer")
        code = observe(reports, sock, lambda: restrict_tool(confinement, access), lambda: judge_of(confinement, access))
        if code is not None:
            return code
    elif confinement is not None:
        restrict_tool(confinement, access)

    def emit(stream: str, data: bytes) -> None:
        for start in range(0, len(data), _CHUNK_BYTES):
            text = base64.b64encode(data[start : start + _CHUNK_BYTES]).decode()
            frames.write({"t": "out", "stream": stream, "data": text})

    kernel.set_title(f"toka:{agent} {request.get('tool', 'tool')}")
    outcome = _run(request, emit, function)
    left = kill_children(lambda pid, status: None)
    if left.processes:
        # The model must not believe that a server which it started in the background is still there.
        note = f"\n[{left.processes} process(es) still running at the end of this call were ended]"
        outcome = {**outcome, "content": str(outcome.get("content", "")) + note}
    frames.write({"t": "result", "outcome": outcome})
    return 0


def _run(request: dict[str, Any], emit: Callable[[str, bytes], None], function: ToolFunction) -> dict[str, Any]:
    try:
        os.environ.update(request.get("environment") or {})
        os.chdir(str(request.get("root") or "/"))
        return function(request, emit)
    except OSError as error:
        return _crashed(f"{type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001  # whatever a tool raises is its result; the place goes with it
        place = traceback.extract_tb(error.__traceback__)[-1]
        return _crashed(f"{type(error).__name__}: {error} ({os.path.basename(place.filename)}:{place.lineno})")  # noqa: PTH119


def _crashed(message: str) -> dict[str, Any]:
    return {"ok": False, "code": "tool.crashed", "content": f"The tool failed: {message}"}
