"""What a model call is: the request that the broker hands over and the events that come back."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Literal, Protocol

from toka_runtime.errors import ModelError
from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.ids import AgentName, CallId, RunId
from toka_runtime.protocol.model import Model
from toka_runtime.protocol.spec import Priority
from toka_runtime.protocol.usage import ModelPrice, TokenUsage


class CallContext(Model):
    """Who calls and for what: for budgets, recordings and the rehearsal. Never sent to a provider."""

    agent: AgentName
    run: RunId
    call: CallId
    task: int
    task_total: int
    task_description: str
    attempt: int = 1
    turn: int = 0
    priority: Priority = Priority.MEDIUM
    """Of the agent: urgent calls begin before others that wait."""
    rights: Rights = Rights()
    folder: str = ""
    """Where the agent works. System prompts name it, and it is another one in each run."""


class ModelRequest(Model):
    context: CallContext
    model: str = ""
    """"" means the gateway's default."""
    system: tuple[str, ...]
    """Blocks, the stable ones first: the gateway sets cache breakpoints."""
    messages: tuple[dict[str, Any], ...]
    """Messages API shape: {"role", "content": str | [blocks]}."""
    tools: tuple[dict[str, Any], ...] = ()
    """{"name", "description", "input_schema"}."""
    max_tokens: int = 8192


class Delta(Model):
    """Text as it streams."""

    kind: Literal["text", "thinking", "tool_input"]
    text: str
    block: int = 0


class Retrying(Model):
    """A try failed, or waits its turn; the next one begins after `delay_s`."""

    attempt: int
    """How many tries of this call have failed so far. 0: none did, the call waits because the provider asked all calls
    to slow down, or for calls that begin before it."""
    delay_s: float
    code: str
    message: str
    discard: bool = False
    """The text streamed so far belongs to the failed try and is void: the answer begins anew."""
    shared: bool = False
    """The provider asked all calls to slow down, not this one alone."""


class RejectedTool(Model):
    """A call of an offered tool whose input does not fit that tool's schema: it may not run."""

    id: str
    """Of the `tool_use` block, which stays in the content so that the model can be told."""
    name: str
    reason: str


class Finished(Model):
    """A whole, valid assistant turn: every block closed, every tool input parsed and a JSON object."""

    content: tuple[dict[str, Any], ...]
    """Messages API content blocks, ready to be appended to the conversation."""
    stop_reason: str
    """end_turn, tool_use, max_tokens, stop_sequence, refusal, pause_turn, model_context_window_exceeded. A tool may run
    only when it is tool_use; with any other, `content` holds no tool_use block at all."""
    model: str
    request_id: str = ""
    request_digest: str = ""
    usage: TokenUsage = TokenUsage()
    cost_usd: float | None = None
    redactions: int = 0
    """How many secrets were taken out of the request."""
    first_token_s: float | None = None
    duration_s: float = 0.0
    """From the request to the end of the answer, retries included; `first_token_s` likewise."""
    cut_tools: tuple[str, ...] = ()
    """Names of tools whose calls were taken out of the content because the turn did not end with tool_use."""
    rejected_tools: tuple[RejectedTool, ...] = ()
    notice: str = ""
    """For the operator, e.g. that the model is about to be retired."""


ModelEvent = Delta | Retrying | Finished


class ModelGateway(Protocol):
    """What the supervisor holds: the gateway's client, or a fake of it."""

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Deltas and retries, then one `Finished`. Raises ModelError; closing the generator cancels the call."""
        ...

    def last_usage(self, call: CallId, run: RunId | None = None) -> TokenUsage:
        """What a cancelled call had used when it was cut, estimated."""
        ...

    async def quote(self, model: str, usage: TokenUsage) -> float | None:
        """US dollars that so many tokens cost with a model ("" means the default); None when its price is not known.
        Raises ModelError."""
        ...

    async def hold(self, run: RunId) -> None:
        """From the return of this until `release` no request of the run begins, whatever its calls wait for; what
        streams goes on. Safe to call twice. Raises ModelError when the gateway does not confirm it."""
        ...

    def release(self, run: RunId) -> None:
        """Also for a run that is not held."""
        ...

    async def aclose(self) -> None: ...


class GatewaySettings(Model):
    provider: Literal["anthropic", "rehearsal", "replay"]
    base_url: str = ""
    default_model: str = ""
    replay_file: str = ""
    replay_speed: float = 1.0
    """0: as fast as possible."""
    record_file: str = ""
    max_attempts: int = 5
    max_retry_delay_s: float = 30.0
    connect_timeout_s: float = 10.0
    idle_timeout_s: float = 120.0
    """No byte of a stream for so long is a broken stream."""
    secret_environment: tuple[str, ...] = ()
    """Names of variables whose values are redacted beside the credential."""
    prices: tuple[ModelPrice, ...] = ()
    """The operator's own; they win over the list prices that ship."""
    rehearsal_delay_s: float = 0.02
    """Pause between streamed pieces of a rehearsal, so that a person can watch."""


# errors.py lies below the protocol and cannot name this type: every ModelError carries a TokenUsage from here on.
ModelError.usage = TokenUsage()
