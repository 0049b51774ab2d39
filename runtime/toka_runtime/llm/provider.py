"""What a provider is to the gateway: something that opens a stream of raw Messages API events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from toka_runtime.llm.base import ModelRequest

RawEvent = dict[str, Any]
"""One event of a Messages API stream: {"type": "content_block_delta", …}."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A try that the provider has accepted."""

    events: AsyncIterator[RawEvent]
    """Raises TryFailed. Its end means only that no more events come, not that the turn is whole."""
    request_id: str = ""


class Provider(Protocol):
    """`rehearsal`, `replay` and `anthropic` differ in this only: retries, assembly, recording and pacing are shared."""

    name: str
    free: bool
    """No money is spent, whatever tokens the stream counts."""

    def open(self, request: ModelRequest, attempt: int) -> AbstractAsyncContextManager[Opened]:
        """Try number `attempt`, from 1. The request is already free of secrets, and names a model.
        Entering raises TryFailed; leaving ends the stream upstream at once."""
        ...

    def notice(self, model: str) -> str:
        """A sentence for the operator about this model ("" when there is nothing to say)."""
        ...

    async def aclose(self) -> None: ...
