"""The rehearsal against what it will meet: the published specs, their compiled rights, the real tools' schemas, and the
same reading of each call that the broker makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fakes.clock import FakeClock
from fakes.engines import collect
from fakes.model_requests import model_request
from toka_runtime.broker.definitions import TOOLS
from toka_runtime.broker.operations import prepare, tool_schemas
from toka_runtime.llm.base import GatewaySettings
from toka_runtime.llm.engine import Engine
from toka_runtime.llm.redact import Redactor
from toka_runtime.llm.rehearsal import RehearsalProvider
from toka_runtime.policy.catalogue import load_catalogue
from toka_runtime.policy.engine import decide
from toka_runtime.policy.rules import compile_rights
from toka_runtime.protocol.capability import Denial, Operation, OperationKind, Rights
from toka_runtime.protocol.spec import AgentSpec
from toka_runtime.specs.loader import load_paths

CATALOGUE = load_catalogue()


def denials(name: str, arguments: dict[str, Any], rights: Rights, root: str) -> list[Denial]:
    """As the broker decides; arguments that it would call invalid fail the test."""
    if name not in {tool["name"] for tool in tool_schemas(rights)}:
        operations = (Operation(kind=OperationKind.TOOL, target=name, tool=name),)
    else:
        operations = prepare(name, arguments, root).operations
    decisions = [decide(operation, rights, CATALOGUE.remedies) for operation in operations]
    return [decision for decision in decisions if isinstance(decision, Denial)]


async def play(spec: AgentSpec, rights: Rights, task: int, root: Path) -> tuple[list[str], list[Denial]]:
    settings = GatewaySettings(provider="rehearsal")
    engine = Engine(RehearsalProvider(FakeClock(), 0), settings, FakeClock(), Redactor({}), default_model="")
    listing = "\n".join(sorted(path.name + "/" * path.is_dir() for path in root.iterdir()))
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Go."}]
    names: list[str] = []
    denied: list[Denial] = []
    for turn in range(1, 20):
        request = model_request(
            agent=spec.name,
            task=task,
            turn=turn,
            description=spec.tasks[task].description,
            rights=rights,
            messages=messages,
            tools=tool_schemas(rights),
        )
        finished = (await collect(engine, request))[-1]
        assert finished.rejected_tools == ()
        results: list[dict[str, Any]] = []
        for block in finished.content:
            if block["type"] != "tool_use":
                continue
            names.append(block["name"])
            found = denials(block["name"], block["input"], rights, str(root))
            denied += found
            text = listing if block["name"] == "list_files" else "ok"
            results.append(
                {"type": "tool_result", "tool_use_id": block["id"], "content": text, "is_error": bool(found)}
            )
        if "finish" in names:
            return names, denied
        messages += [{"role": "assistant", "content": list(finished.content)}, {"role": "user", "content": results}]
    raise AssertionError("the rehearsal does not end")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text("# A project\n")
    (tmp_path / "src").mkdir()
    return tmp_path


async def test_every_published_spec(toka_specs: Path, workspace: Path) -> None:
    report = load_paths((toka_specs,))
    assert len(report.specs) == 9
    tried: set[str] = set()
    for spec in report.specs:
        rights = compile_rights(spec, CATALOGUE)
        for task in range(len(spec.tasks)):
            names, denied = await play(spec, rights, task, workspace)
            assert len(denied) == (task == 0), (spec.name, task, denied)
            assert len(names) >= 3, (spec.name, task, names)
        first = (await play(spec, rights, 0, workspace))[1][0]
        assert first.capability
        assert first.rule
        tried.add(first.operation.target)
    assert len(tried) > 1


async def test_an_agent_that_declares_nothing(toka_specs: Path, workspace: Path) -> None:
    spec = load_paths((toka_specs,)).specs[0]
    security = spec.security.model_copy(update={"capabilities_required": ()})
    bare = spec.model_copy(update={"security": security, "grants": ()})
    rights = compile_rights(bare, CATALOGUE)
    assert not rights.write
    names, denied = await play(bare, rights, 0, workspace)
    assert names[:2] == ["list_files", "read_file"]
    assert len(denied) == 1
    assert set(names) <= set(TOOLS)
