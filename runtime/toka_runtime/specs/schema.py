"""The JSON schema of the file format, made from the same table of keys that the loader reads by.

For editors and other tools. It describes the documented shapes; the loader also repairs some that are not in it, and
checks what a schema cannot say (names across files, cycles, units). `python -m toka_runtime.specs.schema` prints it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable

from toka_runtime.specs import fields
from toka_runtime.specs.fields import Schema, ref, text, texts

SCHEMA_ID = "urn:toka-console:agent-spec"


def agent_spec_schema() -> Schema:
    """JSON schema (draft 2020-12) of a one-agent file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "Agent spec",
        "description": "One agent: who it is, what it works on, what it may do and use. "
        "Sections that are not listed are kept and shown.",
        **_section(fields.ROOT, required=("metadata",)),
        "$defs": {
            "metadata": _section(fields.METADATA, required=("name",)),
            "spec": _section(fields.SPEC),
            "capabilities": _section(fields.CAPABILITIES),
            "objective": _section(fields.OBJECTIVE, required=("description",)),
            "tasks": _section(fields.TASKS),
            "task": _section(fields.TASK, required=("description",)),
            "dependencies": _section(fields.DEPENDENCIES, closed=True),
            "dependencyList": _dependency_list(),
            "dependency": _section(fields.DEPENDENCY, closed=True),
            "reporting": _section(fields.REPORTING),
            "metrics": _metrics(),
            "metric": _section(fields.METRIC),
            "security": _section(fields.SECURITY),
            "limits": _section(fields.LIMITS),
            "grants": {
                "type": "object",
                "description": "Capability → what it is limited to: paths, host:port, commands, names of variables.",
                "additionalProperties": {"anyOf": [{"type": "string"}, texts("Scopes.") | {"minItems": 1}]},
                "examples": [{"filesystem-write": ["docs/**"], "network-access": ["api.github.com:443"]}],
            },
            "verify": {
                "description": "A command that the runtime runs when the agent has finished; exit code 0 is the proof.",
                "anyOf": [
                    text("Run by sh -c.", minLength=1),
                    texts("A program and its arguments.") | {"minItems": 1},
                    _section(fields.VERIFY, required=("command",), closed=True),
                ],
            },
            "budget": _section(fields.BUDGET, closed=True),
            "restart": {
                "anyOf": [
                    fields.RESTART["policy"].schema,
                    _section(fields.RESTART, required=("policy",), closed=True),
                ],
            },
            "health": _section(fields.HEALTH, closed=True),
            "prose": {
                "description": "Prose for the agent's prompt: titled lists, one list, or one text.",
                "type": ["object", "array", "string", "null"],
            },
        },
    }


def schema_text() -> str:
    """The schema as it is committed: indented JSON with a newline at its end."""
    return json.dumps(agent_spec_schema(), indent=2, ensure_ascii=False) + "\n"


def _section(known: fields.Fields, *, required: Iterable[str] = (), closed: bool = False) -> Schema:
    properties: Schema = {}
    for key, entry in known.items():
        properties[key] = entry.schema
        for alias in entry.aliases:
            properties[alias] = {"description": f"Another name of {key}.", **_without_description(entry.schema)}
    section: Schema = {"type": "object", "properties": properties}
    if names := list(required):
        section["required"] = names
    return section | {"additionalProperties": False} if closed else section


def _without_description(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key != "description"}


def _dependency_list() -> Schema:
    value: Schema = {"anyOf": [text("Why, for people."), ref("dependency"), {"type": "null"}]}
    by_name: Schema = {"type": "object", "additionalProperties": value}
    return {
        "description": "Agent → reason, or → {reason, condition}; also as a list of such mappings or of names.",
        "anyOf": [
            by_name,
            {"type": "array", "items": {"anyOf": [{"type": "string"}, ref("dependency"), by_name]}},
            {"type": "null"},
        ],
    }


def _metrics() -> Schema:
    by_name: Schema = {"type": "object", "additionalProperties": {"anyOf": [{"type": "string"}, ref("metric")]}}
    return {
        "description": "Metric → description; also as a list of such mappings, of names, or of {name, description …}.",
        "anyOf": [
            by_name,
            {"type": "array", "items": {"anyOf": [{"type": "string"}, ref("metric"), by_name]}},
            {"type": "null"},
        ],
    }


if __name__ == "__main__":
    sys.stdout.write(schema_text())
