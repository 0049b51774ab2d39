"""Provider `anthropic`: the Messages API through the official SDK, at any base URL. The one importer of the SDK, and
imported itself only inside the gateway process: it costs over a second and 80 MB.

The SDK is used for authentication, connections and the decoding of server-sent events. Its retries are off (it obeys
any Retry-After, silently), its conversation on the server (`tool_runner`) is not used, and events are read before its
typed layer, which would accept a stream that ends early.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import anthropic
import httpx2
from anthropic.resources.messages import DEPRECATED_MODELS

from toka_runtime.errors import CredentialMissing, ModelRefused, ModelStreamBroken, ModelUnavailable
from toka_runtime.llm.base import GatewaySettings, ModelRequest
from toka_runtime.llm.credentials import PREFIX
from toka_runtime.llm.failures import TryFailed, failure_of_status
from toka_runtime.llm.holds import Holds
from toka_runtime.llm.json_value import as_object
from toka_runtime.llm.provider import Opened, RawEvent
from toka_runtime.llm.request import request_body
from toka_runtime.protocol.ids import RunId

_POOL_TIMEOUT_S = 60.0
_END_TIMEOUT_S = 0.25
_BODY_SHOWN_CHARS = 500
_HINT = "set ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN; for a local server that asks for none, any word will do"


class AnthropicProvider:
    name = "anthropic"
    free = False

    def __init__(self, settings: GatewaySettings, environ: Mapping[str, str], holds: Holds | None = None) -> None:
        """`environ`: the variables that the SDK reads. `holds`: runs whose requests are held back to the moment in
        which they are let go, also with their connection open. Raises CredentialMissing."""
        self._holds = holds or Holds()
        self._run: ContextVar[RunId] = ContextVar("run")
        timeout = anthropic.Timeout(
            settings.idle_timeout_s,
            connect=settings.connect_timeout_s,
            pool=max(_POOL_TIMEOUT_S, settings.idle_timeout_s),
        )
        variables = {name: value for name, value in environ.items() if name.startswith(PREFIX)}
        with _environment(variables) as keep:
            try:
                self._client = anthropic.AsyncAnthropic(
                    base_url=settings.base_url or None,
                    timeout=timeout,
                    max_retries=0,
                    http_client=anthropic.DefaultAsyncHttpxClient(event_hooks={"request": [self._watch]}),
                    # Prompts go to the provider and nowhere else.
                    open_telemetry=False,
                )
            except anthropic.AnthropicError as error:
                raise CredentialMissing(f"the credential cannot be read: {error}", hint=_HINT) from None
            if self._client.credentials is not None:
                # Tokens that expire are fetched again later, by way of these variables.
                keep()

    def notice(self, model: str) -> str:
        end = DEPRECATED_MODELS.get(model)
        return f"{model} is deprecated and ends on {end}" if end else ""

    def open(self, request: ModelRequest, attempt: int) -> AbstractAsyncContextManager[Opened]:
        return self._open(request)

    @asynccontextmanager
    async def _open(self, request: ModelRequest) -> AsyncGenerator[Opened]:
        self._check_credential()
        self._run.set(request.context.run)
        body = request_body(request, request.model)
        # The body is checked against the SDK's own types by the request contract test, not by the type checker.
        create: Any = self._client.messages.with_streaming_response.create
        call: AbstractAsyncContextManager[Any] = create(**body)
        try:
            http: httpx2.Response = (await call.__aenter__()).http_response
        except (anthropic.AnthropicError, httpx2.HTTPError, OSError) as error:
            raise _opening_failure(error) from None
        try:
            kind = http.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                text = (await http.aread())[:_BODY_SHOWN_CHARS].decode(errors="replace")
                raise TryFailed(
                    ModelRefused(f"the server answered {kind or 'nothing'} instead of a stream: {text}"),
                    retryable=False,
                )
            yield Opened(events=_events(http), request_id=http.headers.get("request-id", ""))
        finally:
            # Also when the call is being cancelled: closing the connection is what stops the tokens.
            await call.__aexit__(None, None, None)

    async def _watch(self, request: httpx2.Request) -> None:
        request.extensions = {**request.extensions, "trace": self._sends(self._run.get())}

    def _sends(self, run: RunId) -> Callable[[str, object], Awaitable[None]]:
        """Told by the HTTP client what it does next: the last moment to hold a request back."""
        sending = ExitStack()

        async def trace(event: str, _info: object) -> None:
            if event.endswith("send_request_headers.started"):
                await self._holds.until_free(run)
                sending.enter_context(self._holds.sending(run))
            elif event.endswith(
                ("send_request_headers.failed", "send_request_body.complete", "send_request_body.failed")
            ):
                sending.close()

        return trace

    def _check_credential(self) -> None:
        client = self._client
        headers = {name.lower() for name in client.default_headers}
        if not (client.api_key or client.auth_token or client.credentials or headers & {"authorization", "x-api-key"}):
            raise TryFailed(CredentialMissing("no credential for the provider was found", hint=_HINT), retryable=False)

    async def aclose(self) -> None:
        await self._client.close()


async def _events(response: httpx2.Response) -> AsyncIterator[RawEvent]:
    stream = anthropic.AsyncStream.raw_events(response)
    try:
        async for sse in stream:
            if sse.event == "ping" or not sse.data:
                continue
            event = as_object(json.loads(sse.data))
            if not event:
                raise ValueError("not a JSON object")
            if event.get("type") == "message_stop":
                await _read_to_end(stream)
            yield event
    except httpx2.TimeoutException:
        raise TryFailed(ModelStreamBroken("the stream fell silent"), retryable=True) from None
    except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
        raise TryFailed(
            ModelStreamBroken(f"the connection broke in mid-stream ({_what(error)})"), retryable=True
        ) from None
    except (ValueError, RecursionError) as error:
        raise TryFailed(
            ModelStreamBroken(f"the stream held an unreadable event ({_what(error)})"), retryable=True
        ) from None


async def _read_to_end(stream: AsyncIterator[Any]) -> None:
    """Only a response that was read to its end gives its connection back to the pool. The turn is whole already, so
    nothing that happens here can hurt it."""
    with suppress(TimeoutError, httpx2.HTTPError, httpx2.StreamError, OSError, ValueError):
        async with asyncio.timeout(_END_TIMEOUT_S):
            async for _ in stream:
                pass


def _opening_failure(error: Exception) -> TryFailed:
    match error:
        case anthropic.APIStatusError():
            message = error.api_message or str(error.body or error.message)[:_BODY_SHOWN_CHARS]
            return failure_of_status(error.status_code, error.response.headers, str(error.type or ""), message)
        case anthropic.APITimeoutError() | httpx2.TimeoutException():
            return TryFailed(ModelUnavailable("the provider did not answer in time"), retryable=True)
        case anthropic.APIConnectionError() | httpx2.HTTPError() | OSError():
            cause = _what(error.__cause__ or error)
            return TryFailed(ModelUnavailable(f"the provider could not be reached ({cause})"), retryable=True)
        case anthropic.CredentialsError():
            return TryFailed(CredentialMissing(f"the credential cannot be used: {error}", hint=_HINT), retryable=False)
        case _:
            return TryFailed(ModelRefused(f"the SDK refused the request: {error}"), retryable=False)


def _what(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


@contextmanager
def _environment(variables: Mapping[str, str]) -> Generator[Any]:
    """The SDK reads its settings from the environment: there while its client is built, and gone after, unless the
    function that is yielded is called."""
    kept = False

    def keep() -> None:
        nonlocal kept
        kept = True

    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield keep
    finally:
        if not kept:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
