"""The gateway's side of the socket: sets itself up from `hello`, then carries out calls, each in a task of its own."""

from __future__ import annotations

import asyncio
import gc
import importlib
from contextlib import aclosing
from pathlib import Path
from typing import Any

from toka_runtime.aio import TaskOwner
from toka_runtime.clock import SystemClock
from toka_runtime.errors import ModelError
from toka_runtime.llm.base import Delta, Finished, GatewaySettings, ModelRequest, Retrying
from toka_runtime.llm.channel import FrameChannel
from toka_runtime.llm.engine import Engine, Price, Spent
from toka_runtime.llm.holds import Holds
from toka_runtime.llm.models import default_model
from toka_runtime.llm.provider import Provider
from toka_runtime.llm.recording import Recording
from toka_runtime.llm.redact import Redactor
from toka_runtime.llm.rehearsal import RehearsalProvider
from toka_runtime.llm.replay import ReplayProvider
from toka_runtime.llm.wire import error_fields, error_frame, event_frame
from toka_runtime.protocol.ids import RunId
from toka_runtime.protocol.usage import TokenUsage
from toka_runtime.worker.frames import Frame, FrameError

FLUSH_S = 0.025
"""Text is held back this long at least, so that a token does not cost the runtime an event each …"""
_STREAMS_A_FLUSH = 16
_MAX_FLUSH_S = 0.1
"""… and longer, up to this, the more streams there are."""


