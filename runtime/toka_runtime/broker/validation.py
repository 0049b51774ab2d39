"""Checking a tool's arguments against its schema, with answers that a model can act on.

Exactly the part of JSON Schema that `definitions` uses; a keyword that is not known here is a defect and raises.
"""

from __future__ import annotations

import difflib
from typing import Any, TypeGuard, cast

_KNOWN = frozenset(
    ("type", "description", "default", "minLength", "maxLength", "minimum", "maximum", "enum", "items", "maxItems")
)
_KINDS = {
    "str": "text",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "an object",
}
_NAMES = {"string": "text", "integer": "a whole number", "boolean": "true or false", "array": "a list"}


class InvalidArguments(ValueError):
    """What is wrong, in a sentence for the model."""


def check_arguments(schema: dict[str, Any], arguments: object) -> dict[str, Any]:
    """The arguments with defaults filled in. Raises InvalidArguments."""
    if not isinstance(arguments, dict):
        raise InvalidArguments(f"the arguments have to be an object, not {_kind(arguments)}")
    given = cast(dict[object, object], arguments)
    properties: dict[str, Any] = schema["properties"]
    for key in given:
        if key not in properties:
            near = difflib.get_close_matches(str(key), properties, 1, 0.5)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            known = ", ".join(properties)
            raise InvalidArguments(f"there is no argument {str(key)[:100]!r}{meant} (known: {known})")
    for key in schema["required"]:
        if key not in given:
            raise InvalidArguments(f"the argument {key!r} is missing")
    checked: dict[str, Any] = {}
    for key, rule in properties.items():
        if key in given:
            checked[key] = _check(key, rule, given[key])
        elif "default" in rule:
            checked[key] = rule["default"]
    return checked


def _check(name: str, rule: dict[str, Any], value: object) -> Any:
    if unknown := rule.keys() - _KNOWN:
        raise NotImplementedError(f"schema keyword {sorted(unknown)[0]}")
    kind: str = rule["type"]
    if kind == "string" and isinstance(value, str):
        return _check_text(name, rule, value)
    if kind == "integer" and _is_whole(value):
        return _check_whole(name, rule, int(value))
    if kind == "boolean" and isinstance(value, bool):
        return value
    if kind == "array" and isinstance(value, list):
        items = cast(list[object], value)
        if len(items) > rule["maxItems"]:
            raise InvalidArguments(f"{name} has {len(items)} entries; at most {rule['maxItems']} are allowed")
        return [_check(f"{name}[{index}]", rule["items"], item) for index, item in enumerate(items)]
    raise InvalidArguments(f"{name} has to be {_NAMES[kind]}, not {_kind(value)}")


def _is_whole(value: object) -> TypeGuard[int | float]:
    """JSON has one kind of number: 3.0 is whole."""
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def _check_text(name: str, rule: dict[str, Any], value: str) -> str:
    if "enum" in rule and value not in rule["enum"]:
        raise InvalidArguments(f"{name} has to be one of {', '.join(rule['enum'])}")
    if len(value) < rule.get("minLength", 0):
        raise InvalidArguments(f"{name} is empty")
    if len(value) > rule.get("maxLength", len(value)):
        raise InvalidArguments(f"{name} has {len(value):,} characters; at most {rule['maxLength']:,} are allowed")
    if "\0" in value:
        raise InvalidArguments(f"{name} holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidArguments(f"{name} holds half of a surrogate pair, which is no text") from None
    return value


def _check_whole(name: str, rule: dict[str, Any], value: int) -> int:
    if not rule["minimum"] <= value <= rule["maximum"]:
        raise InvalidArguments(f"{name} has to lie between {rule['minimum']:,} and {rule['maximum']:,}")
    return value


def _kind(value: object) -> str:
    return "null" if value is None else _KINDS.get(type(value).__name__, type(value).__name__)
