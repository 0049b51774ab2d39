"""One model call from request to checked turn, whatever the provider: redaction, tries, assembly, recording, price.
Runs inside the gateway process; knows no socket and no SDK."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

from toka_runtime.clock import Clock
from toka_runtime.errors import ModelError, ModelStreamBroken
from toka_runtime.llm.assembly import Assembly
from toka_runtime.llm.base import Delta, Finished, GatewaySettings, ModelEvent, ModelRequest, Retrying
from toka_runtime.llm.failures import TryFailed
from toka_runtime.llm.holds import Holds
from toka_runtime.llm.pacing import Backoff, StartQueue, Turn
from toka_runtime.llm.provider import Provider
from toka_runtime.llm.recording import Recording, Tape
from toka_runtime.llm.redact import Redactor
from toka_runtime.llm.request import digest_of, redact_request, request_body
from toka_runtime.protocol.usage import TokenUsage

_COOLING_SHOWN_S = 0.25
"""A wait for the provider is told at once when it is longer …"""
_QUEUE_SHOWN_S = 1.0
"""… one for other calls, after so long."""

Price = Callable[[str, TokenUsage], float | None]
"""(model, usage) → US dollars; None when unpriced."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What the call has cost so far, without the text of the try that runs: whoever cancels the call can then tell."""

    usage: TokenUsage


class Engine:
    """Shared by all calls of a gateway."""

    def __init__(
        self,
        provider: Provider,
        settings: GatewaySettings,
        clock: Clock,
        redactor: Redactor,
        *,
        default_model: str,
        price: Price | None = None,
        recording: Recording | None = None,
        rng: random.Random | None = None,
        holds: Holds | None = None,
    ) -> None:
        """`holds`: runs whose calls begin no try."""
        rng = rng or random.Random()  # noqa: S311 - spreads waits, guards nothing
        self.provider = provider
        self.settings = settings
        self.clock = clock
        self.redactor = redactor
        self.default_model = default_model
        self._price = price
        self._own_prices = {each.model: each for each in settings.prices}
        self.recording = recording
        self.backoff = Backoff(settings.max_retry_delay_s, rng)
        self.queue = StartQueue(clock)
        self.holds = holds or Holds()

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent | Spent]:
        """Delta, Retrying and Spent as they come, Finished last. Raises ModelError, which tells what was spent; closing
        the generator ends the try that runs, upstream too."""
        return _Call(self, request).run()

    def quote(self, model: str, usage: TokenUsage) -> float | None:
        """US dollars; None when the model has no known price. "" means the default model."""
        model = model or self.default_model
        if self.provider.free:
            return 0.0
        if (own := self._own_prices.get(model)) is not None:
            return own.cost_usd(usage)
        return self._price(model, usage) if self._price else None

    async def aclose(self) -> None:
        await self.provider.aclose()
        if self.recording is not None:
            self.recording.close()