class GatewayService:
    """Ends when the other side closes the socket."""

    def __init__(self, protections: tuple[str, ...]) -> None:
        self.channel = FrameChannel(self._on_frame, self._on_lost)
        self._protections = protections
        self._tasks = TaskOwner(self._on_failure)
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._engine: Engine | None = None
        self._holds = Holds()
        self._ended = asyncio.Event()
        self._redactor = Redactor({})

    async def run(self) -> None:
        """Until the runtime is gone; streams that run then are closed upstream."""
        await self._ended.wait()
        await self._tasks.aclose()
        if self._engine is not None:
            await self._engine.aclose()

    def flush_s(self) -> float:
        return min(_MAX_FLUSH_S, FLUSH_S * max(1.0, len(self._calls) / _STREAMS_A_FLUSH))

    def _on_lost(self) -> None:
        self._ended.set()

    def _on_frame(self, frame: Frame) -> None:
        match frame.get("t"):
            case "hello" if self._engine is None:
                self._tasks.spawn(self._set_up(frame), name="hello")
            case "call" if self._engine is not None:
                number = int(frame["id"])
                task = self._tasks.spawn(self._call(self._engine, number, frame["request"]), name=f"call {number}")
                self._calls[number] = task
                task.add_done_callback(lambda _: self._calls.pop(number, None))
            case "quote" if self._engine is not None:
                cost_usd = self._engine.quote(str(frame["model"]), TokenUsage.model_validate(frame["usage"]))
                self.channel.send({"t": "quoted", "id": frame["id"], "cost_usd": cost_usd})
            case "hold":
                # At once, not when its task runs: a call that follows must find it.
                self._holds.hold(RunId(frame["run"]))
                self._tasks.spawn(self._hold(int(frame["id"]), RunId(frame["run"])), name="hold")
            case "release":
                self._holds.release(RunId(frame["run"]))
            case "cancel":
                if (task := self._calls.get(int(frame["id"]))) is not None:
                    task.cancel()
            case _:
                # Ours are the only frames there are: whoever sends another is not our runtime.
                self.channel.close()

    async def _hold(self, number: int, run: RunId) -> None:
        await self._holds.until_silent(run)
        self.channel.send({"t": "held", "id": number})

    def _on_failure(self, name: str, error: BaseException) -> None:
        """A defect of ours. The call must still end on the other side."""
        message = self._redactor.text(f"the gateway met a defect: {type(error).__name__}: {error}")
        kind, _, number = name.partition(" ")
        if kind == "call":
            self.channel.send(error_frame(int(number), ModelError(message)))
        else:
            self.channel.send({"t": "failed", **error_fields(ModelError(message))})

    async def _set_up(self, hello: Frame) -> None:
        settings = GatewaySettings.model_validate(hello["settings"])
        environ: dict[str, str] = hello["environ"]
        self._redactor = Redactor(hello["secrets"])
        clock = SystemClock()
        try:
            provider: Provider
            price: Price | None = None
            match settings.provider:
                case "rehearsal":
                    provider = RehearsalProvider(clock, settings.rehearsal_delay_s)
                case "replay":
                    provider = ReplayProvider(Path(settings.replay_file), clock, speed=settings.replay_speed)
                case "anthropic":
                    # In a thread: the loop stays able to notice that the runtime is gone.
                    provider, price = await asyncio.to_thread(_load_anthropic, settings, environ, self._holds)
            recording = None
            if settings.record_file:
                recording = Recording(Path(settings.record_file), provider.name, clock, self._redactor)
        except ModelError as error:
            self.channel.send({"t": "failed", **error_fields(error)})
            return
        self._engine = Engine(
            provider,
            settings,
            clock,
            self._redactor,
            default_model=default_model(settings.default_model, environ),
            price=price,
            recording=recording,
            holds=self._holds,
        )
        # What is loaded now stays: a full collection would otherwise stall every stream for 0.1 s.
        gc.freeze()
        self.channel.send({"t": "ready", "protections": self._protections})

    async def _call(self, engine: Engine, number: int, raw: dict[str, Any]) -> None:
        pieces = _DeltaBuffer(self, number)
        try:
            async with aclosing(engine.stream(ModelRequest.model_validate(raw))) as events:
                async for event in events:
                    if isinstance(event, Delta):
                        pieces.add(event)
                    else:
                        pieces.flush()
                        self._send(number, event)
                    if self.channel.congested:
                        await self.channel.drained()
        except ModelError as error:
            pieces.flush()
            self.channel.send(error_frame(number, error))
        except FrameError as error:
            self.channel.send(error_frame(number, ModelError(f"the answer cannot be passed on: {error}")))
        finally:
            pieces.close()

    def _send(self, number: int, event: Spent | Retrying | Finished) -> None:
        if isinstance(event, Spent):
            self.channel.send({"t": "spent", "id": number, "usage": event.usage.model_dump(mode="json")})
        else:
            self.channel.send(event_frame(number, event))


class _DeltaBuffer:
    """The first piece goes at once; later ones are joined for `flush_s`."""

    def __init__(self, service: GatewayService, number: int) -> None:
        self._service = service
        self._number = number
        self._runs: list[tuple[str, int, list[str]]] = []
        self._loop = asyncio.get_running_loop()
        self._next = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, delta: Delta) -> None:
        if self._runs and self._runs[-1][:2] == (delta.kind, delta.block):
            self._runs[-1][2].append(delta.text)
        else:
            self._runs.append((delta.kind, delta.block, [delta.text]))
        if self._timer is None:
            if self._loop.time() >= self._next:
                self.flush()
            else:
                self._timer = self._loop.call_at(self._next, self._ring)

    def flush(self) -> None:
        self.close()
        if self._runs:
            deltas = [(kind, block, "".join(pieces)) for kind, block, pieces in self._runs]
            self._runs = []
            self._service.channel.send({"t": "deltas", "id": self._number, "deltas": deltas})
            self._next = self._loop.time() + self._service.flush_s()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        self.flush()


def _load_anthropic(settings: GatewaySettings, environ: dict[str, str], holds: Holds) -> tuple[Provider, Price]:
    module = importlib.import_module("toka_runtime.llm.anthropic")
    pricing = importlib.import_module("toka_runtime.llm.pricing")
    return module.AnthropicProvider(settings, environ, holds), pricing.price_usd
