"""What the kernel refused a command, in the terms of policy."""

from __future__ import annotations

from collections.abc import Callable

from toka_runtime.protocol.capability import Decision, Denial, Layer, Operation, OperationKind
from toka_runtime.sandbox.observer_rules import LANDLOCK, NETWORK, VIEW

MANY = "(many different targets)"
_REASONS = {
    LANDLOCK: "a program of the command tried it; no rule of the call covers it",
    VIEW: "a program of the command tried it; it does not exist in the agent's view",
    NETWORK: "a program of the command tried it; the only way out is the proxy",
}
_IN_POLICY = frozenset({OperationKind.READ, OperationKind.LIST, OperationKind.WRITE, OperationKind.CONNECT})


def kernel_denial(operation: Operation, rule: str, decide: Callable[[Operation], Decision]) -> Denial:
    """`decide` says which capability would have allowed it. An operation without a target stands for many."""
    decision = decide(operation) if operation.target and operation.kind in _IN_POLICY else None
    told = operation if operation.target else operation.model_copy(update={"target": MANY})
    return Denial(
        operation=told,
        capability=decision.capability if isinstance(decision, Denial) else "",
        layer=Layer.SANDBOX,
        rule=rule,
        reason=_REASONS.get(rule, rule),
        hint=decision.hint if isinstance(decision, Denial) else "",
    )
