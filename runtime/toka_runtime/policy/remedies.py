"""Which capability would have allowed an operation: the narrowest that the catalogue offers.

A table made once from the catalogue, so that a denial can name it without looking anything up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from toka_runtime.policy.matching import (
    execute_covered,
    host_covered,
    inside,
    path_covered,
    rules_for,
    split_host,
    split_target,
)
from toka_runtime.protocol.capability import ExecuteRule, NetworkRule, Operation, OperationKind, PathRule


class Remedy(NamedTuple):
    capability: str
    """"" when none would."""
    hint: str


NONE = Remedy("", "")
_TOOL_KINDS = {
    "list_files": OperationKind.READ,
    "read_file": OperationKind.READ,
    "search_text": OperationKind.READ,
    "write_file": OperationKind.WRITE,
    "edit_file": OperationKind.WRITE,
    "run_command": OperationKind.EXECUTE,
    "fetch_url": OperationKind.CONNECT,
}


@dataclass(frozen=True, slots=True)
class Remedies:
    """Rules of all capabilities that may be suggested, narrow ones first."""

    read: tuple[PathRule, ...] = ()
    write: tuple[PathRule, ...] = ()
    execute: tuple[ExecuteRule, ...] = ()
    network: tuple[NetworkRule, ...] = ()
    by_scope: tuple[tuple[OperationKind, str], ...] = ()
    """Capabilities that grant nothing until `grants` names a scope, by the operation that they are about."""
    model: str = ""

    def find(self, operation: Operation) -> Remedy:
        match operation.kind:
            case OperationKind.READ | OperationKind.LIST | OperationKind.WRITE:
                return self._path(operation)
            case OperationKind.EXECUTE:
                for rule in rules_for(self.execute, operation.argv[0] if operation.argv else ""):
                    if execute_covered(rule, operation.argv):
                        scope = "" if not operation.argv else " ".join(operation.argv[: max(len(rule.argv_prefix), 1)])
                        return _remedy(rule.capability, scope)
            case OperationKind.CONNECT:
                return self._network(operation)
            case OperationKind.MODEL:
                return _remedy(self.model, "") if self.model else NONE
            case OperationKind.TOOL:
                return self._tool(operation)
            case OperationKind.LISTEN:
                # No capability covers it.
                pass
        return NONE

    def _path(self, operation: Operation) -> Remedy:
        if not inside(operation.target):
            return NONE
        path, tree = split_target(operation.target)
        for rule in self.write if operation.kind is OperationKind.WRITE else self.read:
            if path_covered(rule, path, tree):
                return _remedy(rule.capability, operation.target if path else "**")
        return NONE

    def _network(self, operation: Operation) -> Remedy:
        place = split_host(operation.target)
        if place is None:
            return NONE
        for rule in self.network:
            if host_covered(rule, *place):
                return _remedy(rule.capability, operation.target)
        name = next((name for kind, name in self.by_scope if kind is operation.kind), "")
        return Remedy(name, f"grant it: grants: {{ {name}: [{operation.target!r}] }}") if name else NONE

    def _tool(self, operation: Operation) -> Remedy:
        """A tool comes with any right of its kind."""
        kind = _TOOL_KINDS.get(operation.tool or operation.target)
        names = {
            OperationKind.READ: [rule.capability for rule in self.read],
            OperationKind.WRITE: [rule.capability for rule in self.write],
            OperationKind.EXECUTE: [rule.capability for rule in self.execute],
            OperationKind.CONNECT: [name for found, name in self.by_scope if found is OperationKind.CONNECT],
        }.get(kind or OperationKind.TOOL, [])
        return Remedy(names[0], f"the tool comes with {names[0]}") if names else NONE


NO_REMEDIES = Remedies()


def _remedy(capability: str, scope: str) -> Remedy:
    if not scope:
        return Remedy(capability, f"declare {capability}")
    return Remedy(capability, f"declare {capability}, or grant just this: grants: {{ {capability}: [{scope!r}] }}")
