"""The SDK takes a second to import: once for all tests that need it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from fakes.engines import API_KEY, MakeEngine
from toka_runtime.clock import SystemClock
from toka_runtime.llm.base import GatewaySettings
from toka_runtime.llm.engine import Engine
from toka_runtime.llm.redact import Redactor


@pytest.fixture
async def anthropic_engine() -> AsyncGenerator[MakeEngine]:
    """`anthropic_engine(base_url, environ=…, **settings)`: the real SDK behind the real engine, in this process."""
    from toka_runtime.llm.anthropic import AnthropicProvider

    async with AsyncExitStack() as stack:

        def make(base_url: str, environ: dict[str, str] | None = None, **settings: Any) -> Engine:
            environ = {"ANTHROPIC_API_KEY": API_KEY} if environ is None else environ
            fast: dict[str, Any] = {"max_retry_delay_s": 0.05, "idle_timeout_s": 10.0, **settings}
            chosen = GatewaySettings(provider="anthropic", base_url=base_url, **fast)
            engine = Engine(
                AnthropicProvider(chosen, environ),
                chosen,
                SystemClock(),
                Redactor.from_environment(environ),
                default_model="claude-sonnet-5-5",
            )
            stack.push_async_callback(engine.aclose)
            return engine

        yield make
