"""The decision: deny first, then what the rights cover, and otherwise no. Pure, and never in doubt in favour.

Policy is the first wall and an honest one: it decides on what is asked (exact path, argv, host and port). It cannot
know what an allowed program does once it runs; confining that is the kernel's part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from toka_runtime.policy.matching import (
    execute_covered,
    host_covered,
    inside,
    path_covered,
    path_protected,
    rules_for,
    split_host,
    split_target,
)
from toka_runtime.policy.remedies import NO_REMEDIES, Remedies
from toka_runtime.protocol.capability import (
    Allowed,
    Decision,
    Denial,
    Layer,
    Operation,
    OperationKind,
    PathRule,
    Rights,
)

UNKNOWN_OPERATION = "deny:unknown-operation"
OUTSIDE = "deny:outside-folder"
MALFORMED = "deny:malformed-target"
NOT_GRANTED = "deny:not-granted"
NOT_OFFERED = "deny:tool-not-offered"
UNREADABLE = "deny:unreadable-command"
MODEL_RULE = "model-access"


def decide(operation: Operation, rights: Rights, remedies: Remedies = NO_REMEDIES) -> Decision:
    """Allowed with the rule that covers it, or a Denial with the capability that would. Takes some microseconds."""
    judge = _JUDGES.get(operation.kind)
    if judge is None:
        return _deny(operation, UNKNOWN_OPERATION, f"{operation.kind!r} is no operation that policy knows")
    return judge(operation, rights, remedies)


def _read(operation: Operation, rights: Rights, remedies: Remedies) -> Decision:
    return _path(operation, rights.read, rights.deny_read, remedies, changes=False)


def _write(operation: Operation, rights: Rights, remedies: Remedies) -> Decision:
    return _path(operation, rights.write, rights.deny_write, remedies, changes=True)


def _path(
    operation: Operation,
    rules: tuple[PathRule, ...],
    protected: tuple[PathRule, ...],
    remedies: Remedies,
    *,
    changes: bool,
) -> Decision:
    if not inside(operation.target):
        return _deny(
            operation,
            OUTSIDE,
            "the path lies outside the agent's own folder",
            hint="only paths in the agent's folder can be used; no capability changes that",
        )
    path, tree = split_target(operation.target)
    for rule in protected:
        if path_protected(rule, path, tree, changes=changes):
            return _deny(
                operation,
                rule.id,
                f"{rule.glob} is protected from {'changes' if changes else 'reading'} by tools",
                hint="no capability changes that",
            )
    for rule in rules:
        if path_covered(rule, path, tree):
            return Allowed(rule=rule.id, capability=rule.capability)
    verb = "writing" if changes else "reading"
    reason = f"{verb} is granted for {_list(rule.glob for rule in rules)} only" if rules else f"{verb} is not granted"
    return _deny(operation, NOT_GRANTED, reason, remedies=remedies)


def _execute(operation: Operation, rights: Rights, remedies: Remedies) -> Decision:
    program = operation.argv[0] if operation.argv else ""
    rules = rules_for(rights.execute, program)
    for rule in rules:
        if execute_covered(rule, operation.argv, rights.deny_read):
            return Allowed(rule=rule.id, capability=rule.capability)
    if not operation.argv:
        return _deny(
            operation,
            UNREADABLE,
            "the command uses shell features whose effect is not known before it runs (substitution, subshell, "
            "variable, background, here-document …)",
            remedies=remedies,
            hint="write it as plain commands joined by && ; or |, with literal arguments",
        )
    same = [" ".join(rule.argv_prefix) for rule in rules]
    reason = f"running {program} is not granted"
    if same:
        reason = f"of {program} only {_list(same)} is granted, within conditions on arguments"
    return _deny(operation, NOT_GRANTED, reason, remedies=remedies)


def _connect(operation: Operation, rights: Rights, remedies: Remedies) -> Decision:
    place = split_host(operation.target)
    if place is None:
        return _deny(operation, MALFORMED, "the target is not host:port")
    for rule in rights.network:
        if host_covered(rule, *place):
            return Allowed(rule=rule.id, capability=rule.capability)
    hosts = [f"{rule.host}:{rule.port}" for rule in rights.network]
    reason = f"the network is granted for {_list(hosts)} only" if hosts else "the network is not granted"
    return _deny(operation, NOT_GRANTED, reason, remedies=remedies)


def _model(operation: Operation, rights: Rights, remedies: Remedies) -> Decision:
    if rights.model:
        return Allowed(rule=MODEL_RULE, capability=MODEL_RULE)
    return _deny(operation, NOT_GRANTED, "using a model is not granted", remedies=remedies)


def _tool(operation: Operation, rights: Rights, remedies: Remedies) -> Decision:
    """Only ever asked about what is not offered."""
    offered = _list(rights.tools)
    return _deny(
        operation, NOT_OFFERED, f"the tool is not offered to this agent (offered: {offered})", remedies=remedies
    )


_Judge = Callable[[Operation, Rights, Remedies], Decision]
_JUDGES: dict[OperationKind, _Judge] = {
    OperationKind.READ: _read,
    OperationKind.LIST: _read,
    OperationKind.WRITE: _write,
    OperationKind.EXECUTE: _execute,
    OperationKind.CONNECT: _connect,
    OperationKind.MODEL: _model,
    OperationKind.TOOL: _tool,
}


def _deny(operation: Operation, rule: str, reason: str, *, remedies: Remedies = NO_REMEDIES, hint: str = "") -> Denial:
    remedy = remedies.find(operation)
    return Denial(
        operation=operation,
        capability=remedy.capability,
        layer=Layer.POLICY,
        rule=rule,
        reason=reason,
        hint="; ".join(text for text in (hint, remedy.hint) if text),
    )


def _list(values: Iterable[str]) -> str:
    texts = list(dict.fromkeys(values))
    return ", ".join(texts[:6]) + (f" and {len(texts) - 6} more" if len(texts) > 6 else "") or "nothing"
