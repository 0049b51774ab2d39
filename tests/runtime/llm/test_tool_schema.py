"""The subset of JSON Schema that tool inputs are checked against."""

from __future__ import annotations

from typing import Any

import pytest

from toka_runtime.llm.tool_schema import misfit

SCHEMA = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "limit": {"type": "integer"},
        "mode": {"enum": ["a", "b"]},
        "args": {"type": "array", "items": {"type": "string"}},
        "deep": {"type": "object", "properties": {"n": {"type": ["number", "null"]}}, "required": ["n"]},
    },
    "required": ["path"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "value",
    [
        {"path": "x"},
        {"path": "x", "limit": 3, "mode": "b", "args": ["1"], "deep": {"n": None}},
        {"path": "x", "limit": 3.0, "deep": {"n": 1.5}},
    ],
)
def test_fits(value: Any) -> None:
    assert misfit(value, SCHEMA) is None


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({}, "'path'"),
        ([], "input must be object, not array"),
        ({"path": 1}, "input.path must be string, not integer"),
        ({"path": "x", "limit": True}, "input.limit must be integer, not boolean"),
        ({"path": "x", "limit": 1.5}, "input.limit"),
        ({"path": "x", "mode": "c"}, "input.mode must be one of 'a', 'b'"),
        ({"path": "x", "args": ["1", 2]}, "input.args[1] must be string"),
        ({"path": "x", "deep": {}}, "input.deep lacks 'n'"),
        ({"path": "x", "deep": {"n": "1"}}, "number or null, not string"),
        ({"path": "x", "surplus": 1}, "unknown key 'surplus'"),
    ],
)
def test_misfits_name_the_place(value: Any, named: str) -> None:
    assert named in (misfit(value, SCHEMA) or "")


@pytest.mark.parametrize(
    "schema", [None, True, {}, {"type": "future"}, {"properties": []}, {"required": "path"}, {"enum": 3}]
)
def test_a_schema_it_does_not_understand_is_no_misfit(schema: Any) -> None:
    assert misfit({"path": "x"}, schema) is None
