"""Engines of the gateway, run inside the test's own process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from fakes.model_requests import model_request
from toka_runtime.llm.base import ModelRequest, Retrying
from toka_runtime.llm.engine import Engine

API_KEY = "sk-ant-test-0123456789abcdefghij"

MakeEngine = Callable[..., Engine]


async def collect(engine: Any, request: ModelRequest | None = None) -> list[Any]:
    """All events of one call, of an engine or of a gateway."""
    async with aclosing(engine.stream(request or model_request())) as events:
        return [event async for event in events]


def retries(events: list[Any]) -> list[Retrying]:
    return [event for event in events if isinstance(event, Retrying)]
