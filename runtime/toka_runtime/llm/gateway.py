"""The runtime's way to a model: one gateway process, started when first needed, that holds the credential.

    gateway = Gateway(settings, clock)
    async with aclosing(gateway.stream(request)) as events:
        async for event in events: ...       # Delta*, Retrying*, and Finished last
    await gateway.aclose()

Failures are `ModelError`s, each with the `usage` until then. Neither the SDK nor an HTTP client is ever imported here.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from toka_runtime.clock import Clock
from toka_runtime.errors import GatewayLost, ModelError
from toka_runtime.llm.assembly import estimate_tokens
from toka_runtime.llm.base import Delta, Finished, GatewaySettings, ModelEvent, ModelRequest
from toka_runtime.llm.link import GatewayLink
from toka_runtime.llm.recording import create_recording
from toka_runtime.llm.wire import call_frame, read_error, read_events
from toka_runtime.protocol.ids import CallId, RunId
from toka_runtime.protocol.usage import TokenUsage

RESTART_PAUSE_S = 1.0
"""At least so long between two starts of the process."""
_REMEMBERED = 4096
_FILES = ("replay_file", "record_file")


@dataclass(slots=True)
class _Meter:
    """What a call has cost so far, as far as this side can tell."""

    counts: bool
    """False for a rehearsal: it uses nothing."""
    known: TokenUsage = field(default_factory=TokenUsage)
    characters: int = 0
    """Streamed since `known` was."""
    exact: bool = False

    @property
    def usage(self) -> TokenUsage:
        if self.exact or not self.counts:
            return self.known
        return self.known + TokenUsage(output_tokens=estimate_tokens(self.characters), estimated=True)


class Gateway:
    """One for a runtime; any number of calls at once."""

    def __init__(
        self,
        settings: GatewaySettings,
        clock: Clock,
        *,
        environ: Mapping[str, str] | None = None,
        on_start: Callable[[int], None] | None = None,
    ) -> None:
        """`environ`: where the credential is looked for; the process' own by default. `on_start` is told the pid of
        each process."""
        # The process works in `/`.
        files = {name: str(Path(path).absolute()) for name in _FILES if (path := getattr(settings, name))}
        self._settings = settings.model_copy(update=files)
        self._clock = clock
        self._environ = dict(os.environ if environ is None else environ)
        self._on_start = on_start
        self._link: GatewayLink | None = None
        self._starting = asyncio.Lock()
        self._not_before = 0.0
        self._recording_made = False
        self._closed = False
        self._held: set[RunId] = set()
        self._meters: OrderedDict[tuple[RunId, CallId], _Meter] = OrderedDict()

    @property
    def pid(self) -> int | None:
        """Of the gateway process; None while there is none."""
        return self._link.pid if self._link is not None and not self._link.ended else None

    @property
    def protections(self) -> tuple[str, ...]:
        """What guards the process, one line each."""
        return self._link.protections if self._link is not None else ()

    async def start(self) -> None:
        """Start the process ahead of the first call (the SDK takes over a second). Raises ModelError."""
        await self._ready_link()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """One model call: text as it comes, Finished last. Closing the generator, or cancelling who waits for it, ends
        the call upstream at once. Raises ModelError: CredentialMissing, ModelRefused, PromptTooLong, ModelUnavailable,
        GatewayLost, ModelStreamBroken, RecordingMiss, RecordingBroken."""
        meter = self._remember(request)
        link = await self._ready_link()
        number, frames = link.begin()
        over = False
        try:
            await link.send_call(await call_frame(number, request))
            while True:
                frame = await frames.get()
                if frame is None:
                    over = True
                    raise await self._death(link, meter)
                if frame["t"] == "error":
                    over = True
                    raise self._account(meter, read_error(frame))
                if frame["t"] == "spent":
                    meter.known, meter.characters = TokenUsage.model_validate(frame["usage"]), 0
                for event in read_events(frame):
                    if isinstance(event, Delta):
                        meter.characters += len(event.text)
                    elif isinstance(event, Finished):
                        over = True
                        meter.known, meter.exact = event.usage, True
                        yield event
                        return
                    yield event
        finally:
            link.end(number, cancel=not over)

    def last_usage(self, call: CallId, run: RunId | None = None) -> TokenUsage:
        """What a call has cost, also one that was cancelled: input tokens as counted, output estimated from the text
        that came. Call ids are unique within a run only; without `run` the newest call of that id is meant. Nothing at
        all for a call that never began."""
        if run is not None:
            meter = self._meters.get((run, call))
        else:
            meter = next((self._meters[key] for key in reversed(self._meters) if key[1] == call), None)
        return meter.usage if meter is not None else TokenUsage()

    async def quote(self, model: str, usage: TokenUsage) -> float | None:
        if self._settings.provider != "anthropic":
            return 0.0
        return await (await self._ready_link()).quote(model, usage)

    async def hold(self, run: RunId) -> None:
        self._held.add(run)
        # One that is still starting is told before it is given its first call.
        if self._link is not None and self._link.ready:
            await self._link.hold(run)

    def release(self, run: RunId) -> None:
        self._held.discard(run)
        if self._link is not None and self._link.ready:
            self._link.release(run)

    async def aclose(self) -> None:
        """End the process; calls that still run fail with GatewayLost. Safe to call twice."""
        self._closed = True
        if self._link is not None:
            self._link.abort()
        async with self._starting:
            if self._link is not None:
                await self._link.close()

    def _remember(self, request: ModelRequest) -> _Meter:
        key = (request.context.run, request.context.call)
        meter = self._meters[key] = _Meter(counts=self._settings.provider != "rehearsal")
        self._meters.move_to_end(key)
        if len(self._meters) > _REMEMBERED:
            self._meters.popitem(last=False)
        return meter

    async def _ready_link(self) -> GatewayLink:
        async with self._starting:
            if self._link is not None and self._link.ended:
                await self._link.close()
                self._link = None
            if self._closed:
                raise GatewayLost("the gateway was closed")
            if self._link is None:
                self._link = await self._new_link()
            return self._link

    async def _new_link(self) -> GatewayLink:
        if (wait_s := self._not_before - self._clock.monotonic()) > 0:
            # One that dies as soon as it lives must not be started by a hundred agents in turn.
            await self._clock.sleep(wait_s)
        self._not_before = self._clock.monotonic() + RESTART_PAUSE_S
        if self._settings.record_file and not self._recording_made:
            create_recording(Path(self._settings.record_file))
            self._recording_made = True
        # Known before it is ready, so that `aclose` can end it while it starts.
        self._link = link = GatewayLink(self._settings, self._environ)
        await link.open()
        for run in self._held:
            link.announce_hold(run)
        if self._on_start is not None:
            self._on_start(link.pid)
        return link

    async def _death(self, link: GatewayLink, meter: _Meter) -> ModelError:
        error = GatewayLost("the gateway was closed") if self._closed else await link.death()
        error.usage = meter.usage
        return error

    def _account(self, meter: _Meter, error: ModelError) -> ModelError:
        meter.known, meter.exact = error.usage, True
        return error
