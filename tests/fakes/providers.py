"""A model provider whose tries a test writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from toka_runtime.llm.base import ModelRequest
from toka_runtime.llm.provider import Opened, RawEvent

HANG: RawEvent = {"type": "hang"}


class ScriptedProvider:
    """Each try is an exception (the request fails) or events, among them exceptions and HANG."""

    name = "scripted"
    free = False

    def __init__(self, *tries: Any) -> None:
        self.tries = list(tries)
        self.requests: list[ModelRequest] = []
        self.open_now = 0
        self.opening: asyncio.Event | None = None
        self.started = asyncio.Event()

    def notice(self, model: str) -> str:
        return ""

    @asynccontextmanager
    async def open(self, request: ModelRequest, attempt: int) -> AsyncGenerator[Opened]:
        self.requests.append(request)
        script = self.tries.pop(0) if len(self.tries) > 1 else self.tries[0]
        if self.opening is not None:
            await self.opening.wait()
        if isinstance(script, Exception):
            raise script
        self.open_now += 1
        try:
            yield Opened(events=self._events(script), request_id=f"req_{attempt}")
        finally:
            self.open_now -= 1

    async def _events(self, script: list[Any]) -> AsyncIterator[RawEvent]:
        for event in script:
            if isinstance(event, Exception):
                raise event
            if event is HANG:
                self.started.set()
                await asyncio.Event().wait()
            yield event

    async def aclose(self) -> None:
        pass
