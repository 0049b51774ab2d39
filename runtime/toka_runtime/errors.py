"""The tree of errors that a person may meet. Every leaf has a stable code.

A message says what happened and where; a hint says what to do. `BLE` (blind except) is banned by the linter:
catch the narrowest class here. Codes are part of the interface: they appear in `--json`, in events and in the docs.
"""

from __future__ import annotations

from typing import Any, ClassVar


class TokaError(Exception):
    """Root. `code` is stable, `message` says what happened and where, `hint` what to do ("" when nothing helps)."""

    code: ClassVar[str] = "toka.error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(TokaError):
    """Wrong words on a command line, or a setting that cannot be."""

    code = "usage"


class SpecError(TokaError):
    """One or more spec files are not good. The problems themselves are values (`specs.Problem`), not exceptions."""

    code = "spec.invalid"


class GraphError(SpecError):
    """The dependency graph cannot be ordered: a cycle, a duplicate or an unknown name."""

    code = "spec.graph"


class PolicyError(TokaError):
    """The capability catalogue or a rule in it is wrong."""

    code = "policy.invalid"


class IllegalTransition(TokaError):
    """A state change that the table of legal transitions does not have. Always a defect of ours."""

    code = "state.illegal"


class StoreError(TokaError):
    """The event store failed."""

    code = "store.error"


class StoreLocked(StoreError):
    """Another runtime holds this state folder."""

    code = "store.locked"


class StoreFull(StoreError):
    """The disk is full, or the store cannot be written. Side effects stop until it can."""

    code = "store.full"


class WorkspaceError(TokaError):
    """The workspace is missing, not writable, or git refuses."""

    code = "workspace.error"


class ProcessError(TokaError):
    """A worker, a tool or the fork server could not be started or ended unexpectedly."""

    code = "process.error"


class ForkServerLost(ProcessError):
    """The fork server ended while it was to start a process; the next start makes a new one."""

    code = "process.fork_server_lost"


class SandboxUnavailable(ProcessError):
    """A primitive that the sandbox needs is missing on this host."""

    code = "sandbox.unavailable"


class LimitUnenforceable(ProcessError):
    """A limit cannot be held exactly on this host, and the spec says `strict`."""

    code = "limits.unenforceable"


class ProtocolError(TokaError):
    """A peer (worker, gateway, bridge) said something that the protocol does not allow."""

    code = "protocol.error"


class LinkError(TokaError):
    """A front end and its runtime could not be connected."""

    code = "link.error"


class LinkDown(LinkError):
    """Nobody answers; trying again may help."""

    code = "link.down"


class LinkRefused(LinkError):
    """The other side turned us away, and will again: wrong version, not allowed."""

    code = "link.refused"


class CommandRefused(TokaError):
    """A command was understood and refused: wrong state, wrong run, not allowed."""

    code = "command.refused"


class NotAllowed(CommandRefused):
    """The role of whoever asks does not cover the command."""

    code = "command.not_allowed"


class ModelError(TokaError):
    """A model call failed for good."""

    code = "model.error"

    usage: Any = None
    """What the call cost until then: a `protocol.usage.TokenUsage`, which this module lies too low to name. `llm.base`
    sets the default to no usage at all."""


class BudgetReached(ModelError):
    """A cap on tokens or money does not leave room for this call. `figure` (a `protocol.budget.BudgetFigure`) is the
    cap and what is used of it, `wanted` what the call may cost at worst."""

    code = "model.budget"

    def __init__(self, figure: Any, wanted: float) -> None:
        what = f"${wanted:,.4f}" if figure.what == "cost_usd" else f"{wanted:,.0f} tokens"
        super().__init__(
            f"{figure.text}; the next call may take {what}",
            hint="a new cap: toka-runtime budget ACCOUNT CAP, or :budget in the console",
        )
        self.figure = figure
        self.wanted = wanted


class CredentialMissing(ModelError):
    """No credential for the provider was found."""

    code = "model.credential_missing"


class ModelRefused(ModelError):
    """The provider refused the request itself (authentication, permission, invalid request)."""

    code = "model.refused"


class PromptTooLong(ModelRefused):
    """The conversation no longer fits the model's context: compact it and ask again."""

    code = "model.prompt_too_long"


class ModelUnavailable(ModelError):
    """The provider could not be reached or was overloaded, and retries are used up."""

    code = "model.unavailable"


class GatewayLost(ModelUnavailable):
    """The gateway process could not be started or ended under a call. The next call starts a new one."""

    code = "model.gateway_lost"


class ModelStreamBroken(ModelError):
    """The stream ended early or held something unreadable."""

    code = "model.stream_broken"


class RecordingMiss(ModelError):
    """A replay met a request that its recording does not hold."""

    code = "model.recording_miss"


class RecordingBroken(ModelError):
    """A recording of model calls cannot be read or written."""

    code = "model.recording_broken"
