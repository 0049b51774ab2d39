"""Reading JSON from outside without trusting its shape."""

from __future__ import annotations

from typing import Any, cast


def as_object(value: Any) -> dict[str, Any]:
    """The value itself, or an empty object when it is none."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """The items, or none when it is not an array."""
    return list(cast("list[Any] | tuple[Any, ...]", value)) if isinstance(value, (list, tuple)) else []
