"""The fleet that ships: nine agents that load without a warning and show what specs can say."""

from __future__ import annotations

from pathlib import Path

import pytest

from toka_runtime.policy.catalogue import load_catalogue
from toka_runtime.policy.rules import compile_rights
from toka_runtime.protocol.spec import DependencyCondition, Priority, RestartPolicy, SandboxMode
from toka_runtime.specs.graph import build_graph
from toka_runtime.specs.loader import LoadReport, load_paths


@pytest.fixture(scope="module")
def report(repo_root: Path) -> LoadReport:
    return load_paths([repo_root / "configs/agents"])


def test_nine_agents_without_error_warning_or_repair(report: LoadReport) -> None:
    assert len(report.files) == 9
    assert [p for file in report.files for p in (*file.errors, *file.warnings, *file.repairs)] == []
    assert all(Path(file.path).stem == file.name for file in report.files)


def test_every_permission_means_something(report: LoadReport) -> None:
    catalogue = load_catalogue()
    for spec in report.specs:
        rights = compile_rights(spec, catalogue)
        assert rights.unknown == ()
        assert rights.refused == ()
        assert spec.security.sandbox is SandboxMode.REQUIRED
        limits = spec.security.limits
        assert None not in (limits.memory_bytes, limits.cpu_fraction, limits.timeout_s)
        assert spec.budget.max_tokens
        assert spec.budget.max_cost_usd


def test_the_graph_is_worth_looking_at(report: LoadReport) -> None:
    graph = build_graph(report.specs)
    assert graph.levels[0] == ("project-survey",)
    assert graph.order[-1] == "release-readiness"
    assert len(graph.levels) >= 4
    assert graph.critical.duration_s
    assert graph.critical.assumed == ()
    assert graph.notes == ()
    conditions = {edge.condition for edge in graph.edges}
    assert conditions == set(DependencyCondition)


def test_what_must_be_verified_has_something_that_verifies_it(report: LoadReport) -> None:
    specs = {spec.name: spec for spec in report.specs}
    for spec in report.specs:
        for dependency in spec.dependencies:
            if dependency.condition is DependencyCondition.VERIFIED:
                other = specs[dependency.agent]
                checks = [item.verify for item in (*other.tasks, *other.objectives) if item.verify]
                assert checks, f"{other.name} can never be verified"


def test_the_fleet_shows_what_specs_can_say(report: LoadReport) -> None:
    specs = report.specs
    assert {spec.priority for spec in specs} == set(Priority)
    assert any(spec.restart.policy is RestartPolicy.ON_FAILURE for spec in specs)
    assert any(task.condition for spec in specs for task in spec.tasks)
    assert any(spec.grants for spec in specs)
    assert len({spec.branch for spec in specs}) == 9
