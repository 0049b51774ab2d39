"""Whatever bytes come in: errors or a spec come out, each error with a code and a printable message. Never a crash."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from toka_runtime.protocol.spec import AgentSpec
from toka_runtime.specs import fields
from toka_runtime.specs.loader import LoadReport, load_text

Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
SECTIONS = {
    "metadata": fields.METADATA,
    "spec": fields.SPEC,
    "capabilities": fields.CAPABILITIES,
    "tasks": fields.TASKS,
    "dependencies": fields.DEPENDENCIES,
    "reporting": fields.REPORTING,
    "security": fields.SECURITY,
    "budget": fields.BUDGET,
    "restart": fields.RESTART,
}
keys = st.sampled_from(
    sorted(
        {*fields.ROOT, *(key for known in SECTIONS.values() for key in known), *fields.LIMITS, *fields.TASK, "agents"}
    )
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["512MB", "75%", "2h", "high", "daily", "on-failure", "verified", "a", "b", "1e400", "0x10"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys | st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def section(known: fields.Fields) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from(sorted(known)), values, max_size=5) | values


documents = st.fixed_dictionaries(
    {"metadata": st.just({"name": "a"}) | section(fields.METADATA)},
    optional={name: section(known) for name, known in SECTIONS.items() if name != "metadata"},
) | st.dictionaries(keys, values, max_size=6)


def check(report: LoadReport) -> None:
    assert report.files, "never silently nothing"
    for file in report.files:
        assert (file.spec is not None) is file.ok
        for problem in (*file.errors, *file.warnings, *file.repairs):
            assert problem.code
            assert problem.message.isprintable()
            assert problem.hint.isprintable()
            assert (problem.line > 0) is (problem.column > 0)
        json.dumps([problem.model_dump() for problem in file.errors])
        if file.spec is not None:
            assert AgentSpec.model_validate_json(file.spec.model_dump_json()) == file.spec


@given(st.binary(max_size=200), st.sampled_from(["x.yaml", "x.toml"]))
@example(b"\xef\xbb\xbf", "x.yaml")
@example(b"a: !!binary x", "x.yaml")
@example(b"%TAG ! tag:x,2000:\n--- !y\n", "x.yaml")
@example(b"&a [*a]", "x.yaml")
@example(b"<<: [1]", "x.yaml")
@example(b"agents = [1]", "x.toml")
@example(b"[[agents]]\nname = {}", "x.toml")
def test_any_bytes(data: bytes, name: str) -> None:
    check(load_text(data, name))


@given(st.text(alphabet="ab:-[]{}&*!|>'\"#%@`?,<=~\n\t 01.", max_size=60), st.sampled_from(["x.yaml", "x.toml"]))
def test_any_text_of_the_characters_that_matter(text: str, name: str) -> None:
    check(load_text(text.encode(), name))


@given(documents)
def test_any_document(document: dict[str, Any]) -> None:
    check(load_text(yaml.dump(document, Dumper=Dumper, allow_unicode=True).encode()))


@settings(max_examples=40)
@given(st.lists(documents, min_size=1, max_size=3), documents)
def test_any_fleet_file(agents: list[dict[str, Any]], settings_: dict[str, Any]) -> None:
    check(load_text(toml({**settings_, "agents": agents}).encode(), "x.toml"))


def toml(value: Any, top: bool = True) -> str:
    """A TOML writer for the test: one line a key, everything below inline."""
    match value:
        case dict():
            pairs = [f"{json.dumps(key)} = {toml(item, top=False)}" for key, item in value.items()]
            return "\n".join(pairs) if top else "{" + ", ".join(pairs) + "}"
        case list():
            return "[" + ", ".join(toml(item, top=False) for item in value) + "]"
        case None:
            return '""'
        case bool():
            return str(value).lower()
        case float():
            return str(value) if value - value == 0 else '"inf"'
        case _:
            return json.dumps(value)
