"""The proxy's part of the decision: policy first, then what only the proxy can see. Each outcome is told before it
counts, so a store that cannot be written stops the next connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from toka_runtime.aio import to_the_end
from toka_runtime.broker.denials import DenialLog, Emit
from toka_runtime.broker.proxy_http import Target, printable
from toka_runtime.broker.shown import Redact, shown_operation, shown_text
from toka_runtime.errors import StoreError
from toka_runtime.policy.engine import decide
from toka_runtime.policy.remedies import Remedies
from toka_runtime.protocol.capability import Decision, Denial, Layer, Operation, OperationKind, Rights
from toka_runtime.protocol.events import OperationAllowed

MALFORMED = "proxy:malformed-request"
NAME_MISMATCH = "proxy:name-mismatch"
NOT_TLS = "proxy:not-tls"
PLAIN_IN_TUNNEL = "proxy:plain-http-in-tunnel"
ADDRESS_REFUSED = "proxy:address-refused"
TAKEN_BACK = "proxy:right-taken-back"
FORBIDDEN = "403 Forbidden"


class Turned(Exception):
    """The client's request ends here. `status` is the HTTP status, `text` a short sentence, `rule` the rule that
    refused ("" when it only failed)."""

    def __init__(self, status: str, text: str, rule: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.rule = rule


class Judge:
    def __init__(
        self,
        *,
        rights: Callable[[], Rights],
        emit: Emit,
        denials: DenialLog,
        remedies: Remedies,
        redact: Redact,
    ) -> None:
        self._rights = rights
        self._emit = emit
        self._denials = denials
        self._remedies = remedies
        self._redact = redact

    def decide(self, target: str) -> Decision:
        """With the rights as they are now."""
        return decide(_operation(target), self._rights(), self._remedies)

    async def admit(self, target: Target) -> None:
        """Return when the connection may be opened, and that is on record. Raises Turned."""
        decision = self.decide(str(target))
        if isinstance(decision, Denial):
            await self.turn(decision)
        allowed = OperationAllowed(
            operation=OperationKind.CONNECT,
            target=shown_text(str(target), self._redact),
            rule=decision.rule,
            capability=decision.capability,
        )
        try:
            await self._emit(allowed)
        except StoreError as error:
            raise _unrecorded(error) from error

    async def refuse(self, target: str, rule: str, reason: str, *, status: str = FORBIDDEN, hint: str = "") -> NoReturn:
        """Tell a denial of the proxy's own and raise Turned."""
        await self.turn(denial(target, rule, reason, hint), status)

    async def turn(self, found: Denial, status: str = FORBIDDEN) -> NoReturn:
        """Tell a denial and raise Turned with a text for whoever asked."""
        await self.tell(found)
        missing = f"missing capability: {found.capability}" if found.capability else "no capability allows it"
        hint = f" Hint: {found.hint}." if found.hint else ""
        text = f"Denied: {found.operation.target}: {found.reason} [{missing}; rule: {found.rule}].{hint}"
        raise Turned(status, text, found.rule)

    async def tell(self, found: Denial) -> None:
        """Raises Turned when it cannot be written; it stays counted then."""
        shown = found.model_copy(
            update={
                "operation": shown_operation(found.operation, self._redact),
                "layer": Layer.PROXY,
                "reason": shown_text(found.reason, self._redact),
                "hint": shown_text(found.hint, self._redact),
            }
        )
        try:
            # To its end, also when the client or the proxy goes: a denial is never dropped.
            await to_the_end(self._denials.tell(shown, -1), name="proxy denial")
        except Exception as error:  # whatever kept it from being recorded, nothing is opened
            raise _unrecorded(error) from error


def denial(target: str, rule: str, reason: str, hint: str = "") -> Denial:
    return Denial(operation=_operation(target), capability="", layer=Layer.PROXY, rule=rule, reason=reason, hint=hint)


def _operation(target: str) -> Operation:
    return Operation(kind=OperationKind.CONNECT, target=target)


def _unrecorded(error: BaseException) -> Turned:
    text = f"Nothing was opened: it could not be recorded ({printable(str(error).encode())})"
    return Turned("503 Service Unavailable", text)
