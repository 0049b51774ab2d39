"""What an operator may answer to a request, in words that say exactly what it opens and until when. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from toka_runtime.broker.visible import visible
from toka_runtime.policy.engine import NOT_GRANTED
from toka_runtime.policy.matching import execute_covered, path_protected, split_target
from toka_runtime.protocol.approval import GrantScope, Offer
from toka_runtime.protocol.capability import Denial, ExecuteRule, Operation, OperationKind, Rights

TTL_S = 600.0
"""What is offered as the time of a grant for a time."""
MAX_TTL_S = 86_400.0
_FILES = (OperationKind.READ, OperationKind.LIST, OperationKind.WRITE)
_VERBS = {
    OperationKind.READ: "read",
    OperationKind.LIST: "list",
    OperationKind.WRITE: "write",
    OperationKind.EXECUTE: "run",
    OperationKind.CONNECT: "connect to",
}


def may_be_asked(denial: Denial, rights: Rights) -> bool:
    """Whether an operator can open it at all. Not: what is protected from every tool, what lies outside of the agent's
    folder (its view has no such place), a command whose effect is not known before it runs."""
    operation = denial.operation
    if denial.rule != NOT_GRANTED or operation.kind not in _VERBS:
        return False
    if operation.kind in _FILES:
        path, tree = split_target(operation.target)
        # Who may not read a secret may not be asked about putting another in its place, either.
        return not any(
            path_protected(rule, path, tree, changes=True) for rule in (*rights.deny_read, *rights.deny_write)
        )
    if operation.kind is not OperationKind.EXECUTE:
        return True
    program = ExecuteRule(id="", capability="", argv_prefix=operation.argv[:1], inside_only=True)
    return execute_covered(program, operation.argv, rights.deny_read)


def widened(operations: Iterable[Operation]) -> tuple[Operation, ...] | None:
    """The folders around the files in place of the files. None where there is nothing to widen; the agent's whole
    folder is never meant by it."""
    found: list[Operation] = []
    changed = False
    for operation in operations:
        folder = posixpath.dirname(operation.target.rstrip("/"))
        if operation.kind not in _FILES or operation.target.endswith("/"):
            found.append(operation)
        elif not folder:
            return None
        else:
            found.append(operation.model_copy(update={"target": f"{folder}/"}))
            changed = True
    return tuple(found) if changed else None


def offers_of(shown: tuple[Operation, ...], task: int) -> tuple[Offer, ...]:
    """Narrowest first; `shown` is redacted."""
    offers = [
        Offer(scope=scope, ttl_s=ttl_s, text=words(shown, scope, task, ttl_s))
        for scope, ttl_s in (
            (GrantScope.ONCE, None),
            (GrantScope.TASK, None),
            (GrantScope.TTL, TTL_S),
            (GrantScope.RUN, None),
        )
    ]
    if (wide := widened(shown)) is not None:
        offers += [
            offer.model_copy(update={"wide": True, "text": words(wide, offer.scope, task, offer.ttl_s)})
            for offer in offers
            if offer.scope is not GrantScope.ONCE
        ]
    return tuple(offers)


def words(operations: tuple[Operation, ...], scope: GrantScope, task: int, ttl_s: float | None) -> str:
    what = ", ".join(_what(operation) for operation in operations)
    match scope:
        case GrantScope.ONCE:
            return f"{what}: this one call only"
        case GrantScope.TASK:
            return f"{what}: until task {task + 1} or the run ends"
        case GrantScope.TTL:
            return f"{what}: for {_span(ttl_s or TTL_S)} of running time, at most until the run ends"
        case GrantScope.RUN:
            return f"{what}: until the run ends"


def _what(operation: Operation) -> str:
    target, verb = visible(operation.target), _VERBS.get(operation.kind, str(operation.kind))
    if operation.kind in _FILES and target.endswith("/"):
        return f"{verb} everything below {target}"
    return f"{verb} {target}"


def _span(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"
