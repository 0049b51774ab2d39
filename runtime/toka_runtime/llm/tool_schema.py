"""Does a tool's input fit its schema? The part of JSON Schema that tool definitions use; other keywords are ignored, so
this check can miss a misfit but never invents one."""

from __future__ import annotations

from typing import Any

from toka_runtime.llm.json_value import as_list, as_object

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def misfit(value: Any, schema: Any, where: str = "input") -> str | None:
    """What is wrong, as a sentence that names the place; None when the value fits."""
    rules = as_object(schema)
    declared = rules.get("type")
    names = as_list(declared) or [declared]
    if declared is not None and not any(_is_a(value, name) for name in names):
        return f"{where} must be {' or '.join(map(str, names))}, not {_type_name(value)}"
    options = as_list(rules.get("enum"))
    if options and value not in options:
        return f"{where} must be one of {', '.join(map(repr, options))}, not {value!r}"
    if isinstance(value, dict):
        return _object_misfit(as_object(value), rules, where)
    if "items" in rules:
        for index, item in enumerate(as_list(value)):
            if (problem := misfit(item, rules["items"], f"{where}[{index}]")) is not None:
                return problem
    return None


def _object_misfit(value: dict[str, Any], rules: dict[str, Any], where: str) -> str | None:
    properties = as_object(rules.get("properties"))
    for name in as_list(rules.get("required")):
        if name not in value:
            return f"{where} lacks {name!r}"
    for name, item in value.items():
        if name in properties:
            if (problem := misfit(item, properties[name], f"{where}.{name}")) is not None:
                return problem
        elif rules.get("additionalProperties") is False:
            return f"{where} has an unknown key {name!r}"
    return None


def _is_a(value: Any, name: Any) -> bool:
    if name not in _TYPES:
        return True
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[name])


def _type_name(value: Any) -> str:
    for name, types in _TYPES.items():
        if isinstance(value, types) and isinstance(value, bool) == (name == "boolean"):
            return name
    return type(value).__name__
