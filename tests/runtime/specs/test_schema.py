"""The published JSON schema: generated from the loader's own table, committed as generated, true of the real specs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from toka_runtime.specs.findings import Findings
from toka_runtime.specs.schema import agent_spec_schema, schema_text
from toka_runtime.specs.tree import plain
from toka_runtime.specs.yaml_reader import read_yaml


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = agent_spec_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def document(text: str) -> Any:
    node = read_yaml(text, Findings("x"))
    assert node is not None
    return plain(node)


def test_the_committed_schema_is_the_generated_one(repo_root: Path) -> None:
    committed = (repo_root / "configs/agent-spec.schema.json").read_text("utf-8")
    assert committed == schema_text(), "run: python -m toka_runtime.specs.schema > configs/agent-spec.schema.json"


@pytest.mark.parametrize("source", ["published", "own"])
def test_real_specs_are_valid(source: str, validator: Any, repo_root: Path, request: pytest.FixtureRequest) -> None:
    folder = repo_root / "configs/agents" if source == "own" else request.getfixturevalue("toka_specs")
    files = sorted(folder.glob("*.yaml"))
    assert len(files) == 9
    for file in files:
        assert [error.message for error in validator.iter_errors(document(file.read_text("utf-8")))] == [], file


@pytest.mark.parametrize(
    "text",
    [
        "tasks: {}",
        "metadata: {name: two words}",
        "metadata: {name: a}\nspec: {priority: urgent}",
        "metadata: {name: a}\ntasks: {default: [{priority: high}]}",
        "metadata: {name: a}\nsecurity: {sandbox: maybe}",
        "metadata: {name: a}\ngrants: {filesystem-write: []}",
        "metadata: {name: a}\nrestart: {max_restarts: 2}",
        "metadata: {name: a}\nbudget: {max_tokens: 0}",
        "metadata: {name: a}\ndependencies: {requierd: {}}",
    ],
)
def test_it_can_say_no(text: str, validator: Any) -> None:
    assert list(validator.iter_errors(document(text)))


def test_every_reference_leads_somewhere() -> None:
    schema = agent_spec_schema()
    text = schema_text()
    for name in {part.split('"')[0] for part in text.split("#/$defs/")[1:]}:
        assert name in schema["$defs"]
