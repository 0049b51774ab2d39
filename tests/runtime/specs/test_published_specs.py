"""The nine published specs load unchanged, and mean what they say."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from toka_runtime.protocol.spec import AgentSpec, Priority, ReportFrequency, SandboxMode
from toka_runtime.specs.loader import LoadReport, load_paths


@pytest.fixture(scope="module")
def report(toka_specs: Path) -> LoadReport:
    return load_paths([toka_specs])


def spec(report: LoadReport, name: str) -> AgentSpec:
    return next(spec for spec in report.specs if spec.name == name)


def test_all_nine_are_good_without_a_warning(report: LoadReport) -> None:
    assert len(report.files) == 9
    assert report.ok
    assert [problem for file in report.files for problem in (*file.errors, *file.warnings)] == []
    assert report.fleet is None


def test_one_of_them_in_full(report: LoadReport, toka_specs: Path) -> None:
    storage = spec(report, "storage-advancement")
    assert storage.version == "v0.3.0"
    assert storage.created == "2025-07-04"
    assert storage.branch == "feature/storage-enhancements"
    assert storage.title == "Storage Layer Advancement Agent"
    assert storage.priority is Priority.MEDIUM
    assert storage.skills_secondary[0] == "backend-abstraction"
    assert len(storage.objectives) == 4
    assert storage.objectives[0].validation.startswith("WAL works consistently")
    assert len(storage.tasks) == 9
    assert [(d.agent, d.required) for d in storage.dependencies] == [
        ("build-system-stabilization", True),
        ("kernel-events-enhancement", False),
    ]
    assert storage.dependencies[0].reason == "Stable build system required for storage layer modifications"
    assert storage.reporting.frequency is ReportFrequency.DAILY
    assert [metric.name for metric in storage.reporting.metrics][:2] == [
        "wal-performance",
        "schema-validation-coverage",
    ]
    assert storage.security.sandbox is SandboxMode.REQUIRED
    assert storage.security.capabilities_required[-1] == "cargo-test-execution"
    assert storage.security.limits.memory_bytes == 1_000_000_000
    assert storage.security.limits.cpu_fraction == 0.75
    assert storage.security.limits.timeout_s == 3 * 3600
    assert [section.title for section in storage.directives] == ["operational_focus", "error_handling", "coordination"]
    risk = storage.risks[0].lines[0]
    assert risk.startswith("Data corruption during WAL implementation or migration (mitigation: Comprehensive backup")
    assert [section.title for section in storage.success_criteria] == ["phase_1", "phase_2", "final_validation"]
    backends = storage.extensions["storage_enhancements"]["wal_implementation"]
    assert backends[0]["features"] == ["transaction_log", "crash_recovery", "checkpoint_optimization"]
    file = toka_specs / "storage-advancement.yaml"
    assert storage.file == str(file)
    assert storage.digest == hashlib.sha256(file.read_bytes()).hexdigest()


def test_no_section_of_any_file_is_lost(report: LoadReport) -> None:
    extensions = {spec.name: sorted(spec.extensions) for spec in report.specs}
    assert extensions["github-cicd-issues-resolution"] == ["specific_fixes", "tools_and_integrations"]
    assert extensions["build-system-stabilization"] == []
    assert extensions["llm-credentials-setup"] == [
        "integration_configuration",
        "llm_provider_options",
        "orchestration_integration",
    ]


def test_what_was_repaired_is_said(report: LoadReport) -> None:
    repaired = {file.name: file.repairs for file in report.files}["document-organization"]
    assert {problem.code for problem in repaired} == {"repair.list_of_maps"}
    assert ["dependencies.required" in problem.message for problem in repaired].count(True) == 1
    assert all(problem.line and problem.column for problem in repaired)


def test_they_load_in_well_under_their_budget(toka_specs: Path) -> None:
    load_paths([toka_specs])
    best = min(_timed(toka_specs) for _ in range(5))
    assert best < 0.15, f"nine files took {best * 1000:.0f} ms"


def _timed(folder: Path) -> float:
    start = time.process_time()  # the processor's time: the machine may be busy with other things
    load_paths([folder])
    return time.process_time() - start
