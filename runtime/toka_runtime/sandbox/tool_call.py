"""What the runtime and a tool child say to each other during one call."""

from __future__ import annotations

import base64
import binascii
import signal
from typing import Any

from pydantic import ValidationError

from toka_runtime.errors import ProcessError, ProtocolError
from toka_runtime.sandbox.channel import FrameChannel
from toka_runtime.sandbox.observer_host import on_the_host
from toka_runtime.sandbox.plan import KernelRefusal, OutputChunk, RefusalSink, SandboxPlan, ToolOutcome, ToolRequest
from toka_runtime.sandbox.view import tool_access

OUTPUT_TAIL_BYTES = 2000
OVER_CAP_BYTES = 4096
"""A child caps its results itself and adds a line or two; what is beyond that is not taken from it."""


class ToolCall:
    """One call; keeps the end of the output for the case that no result comes."""

    def __init__(
        self, plan: SandboxPlan, request: ToolRequest, on_output: OutputChunk, *, proxy_port: int | None = None
    ) -> None:
        held = plan if request.granted is None else plan.model_copy(update={"rights": request.granted})
        self._access = tool_access(request.tool, held, proxy_port)
        self._plan = plan
        self._request = request
        self._on_output = on_output
        self._tail = b""

    @property
    def executes(self) -> bool:
        """It may run programs."""
        return bool(self._access["execute"])

    async def converse(self, channel: FrameChannel) -> ToolOutcome | None:
        """Send the request, pass the output on, return the result; None when the child ended without one. Raises
        ProtocolError for what is not to be read."""
        request = self._request
        frame = {
            "t": "request",
            **request.model_dump(mode="json"),
            "environment": {**self._plan.environment, **request.environment},
            "access": self._access,
        }
        try:
            await channel.send(frame)
        except ProcessError:
            return None
        while (answer := await channel.receive()) is not None:
            match answer:
                case {"t": "out", "stream": ("stdout" | "stderr") as stream, "data": str(data)}:
                    try:
                        output = base64.b64decode(data, validate=True)
                    except binascii.Error as error:
                        raise ProtocolError(f"{request.tool} sent unreadable output: {error}") from None
                    self._tail = (self._tail + output)[-OUTPUT_TAIL_BYTES:]
                    self._on_output(stream, output)
                case {"t": "result", "outcome": outcome}:
                    try:
                        return self._capped(ToolOutcome.model_validate(outcome))
                    except ValidationError as error:
                        raise ProtocolError(f"{request.tool} sent an unreadable result: {error}") from None
                case _:
                    raise ProtocolError(f"{request.tool} sent an unknown frame {answer.get('t')!r}")
        return None

    async def hear(self, channel: FrameChannel, on_refused: RefusalSink) -> None:
        """Pass on what the call's observer tells, until it ends. Raises what `on_refused` raises."""
        try:
            while (frame := await _next_report(channel)) is not None:
                refusal = KernelRefusal.model_validate(frame)
                if await on_the_host(refusal):
                    await on_refused(refusal)
        finally:
            # Nobody listens any more: the observer must not wait for it, nor must those whom it observes.
            channel.close()

    def timed_out(self) -> ToolOutcome:
        return self._failed("tool.timeout", f"The tool was ended after {self._request.timeout_s:g} s.")

    def without_result(self, exit_code: int) -> ToolOutcome:
        message = f"The tool ended without a result ({_how(exit_code)})."
        return self._failed("tool.crashed", message, exit_code)

    def broken(self, error: ProtocolError) -> ToolOutcome:
        return self._failed("tool.crashed", f"The tool was ended: {error.message}.")

    def _failed(self, code: str, message: str, exit_code: int | None = None) -> ToolOutcome:
        said = self._tail.decode(errors="replace").strip()
        content = f"{message} Its last output:\n{said}" if said else message
        return ToolOutcome(ok=False, content=content, code=code, exit_code=exit_code)

    def _capped(self, outcome: ToolOutcome) -> ToolOutcome:
        size, cap = len(outcome.content), self._request.output_cap_bytes
        if size <= cap + OVER_CAP_BYTES:
            return outcome
        return outcome.model_copy(
            update={"content": f"{outcome.content[:cap]}\n[cut by the runtime: {size} characters]"}
        )


async def _next_report(channel: FrameChannel) -> dict[str, Any] | None:
    try:
        return await channel.receive()
    except ProtocolError:
        return None  # Killed in the middle of a frame.


def _how(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"killed by signal {-exit_code}"
