"""What events show of arguments and results: valid text, without secrets, cut with a mark."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, cast

from toka_runtime.protocol.capability import Operation

Redact = Callable[[str], str]
ARGUMENT_CHARS = 2000
SUMMARY_CHARS = 300
_SUMMARY_LINES = 3
_MARGIN_CHARS = 4096
_MAX_ITEMS = 50
_MAX_DEPTH = 4


def valid(text: str) -> str:
    """Text that every encoder takes: halves of surrogate pairs become `?`."""
    return text.encode("utf-8", "replace").decode()


def shown_text(text: str, redact: Redact, most: int = ARGUMENT_CHARS) -> str:
    # A secret that the cut would halve has to be whole when it is looked for.
    clean = redact(valid(text[: most + _MARGIN_CHARS]))
    if len(text) <= most and len(clean) <= most:
        return clean
    return f"{clean[:most]}… +{max(len(text), len(clean)) - most:,} characters"


def shown_arguments(arguments: object, redact: Redact) -> dict[str, Any]:
    """As asked, whatever a model may have sent."""
    if not isinstance(arguments, dict):
        return {"": _shown(arguments, redact, 1)}
    return _shown(cast(dict[object, object], arguments), redact, 0)


def arguments_digest(arguments: object) -> str:
    """Short: it tells equal arguments apart from others, and nothing else."""
    return hashlib.sha256(json.dumps(arguments, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _shown(value: object, redact: Redact, depth: int) -> Any:
    if isinstance(value, str):
        return shown_text(value, redact)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    if depth >= _MAX_DEPTH:
        return "…"
    if isinstance(value, list):
        items = cast(list[object], value)
        shown = [_shown(item, redact, depth + 1) for item in items[:_MAX_ITEMS]]
        return [*shown, f"… +{len(items) - _MAX_ITEMS} entries"] if len(items) > _MAX_ITEMS else shown
    if isinstance(value, dict):
        entries = list(cast(dict[object, object], value).items())
        found = {
            shown_text(str(key), redact, 100): _shown(item, redact, depth + 1) for key, item in entries[:_MAX_ITEMS]
        }
        return found | ({"…": f"+{len(entries) - _MAX_ITEMS} entries"} if len(entries) > _MAX_ITEMS else {})
    return shown_text(str(value), redact)


def shown_operation(operation: Operation, redact: Redact) -> Operation:
    return operation.model_copy(
        update={
            "target": shown_text(operation.target, redact),
            "argv": tuple(shown_text(argument, redact, 500) for argument in operation.argv[:_MAX_ITEMS]),
        }
    )


def summary_of(content: str) -> str:
    """The first lines of a result."""
    lines = content.split("\n", _SUMMARY_LINES)
    text = "\n".join(lines[:_SUMMARY_LINES])
    cut = len(lines) > _SUMMARY_LINES or len(text) > SUMMARY_CHARS
    return text[:SUMMARY_CHARS] + (" …" if cut else "")
