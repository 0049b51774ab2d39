"""Model calls of one run: journal first, then the gateway, then events; held back while the agent is paused."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from itertools import count
from typing import Any, Literal

from toka_runtime.aio import see_through
from toka_runtime.errors import BudgetReached, GatewayLost, ModelError, ProtocolError
from toka_runtime.llm.base import CallContext, Delta, Finished, ModelRequest, Retrying
from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.events import (
    BudgetWarned,
    Level,
    ModelCallEnded,
    ModelCallRetried,
    ModelCallStarted,
    Noticed,
    Stream,
)
from toka_runtime.protocol.ids import CallId
from toka_runtime.protocol.spec import AgentSpec
from toka_runtime.protocol.usage import TokenUsage
from toka_runtime.supervisor.budgets import Admitted, bytes_of
from toka_runtime.supervisor.deadline import PauseGate
from toka_runtime.supervisor.services import RunVoice
from toka_runtime.supervisor.steps import Interrupted, Steps

Frame = dict[str, Any]

OnBudget = Callable[[BudgetReached], AbstractAsyncContextManager[None]]
INTERRUPTED = "interrupted"
"""Stop reason, for the worker, of a turn that an operator broke off."""
_QUOTE_S = 2.0
_LOST_GATEWAYS = 3
"""So many may be lost under one turn before its task attempt fails."""
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
        on_budget: OnBudget,
    ) -> None:
        """`on_budget`: entered while the agent waits for a cap to be raised."""
        self._voice = voice
        self._services = voice.services
        self._spec = spec
        self._rights = rights
        self._gate = gate
        self._system = system
        self._tools = tools
        self._descriptions = descriptions
        self._folder = folder
        self._on_budget = on_budget
        self._fixed_bytes = bytes_of(system, tools)
        self._counted = (0, 0)
        """(messages, tokens): what the provider counted of the conversation, answers included."""
        self._numbers = count(1)
        self._messages: list[dict[str, Any]] = []
        self._said: list[str] = []
        """Text of the answer that streams."""
        self.attempt = 1
        """Of the task in work."""

    async def begin(self, task: int, attempt: int, history: list[dict[str, Any]]) -> None:
        """A task attempt starts, with the conversation as the worker gets it. Raises StoreError."""
        self.attempt = attempt
        self._messages = list(history)
        self._counted = (0, 0)
        if history:
            # It is this run's from here on: whoever goes on with it need not look further back.
            await self._services.transcripts.record(self._voice.run, task, attempt, 0, history)

    async def serve(self, frame: Frame, steps: Steps) -> Frame:
        """Carry out one `model` frame, as a step, and return the worker's `model.result`. Raises ProtocolError
        for a frame that does not fit the conversation, StoreError when nothing can be recorded any more."""
        task, turn = int(frame["task"]), int(frame["turn"])
        await self._extend(task, frame)
        try:
            finished = await steps.run(self._answered(task, turn))
        except Interrupted:
            finished = await self._aborted(task)
        except ModelError as error:
            return {"t": "model.result", "id": frame["id"], "ok": False, "code": error.code, "message": error.message}
        return {
            "t": "model.result",
            "id": frame["id"],
            "ok": True,
            "content": list(finished.content),
            "stop_reason": finished.stop_reason,
            "usage": finished.usage.model_dump(),
        }

    async def _aborted(self, task: int) -> Finished:
        """The turn as far as it came: its text. A call that was not whole is none."""
        said = "".join(self._said).strip()
        content = ({"type": "text", "text": said},) if said else ()
        if content:
            answer = {"role": "assistant", "content": list(content)}
            record = self._services.transcripts.record
            await record(self._voice.run, task, self.attempt, len(self._messages), [answer])
        return Finished(content=content, stop_reason=INTERRUPTED, model=self._spec.model)

    async def _answered(self, task: int, turn: int) -> Finished:
        """Asked again, as a call of its own, when the gateway's process was lost under it. Raises ModelError."""
        for _ in range(_LOST_GATEWAYS):
            with suppress(GatewayLost):
                return await self._call(task, turn)
        return await self._call(task, turn)

    async def _call(self, task: int, turn: int) -> Finished:
        call = CallId(f"m{next(self._numbers)}")
        self._said.clear()
        return await self._carry_out(await self._admit(self._request(call, task, turn)))

    # -- what it may cost ---------------------------------------------------------------------------------------------

    async def _admit(self, request: ModelRequest) -> Admitted:
        """Reserve the worst case. While no cap leaves room for it the agent waits for a new one, its clocks stopped.
        Raises ModelError when the gateway is gone."""
        budgets, version = self._services.budgets, self._services.budgets.ledger.version
        try:
            return await self._reserve(request)
        except BudgetReached as error:
            shortage = error
        async with self._on_budget(shortage):
            while True:
                await budgets.ledger.until_changed(version)
                version = budgets.ledger.version
                try:
                    return await self._reserve(request)
                except BudgetReached:
                    continue

    async def _reserve(self, request: ModelRequest) -> Admitted:
        """Raises BudgetReached, ModelError."""
        budgets = self._services.budgets
        while True:
            await self._gate.until_open()
            admitted = await budgets.admit(request, self._input_tokens(), self._spec.priority)
            if self._gate.is_open:
                return admitted
            # Paused while it waited: others may use the room meanwhile.
            budgets.settle(admitted, TokenUsage(), None)

    def _input_tokens(self) -> int:
        """At most so many: what the provider counted, and a token a byte of what is new since."""
        messages, tokens = self._counted
        return (tokens or self._fixed_bytes) + bytes_of(*self._messages[messages:])

    # -- one call -----------------------------------------------------------------------------------------------------

    async def _carry_out(self, admitted: Admitted) -> Finished:
        """Told from its start to its end, and charged, whatever becomes of it. Raises ModelError, StoreError."""
        context = admitted.request.context
        began = self._services.clock.monotonic()
        try:
            await self._voice.emit(self._started(admitted))
            # Between the acknowledgement of a pause and the resume no request starts.
            await self._gate.until_open()
            finished = await self._stream(admitted)
            answer = {"role": "assistant", "content": list(finished.content)}
            record = self._services.transcripts.record
            await record(self._voice.run, context.task, self.attempt, len(self._messages), [answer])
        except asyncio.CancelledError:
            await see_through(self._ended(admitted, began, "cancelled"), name=f"end of {context.call}")
            raise
        except ModelError as error:
            await self._ended(admitted, began, "error", error=error)
            raise
        except BaseException:
            # Nothing can be recorded any more; the other agents' room is right nevertheless.
            self._services.budgets.settle(admitted, self._used(admitted), None)
            raise
        self._counted = (len(self._messages) + 1, finished.usage.total_tokens)
        await self._ended(admitted, began, "ok", finished=finished)
        return finished

    def _started(self, admitted: Admitted) -> ModelCallStarted:
        context, worst = admitted.request.context, admitted.reservation.amount
        return ModelCallStarted(
            call=context.call,
            task=context.task,
            turn=context.turn,
            provider=self._services.options.gateway.provider,
            model=admitted.request.model,
            reserved_tokens=worst.tokens,
            reserved_cost_usd=worst.cost_usd,
        )

    def _used(self, admitted: Admitted) -> TokenUsage:
        return self._services.gateway.last_usage(admitted.request.context.call, self._voice.run)

    async def _extend(self, task: int, frame: Frame) -> None:
        base, append = int(frame["base"]), list(frame["append"])
        if not 0 <= base <= len(self._messages):
            raise ProtocolError(f"the worker refers to message {base} of {len(self._messages)}")
        if base < self._counted[0]:
            self._counted = (0, 0)
        self._messages[base:] = append
        await self._services.transcripts.record(self._voice.run, task, self.attempt, base, append)

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
                attempt=self.attempt,
                turn=turn,
                priority=self._spec.priority,
                rights=self._rights,
                folder=self._folder,
            ),
            model=self._spec.model or options.gateway.default_model,
            system=self._system,
            messages=tuple(self._messages),
            tools=self._tools,
            max_tokens=options.loop.max_tokens,
        )

    async def _stream(self, admitted: Admitted) -> Finished:
        request, context, charged = admitted.request, admitted.request.context, 0
        output = self._services.output
        async with aclosing(self._services.gateway.stream(request)) as events:
            async for event in events:
                match event:
                    case Delta(kind="tool_input"):
                        self._services.health.beat(self._voice.run)
                    case Delta():
                        if event.kind == "text":
                            self._said.append(event.text)
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
                        if event.discard:
                            self._said.clear()
                        await self._voice.emit(
                            ModelCallRetried(
                                call=context.call,
                                attempt=event.attempt,
                                delay_s=event.delay_s,
                                code=event.code,
                                message=event.message,
                                discard=event.discard,
                                shared=event.shared,
                            )
                        )
                        used = self._used(admitted).total_tokens
                        if used > charged:
                            # The try that failed has used its part of what was reserved.
                            charged = used
                            await self._services.budgets.another_try(admitted, self._input_tokens())
                    case Finished():
                        if event.notice:
                            await self._voice.emit(
                                Noticed(level=Level.WARNING, code="model.notice", message=event.notice)
                            )
                        return event
        raise ModelError("the gateway ended a stream without a result")

    async def _ended(
        self,
        admitted: Admitted,
        began: float,
        outcome: Literal["ok", "error", "cancelled"],
        *,
        finished: Finished | None = None,
        error: ModelError | None = None,
    ) -> None:
        """Charge the call, then tell."""
        context, model = admitted.request.context, finished.model if finished else admitted.request.model
        usage, cost_usd = await self._cost(admitted, finished, error)
        warnings = self._services.budgets.settle(admitted, usage, cost_usd)
        await self._voice.emit(
            ModelCallEnded(
                call=context.call,
                task=context.task,
                turn=context.turn,
                provider=self._services.options.gateway.provider,
                model=model,
                outcome=outcome,
                stop_reason=finished.stop_reason if finished else "",
                request_id=finished.request_id if finished else "",
                request_digest=finished.request_digest if finished else "",
                usage=usage,
                cost_usd=cost_usd,
                duration_s=self._services.clock.monotonic() - began,
                first_token_s=finished.first_token_s if finished else None,
                code=error.code if error else "",
                message=error.message if error else "",
                redactions=finished.redactions if finished else 0,
                answer_digest=_said(finished) if finished else "",
                tools_asked=sum(block["type"] == "tool_use" for block in finished.content) if finished else 0,
            )
        )
        for figure in warnings:
            await self._voice.emit(BudgetWarned(figure=figure))

    async def _cost(
        self, admitted: Admitted, finished: Finished | None, error: ModelError | None
    ) -> tuple[TokenUsage, float | None]:
        """What it used and what that costs, also of a call that was cut short."""
        if finished is not None:
            return finished.usage, finished.cost_usd
        usage = self._used(admitted) if error is None or isinstance(error, BudgetReached) else error.usage
        try:
            async with asyncio.timeout(_QUOTE_S):
                return usage, await self._services.gateway.quote(admitted.request.model, usage)
        except (ModelError, TimeoutError):
            return usage, None


def _said(turn: Finished) -> str:
    """A short digest of the turn's text; "" when it has none."""
    text = "".join(str(block["text"]) for block in turn.content if block["type"] == "text").strip()
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16] if text else ""
