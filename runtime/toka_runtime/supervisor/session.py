"""Talking with one worker: hello, task attempts, goodbye. Serves its frames; every side effect goes to the gate."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.broker.gate import Gate, ToolReply
from toka_runtime.broker.shown import valid
from toka_runtime.errors import ProcessError, ProtocolError
from toka_runtime.protocol.events import Level, Noticed
from toka_runtime.protocol.ids import CallId
from toka_runtime.sandbox.plan import AgentProcess
from toka_runtime.store.transcripts import call_key
from toka_runtime.supervisor.model_calls import Frame, ModelCalls
from toka_runtime.supervisor.options import LoopLimits
from toka_runtime.supervisor.services import RunVoice
from toka_runtime.supervisor.steps import Interrupted, Steps

_BROKEN_OFF = ToolReply(
    "An operator interrupted this call: what it was to do is not done, or only in part. Look before you repeat it.",
    is_error=True,
)


class WorkerDied(ProcessError):
    """The worker's process ended in the middle of its work."""

    code = "process.worker_died"


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """How one attempt at a task ended, in the agent's own word. Nothing here is proof."""

    outcome: str
    """finished: it called `finish`; unfinished: it stopped without; failed; cancelled."""
    status: str = ""
    """Of `finish`: done, blocked or failed."""
    summary: str = ""
    evidence: tuple[str, ...] = ()
    code: str = ""
    message: str = ""


class WorkerSession:
    def __init__(self, voice: RunVoice, process: AgentProcess, gate: Gate, calls: ModelCalls, steps: Steps) -> None:
        self._voice = voice
        self._process = process
        self._channel = process.channel
        self._gate = gate
        self._calls = calls
        self._steps = steps
        self._begun: set[CallId] = set()

    async def hello(
        self, *, system: tuple[str, ...], tools: tuple[dict[str, Any], ...], model: str, limits: LoopLimits
    ) -> None:
        await self._channel.send(
            {
                "t": "hello",
                "agent": self._voice.agent,
                "run": self._voice.run,
                "system": list(system),
                "tools": list(tools),
                "model": model,
                "max_tokens": limits.max_tokens,
                "limits": {"max_turns": limits.max_turns, "context_tokens": limits.context_tokens},
            }
        )
        frame = await self._receive()
        if frame.get("t") != "ready":
            raise ProtocolError(f"the worker's first frame is {frame.get('t')!r}, not 'ready'")

    async def attempt(self, task: int, attempt: int, prompt: str, history: list[Frame]) -> AttemptResult:
        """Run one attempt to its end. Cancelling this leaves the worker waiting: call `cancel` then."""
        await self._calls.begin(task, attempt, history)
        await self._channel.send({"t": "task", "task": task, "attempt": attempt, "prompt": prompt, "history": history})
        serving = spawn(self._serve(task), name=f"serve {self._voice.agent}")
        exiting = spawn(self._process.wait(), name=f"worker of {self._voice.agent}")
        try:
            # A worker can die while the runtime is busy for it, e.g. in a model call that nobody needs any more.
            await asyncio.wait({serving, exiting}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                return serving.result()
            raise self._died(f"exit code {exiting.result()}")
        finally:
            await cancel_and_wait(serving)
            await cancel_and_wait(exiting)

    async def _serve(self, task: int) -> AttemptResult:
        while True:
            frame = await self._receive()
            match frame.get("t"):
                case "model":
                    await self._steps.before((int(frame["task"]), int(frame["turn"])))
                    await self._channel.send(await self._calls.serve(frame, self._steps))
                case "tool":
                    await self._steps.before((int(frame["task"]), int(frame["turn"])))
                    await self._channel.send(self._nudged(await self._tool(frame)))
                case "note":
                    await self._note(frame)
                case "task.done" if frame.get("task") == task:
                    return _result(frame)
                case other:
                    raise ProtocolError(f"the worker sent a frame {other!r} that has no place in a task")

    async def cancel(self, task: int, timeout_s: float) -> None:
        """Give up the attempt; its open calls are answered as cancelled. Raises WorkerDied when it does not listen."""
        await self._channel.send({"t": "cancel"})
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    frame = await self._receive()
                    if frame.get("t") == "task.done" and frame.get("task") == task:
                        return
        except TimeoutError:
            raise WorkerDied(f"the worker of {self._voice.agent} did not end a cancelled task") from None

    async def goodbye(self) -> None:
        await self._channel.send({"t": "bye"})
        await self._process.wait()

    async def _receive(self) -> Frame:
        frame = await self._channel.receive()
        if frame is None:
            raise self._died("it closed its socket")
        return frame

    def _died(self, how: str) -> WorkerDied:
        return WorkerDied(f"the worker of {self._voice.agent} (pid {self._process.worker_pid}) ended by itself: {how}")

    async def _tool(self, frame: Frame) -> Frame:
        call: Any = frame.get("call")
        if not isinstance(call, dict):
            raise ProtocolError("a tool frame without a call")
        asked: Frame = call  # pyright: ignore[reportUnknownVariableType]  # keys are checked by the gate
        name, identity = str(asked.get("name", "")), CallId(valid(str(asked.get("id", ""))))
        task, turn, attempt = int(frame["task"]), int(frame["turn"]), self._calls.attempt
        key = call_key(task, attempt, turn, identity)
        if key in self._begun:
            raise ProtocolError(f"the worker asked twice for call {identity[:100]}; it is not repeated")
        self._begun.add(key)
        run, journal = self._voice.run, self._voice.services.transcripts
        # Its arguments are in the conversation already.
        await journal.tool_begun(run, key, task=task, attempt=attempt, tool=valid(name[:200]), arguments={})
        try:
            reply = await self._steps.run(
                self._gate.call(name, asked.get("input"), call=identity, task=task, turn=turn)
            )
        except Interrupted:
            reply = _BROKEN_OFF
        answer = {"content": reply.content, "is_error": reply.is_error, "finish": reply.finish is not None}
        await journal.tool_ended(run, key, "error" if reply.is_error else "ok", answer)
        return {"t": "tool.result", "id": frame["id"], **answer}

    def _nudged(self, result: Frame) -> Frame:
        """With what the agent is to be told about how it gets on, if anything."""
        nudge = self._voice.services.health.nudge(self._voice.run)
        return result | {"content": f"{result['content']}\n\n{nudge}"} if nudge else result

    async def _note(self, frame: Frame) -> None:
        level = Level(frame["level"]) if frame.get("level") in set(Level) else Level.INFO
        await self._voice.emit(Noticed(level=level, code="worker.note", message=str(frame.get("message", ""))[:2000]))


def _result(frame: Frame) -> AttemptResult:
    finish: Any = frame.get("finish") or {}
    evidence: Any = finish.get("evidence") or ()
    return AttemptResult(
        outcome=str(frame.get("outcome", "failed")),
        status=str(finish.get("status", "")),
        summary=str(finish.get("summary", "")),
        evidence=tuple(str(item) for item in evidence),
        code=str(frame.get("code", "")),
        message=str(frame.get("message", "")),
    )
