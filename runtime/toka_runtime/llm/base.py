"""What a model call is: the request that the broker hands over and the events that come back."""

from __future__ import annotations

from typing import Any, Literal

from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.ids import AgentName, CallId, RunId
from toka_runtime.protocol.model import Model
from toka_runtime.protocol.usage import TokenUsage


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
    rights: Rights = Rights()


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
    attempt: int
    delay_s: float
    code: str
    message: str


class Finished(Model):
    """A whole, valid assistant turn: every block closed, every tool input parsed and a JSON object."""

    content: tuple[dict[str, Any], ...]
    """Messages API content blocks, ready to be appended to the conversation."""
    stop_reason: str
    """end_turn, tool_use, max_tokens, stop_sequence, refusal, pause_turn. A tool may run only when it is tool_use."""
    model: str
    request_id: str = ""
    request_digest: str = ""
    usage: TokenUsage = TokenUsage()
    cost_usd: float | None = None
    redactions: int = 0
    first_token_s: float | None = None
    duration_s: float = 0.0


ModelEvent = Delta | Retrying | Finished


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
    rehearsal_delay_s: float = 0.02
    """Pause between streamed pieces of a rehearsal, so that a person can watch."""
