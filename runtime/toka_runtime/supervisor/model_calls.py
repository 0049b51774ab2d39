"""Model calls of one run: journal first, then the gateway, then events; held back while the agent is paused."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from itertools import count
from typing import Any

from toka_runtime.errors import ModelError, ProtocolError
from toka_runtime.llm.base import CallContext, Delta, Finished, ModelRequest, Retrying
from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.events import Level, ModelCallEnded, ModelCallRetried, ModelCallStarted, Noticed, Stream
from toka_runtime.protocol.ids import CallId
from toka_runtime.protocol.spec import AgentSpec
from toka_runtime.protocol.usage import TokenUsage
from toka_runtime.supervisor.deadline import PauseGate
from toka_runtime.supervisor.services import RunVoice

Frame = dict[str, Any]

_STREAM = {"text": Stream.MODEL, "thinking": Stream.THINKING}


class ModelCalls:
    """Serves the worker's `model` frames. One conversation a task attempt; the journal is the truth of it."""

    def __init__(
        self,
        voice: RunVoice,
        spec: AgentSpec,
        rights: Rights,
        gate: PauseGate,
        *,
        system: tuple[str, ...],
        tools: tuple[dict[str, Any], ...],
        descriptions: tuple[str, ...],
        folder: str = "",
    ) -> None:
        self._voice = voice
        self._services = voice.services
        self._spec = spec
        self._rights = rights
        self._gate = gate
        self._system = system
        self._tools = tools
        self._descriptions = descriptions
        self._folder = folder
        self._numbers = count(1)
        self._messages: list[dict[str, Any]] = []
        self._attempt = 1

    def begin(self, attempt: int, history: list[dict[str, Any]]) -> None:
        """A task attempt starts, with the conversation as the worker gets it."""
        self._attempt = attempt
        self._messages = list(history)

    async def serve(self, frame: Frame) -> Frame:
        """Carry out one `model` frame and return the worker's `model.result`. Raises ProtocolError for a frame that
        does not fit the conversation, StoreError when nothing can be recorded any more."""
        task, turn = int(frame["task"]), int(frame["turn"])
        await self._extend(task, frame)
        # Between the acknowledgement of a pause and the resume no request starts.
        await self._gate.until_open()
        call = CallId(f"m{next(self._numbers)}")
        request = self._request(call, task, turn)
        options = self._services.options.gateway
        await self._voice.emit(
            ModelCallStarted(call=call, task=task, turn=turn, provider=options.provider, model=request.model)
        )
        began = self._services.clock.monotonic()
        try:
            finished = await self._stream(request)
        except asyncio.CancelledError:
            usage = self._services.gateway.last_usage(call, self._voice.run)
            await asyncio.shield(self._ended(request, began, "cancelled", usage=usage))
            raise
        except ModelError as error:
            await self._ended(request, began, "error", usage=error.usage, code=error.code, message=error.message)
            return {"t": "model.result", "id": frame["id"], "ok": False, "code": error.code, "message": error.message}
        answer = {"role": "assistant", "content": list(finished.content)}
        await self._services.transcripts.record(self._voice.run, task, self._attempt, len(self._messages), [answer])
        await self._ended(request, began, "ok", finished=finished, usage=finished.usage)
        return {
            "t": "model.result",
            "id": frame["id"],
            "ok": True,
            "content": list(finished.content),
            "stop_reason": finished.stop_reason,
            "usage": finished.usage.model_dump(),
        }

    async def _extend(self, task: int, frame: Frame) -> None:
        base, append = int(frame["base"]), list(frame["append"])
        if not 0 <= base <= len(self._messages):
            raise ProtocolError(f"the worker refers to message {base} of {len(self._messages)}")
        self._messages[base:] = append
        await self._services.transcripts.record(self._voice.run, task, self._attempt, base, append)

    def _request(self, call: CallId, task: int, turn: int) -> ModelRequest:
        options = self._services.options
        return ModelRequest(
            context=CallContext(
                agent=self._spec.name,
                run=self._voice.run,
                call=call,
                task=task,
                task_total=len(self._descriptions),
                task_description=self._descriptions[task] if 0 <= task < len(self._descriptions) else "",
                attempt=self._attempt,
                turn=turn,
                rights=self._rights,
                folder=self._folder,
            ),
            model=self._spec.model or options.gateway.default_model,
            system=self._system,
            messages=tuple(self._messages),
            tools=self._tools,
            max_tokens=options.loop.max_tokens,
        )

    async def _stream(self, request: ModelRequest) -> Finished:
        context = request.context
        output = self._services.output
        async with aclosing(self._services.gateway.stream(request)) as events:
            async for event in events:
                match event:
                    case Delta(kind="tool_input"):
                        pass
                    case Delta():
                        output.append(
                            self._voice.agent,
                            self._voice.run,
                            _STREAM[event.kind],
                            event.text,
                            task=context.task,
                            turn=context.turn,
                            call=context.call,
                        )
                    case Retrying():
                        await self._voice.emit(
                            ModelCallRetried(
                                call=context.call,
                                attempt=event.attempt,
                                delay_s=event.delay_s,
                                code=event.code,
                                message=event.message,
                                discard=event.discard,
                            )
                        )
                    case Finished():
                        if event.notice:
                            await self._voice.emit(
                                Noticed(level=Level.WARNING, code="model.notice", message=event.notice)
                            )
                        return event
        raise ModelError("the gateway ended a stream without a result")

    async def _ended(
        self,
        request: ModelRequest,
        began: float,
        outcome: Any,
        *,
        usage: TokenUsage,
        finished: Finished | None = None,
        code: str = "",
        message: str = "",
    ) -> None:
        context = request.context
        await self._voice.emit(
            ModelCallEnded(
                call=context.call,
                task=context.task,
                turn=context.turn,
                provider=self._services.options.gateway.provider,
                model=finished.model if finished else request.model,
                outcome=outcome,
                stop_reason=finished.stop_reason if finished else "",
                request_id=finished.request_id if finished else "",
                request_digest=finished.request_digest if finished else "",
                usage=usage,
                cost_usd=finished.cost_usd if finished else None,
                duration_s=self._services.clock.monotonic() - began,
                first_token_s=finished.first_token_s if finished else None,
                code=code,
                message=message,
                redactions=finished.redactions if finished else 0,
            )
        )
