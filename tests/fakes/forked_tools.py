"""Runs each tool call in a real forked child, without fork server or shim."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
from typing import Any, NoReturn

from toka_runtime.sandbox.plan import OutputChunk, RefusalSink, ToolOutcome, ToolRequest
from toka_runtime.worker.toolbox.descendants import descendants
from toka_runtime.worker.tools import execute


class ForkedToolRunner:
    """Implements `sandbox.plan.ToolRunner`. `requests` holds what was run, in order; `started` is set by each start."""

    def __init__(self) -> None:
        self.requests: list[ToolRequest] = []
        self.started = asyncio.Event()
        self.pids: list[int] = []

    async def run_tool(
        self, request: ToolRequest, on_output: OutputChunk, on_refused: RefusalSink | None = None
    ) -> ToolOutcome:
        self.requests.append(request)
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            _child(request.model_dump(mode="json"), theirs)
        theirs.close()
        self.pids.append(pid)
        self.started.set()
        reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 24)
        try:
            while line := await reader.readline():
                frame: dict[str, Any] = json.loads(line)
                if "outcome" in frame:
                    return ToolOutcome.model_validate(frame["outcome"])
                on_output(frame["stream"], base64.b64decode(frame["data"]))
            return ToolOutcome(ok=False, content="the tool ended without a result", code="tool.crashed")
        finally:
            for victim in [*descendants(pid), pid]:
                try:
                    os.kill(victim, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            os.waitpid(pid, 0)
            writer.close()


def _child(request: dict[str, Any], sock: socket.socket) -> NoReturn:
    code = 1
    try:
        os.setsid()

        def emit(stream: str, data: bytes) -> None:
            sock.sendall(json.dumps({"stream": stream, "data": base64.b64encode(data).decode()}).encode() + b"\n")

        sock.sendall(json.dumps({"outcome": execute(request, emit)}).encode() + b"\n")
        code = 0
    finally:
        os._exit(code)