class _Call:
    """One call over all its tries."""

    def __init__(self, engine: Engine, request: ModelRequest) -> None:
        self._engine = engine
        clean, self._redactions = redact_request(request, engine.redactor)
        self._request = clean.model_copy(update={"model": clean.model or engine.default_model})
        self._digest = digest_of(request_body(self._request, self._request.model))
        self._tape: Tape | None = None
        self._began = engine.clock.monotonic()
        self._first_token_s: float | None = None
        self._request_id = ""
        self._spent = TokenUsage()
        self._failed = 0

    async def run(self) -> AsyncGenerator[ModelEvent | Spent]:
        if self._engine.recording is not None:
            self._tape = self._engine.recording.tape(self._request)
        try:
            async with aclosing(self._tries()) as events:
                async for event in events:
                    yield event
        except (asyncio.CancelledError, GeneratorExit):
            if self._tape is not None:
                self._tape.cancelled()
            raise

    async def _tries(self) -> AsyncGenerator[ModelEvent | Spent]:
        engine = self._engine
        run, told_s = self._request.context.run, 0.0
        while True:
            await engine.holds.until_free(run)
            turn = engine.queue.join(self._request.context.priority, self._began)
            assembly = Assembly(self._request.tools)
            delivered = False
            try:
                async with aclosing(self._wait_for(turn, told_s)) as waits:
                    async for wait in waits:
                        yield wait
                if engine.holds.holds(run):
                    continue
                async with aclosing(self._one_try(assembly, turn)) as events:
                    async for event in events:
                        delivered = delivered or isinstance(event, Delta)
                        yield event
                outcome = assembly.end()
            except TryFailed as failure:
                outcome = failure
            except ModelStreamBroken as error:
                outcome = TryFailed(error, retryable=True)
            finally:
                turn.leave()
            if isinstance(outcome, Finished):
                if self._tape is not None:
                    self._tape.whole()
                    self._tape.close()
                yield self._completed(outcome)
                return
            if assembly.started:
                self._spent += assembly.usage
                yield Spent(self._spent)
            delay_s = self._delay_or_raise(outcome)
            error = outcome.error
            message = engine.redactor.text(error.message)
            if outcome.retry_after_s is not None and outcome.retry_after_s > engine.settings.max_retry_delay_s:
                message += f"; it asked for {outcome.retry_after_s:.0f} s, capped"
            yield Retrying(
                attempt=self._failed,
                delay_s=delay_s,
                code=error.code,
                message=message,
                discard=delivered,
                shared=outcome.shared,
            )
            told_s = delay_s
            if not outcome.shared or outcome.fixed_delay_s is not None:
                await engine.clock.sleep(delay_s)
                told_s = 0.0

    async def _wait_for(self, turn: Turn, told_s: float) -> AsyncGenerator[Retrying]:
        """Until the try may begin. `told_s`: of the wait, so much was told already."""
        queue = self._engine.queue
        quiet_s = told_s + _QUEUE_SHOWN_S
        if not told_s and queue.cooling_s() >= _COOLING_SHOWN_S:
            quiet_s = 0.0
        while not await turn.comes(quiet_s):
            wait_s = max(queue.expected_s(turn), _QUEUE_SHOWN_S)
            message = "the provider asked all calls to slow down" if queue.cooling_s() else "other calls begin first"
            yield Retrying(
                attempt=self._failed, delay_s=wait_s, code="model.cooling_down", message=message, shared=True
            )
            quiet_s = wait_s + _QUEUE_SHOWN_S

    async def _one_try(self, assembly: Assembly, turn: Turn) -> AsyncGenerator[Delta | Spent]:
        tape = self._tape
        if tape is not None:
            tape.begin_try()
        async with AsyncExitStack() as stack:
            opened = await stack.enter_async_context(self._engine.provider.open(self._request, self._failed + 1))
            turn.opened()
            self._request_id = opened.request_id
            if tape is not None:
                tape.opened(opened.request_id)
            async for event in opened.events:
                if tape is not None:
                    tape.event(event)
                begun = assembly.started
                delta = assembly.feed(event)
                if delta is not None:
                    if self._first_token_s is None:
                        self._first_token_s = self._engine.clock.monotonic() - self._began
                    yield delta
                elif assembly.started and not begun:
                    yield Spent(self._spent + assembly.usage)
                if assembly.finished is not None:
                    return

    def _delay_or_raise(self, failure: TryFailed) -> float:
        """The wait before the next try, in seconds. Raises the ModelError when there is to be none."""
        engine = self._engine
        self._failed += 1
        delay_s = failure.fixed_delay_s
        if delay_s is None and failure.retryable and self._failed < engine.settings.max_attempts:
            delay_s = engine.backoff.delay_s(self._failed, failure.retry_after_s)
            if failure.shared:
                engine.queue.cool_down(delay_s)
        if self._tape is not None:
            self._tape.failed(failure, delay_s)
            if delay_s is None:
                self._tape.close()
        if delay_s is None:
            raise self._final(failure)
        return delay_s

    def _final(self, failure: TryFailed) -> ModelError:
        error = failure.error
        tries = f" after {self._failed} tries" if self._failed > 1 else ""
        final = type(error)(self._engine.redactor.text(error.message) + tries, hint=error.hint)
        final.usage = self._spent
        return final

    def _completed(self, turn: Finished) -> Finished:
        engine = self._engine
        usage = self._spent + turn.usage
        model = turn.model or self._request.model
        return turn.model_copy(
            update={
                "model": model,
                "usage": usage,
                "cost_usd": engine.quote(model, usage),
                "request_id": self._request_id,
                "request_digest": self._digest,
                "redactions": self._redactions,
                "first_token_s": self._first_token_s,
                "duration_s": engine.clock.monotonic() - self._began,
                "notice": engine.provider.notice(self._request.model),
            }
        )
