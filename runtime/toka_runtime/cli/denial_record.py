"""A denial as the verbs write it: one set of names for `denials --json` and `exec --denials`."""

from __future__ import annotations

from typing import Any

from toka_runtime.protocol.capability import Denial


def facts_of(denial: Denial) -> dict[str, Any]:
    """Stable names. `capability` is "" where none would allow it."""
    operation = denial.operation
    return {
        "operation": operation.kind.value,
        "target": operation.target,
        "argv": list(operation.argv),
        "capability": denial.capability,
        "layer": denial.layer.value,
        "rule": denial.rule,
        "reason": denial.reason,
        "hint": denial.hint,
    }
