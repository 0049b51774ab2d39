"""Fits what a rehearsal wants to say into the schema that a tool declares: a script needs no knowledge of it."""

from __future__ import annotations

import shlex
from typing import Any

from toka_runtime.llm.json_value import as_list, as_object

_ALIASES = {
    "path": ("path", "file_path", "file", "filename", "directory", "folder"),
    "pattern": ("pattern", "regex", "query"),
    "content": ("content", "contents", "text"),
    "command": ("command", "cmd", "argv"),
    "url": ("url",),
    "limit": ("limit",),
    "status": ("status", "outcome", "result"),
    "summary": ("summary", "message", "description"),
    "evidence": ("evidence", "proof"),
}
_DONE = ("done", "completed", "complete", "success", "succeeded", "finished", "ok")


def fill_schema(schema: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    """An input with the wanted values under the names that the schema has for them, and with something valid for every
    other required property. Without a schema: the wanted values as they are, lists as one command line."""
    rules = as_object(schema)
    properties = as_object(rules.get("properties"))
    if not properties:
        return {
            name: shlex.join(as_list(value)) if isinstance(value, list) else value for name, value in wanted.items()
        }
    result: dict[str, Any] = {}
    for meaning, value in wanted.items():
        name = next((name for name in _ALIASES.get(meaning, (meaning,)) if name in properties), None)
        if name is not None and name not in result:
            result[name] = _as_type(value, as_object(properties[name]), is_command=meaning == "command")
    for name in as_list(rules.get("required")):
        if name not in result:
            result[name] = _example(as_object(properties.get(name)))
    return result


def _as_type(value: Any, rules: dict[str, Any], *, is_command: bool) -> Any:
    options = as_list(rules.get("enum"))
    if options and value not in options:
        return next((word for word in _DONE if word in options), options[0])
    kind = rules.get("type")
    if isinstance(value, list):
        items = [str(item) for item in as_list(value)]
        if kind == "array":
            inner = as_object(rules.get("items"))
            if inner.get("type") == "object":
                return [fill_schema(inner, {"summary": item, "path": item, "content": item}) for item in items]
            return items
        return shlex.join(items) if is_command else "\n".join(items)
    return [value] if kind == "array" else value


def _example(rules: dict[str, Any]) -> Any:
    if "default" in rules:
        return rules["default"]
    if options := as_list(rules.get("enum")):
        return options[0]
    kind = next(iter(as_list(rules.get("type"))), rules.get("type"))
    match kind:
        case "integer" | "number":
            return rules.get("minimum", 1)
        case "boolean":
            return False
        case "array":
            return []
        case "object":
            return {}
        case "null":
            return None
        case _:
            return "rehearsal"
