"""Tool calls in a real process of their own, without the launcher and its confinement."""

from __future__ import annotations

import asyncio
import base64
import json
import sys

from toka_runtime.sandbox.plan import OutputChunk, RefusalSink, ToolOutcome, ToolRequest

_PROGRAM = """
import base64, json, sys
from toka_runtime.worker.tools import execute
def say(frame): print(json.dumps(frame), flush=True)
say({"outcome": execute(json.load(sys.stdin), lambda s, d: say({"stream": s, "data": base64.b64encode(d).decode()}))})
"""


class ProcessToolRunner:
    """Implements `toka_runtime.sandbox.plan.ToolRunner`. `requests` are those it was given."""

    def __init__(self) -> None:
        self.requests: list[ToolRequest] = []
        self.pids: list[int] = []

    async def run_tool(
        self, request: ToolRequest, on_output: OutputChunk, on_refused: RefusalSink | None = None
    ) -> ToolOutcome:
        self.requests.append(request)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _PROGRAM, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        self.pids.append(process.pid)
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(request.model_dump_json().encode())
            process.stdin.close()
            while line := await process.stdout.readline():
                frame = json.loads(line)
                if "outcome" in frame:
                    return ToolOutcome.model_validate(frame["outcome"])
                on_output(frame["stream"], base64.b64decode(frame["data"]))
            raise AssertionError("the tool's process ended without an outcome")
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
