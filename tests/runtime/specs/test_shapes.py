"""Every documented shape is read, and what was repaired on the way is said."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from toka_runtime.protocol.health import HealthPolicy, OnStuck
from toka_runtime.protocol.spec import (
    AgentSpec,
    DependencyCondition,
    Priority,
    ReportFrequency,
    RestartPolicy,
    SandboxMode,
)
from toka_runtime.specs.loader import LoadedFile, load_paths, load_text

HEAD = "metadata: {name: a}\n"
TASK = "tasks: {default: [{description: work}]}\n"


def load(body: str, head: str = HEAD + TASK) -> LoadedFile:
    file = load_text((head + body).encode()).files[0]
    assert file.ok, file.errors
    return file


def read(body: str, head: str = HEAD + TASK) -> AgentSpec:
    spec = load(body, head).spec
    assert spec is not None
    return spec


def repairs(body: str, head: str = HEAD + TASK) -> set[str]:
    return {problem.code for problem in load(body, head).repairs}


def test_the_least_that_is_a_spec() -> None:
    file = load("", HEAD + TASK)
    assert file.spec is not None
    assert file.spec.name == "a"
    assert file.spec.security.sandbox is SandboxMode.REQUIRED, "confined unless said otherwise"
    assert file.spec.priority is Priority.MEDIUM
    assert file.repairs == file.warnings == ()


def test_an_agent_without_tasks_is_good_and_warned_of() -> None:
    file = load("", HEAD)
    assert [problem.code for problem in file.warnings] == ["spec.no_tasks"]


@pytest.mark.parametrize(
    ("written", "repaired"),
    [('"2025-07-04"', False), ("2025-07-04", True), ("2025-07-06T03:24:55.376618+00:00", True)],
)
def test_dates_quoted_or_bare(written: str, repaired: bool) -> None:
    head = f"metadata: {{name: a, created: {written}}}\n" + TASK
    assert read("", head).created == written.strip('"')
    assert ("repair.bare_date" in repairs("", head)) is repaired


@pytest.mark.parametrize(
    ("shape", "pairs", "codes"),
    [
        ("{}", [], set[str]()),
        ("null", [], set[str]()),
        ("{b: why, c: }", [("b", "why"), ("c", "")], set[str]()),
        ("[b: why, c: because]", [("b", "why"), ("c", "because")], {"repair.list_of_maps"}),
        ("[b, c]", [("b", ""), ("c", "")], set[str]()),
        ("b", [("b", "")], {"repair.single_value"}),
        ("[{agent: b, reason: why}]", [("b", "why")], set[str]()),
        ("[{name: b, reason: why}, c]", [("b", "why"), ("c", "")], {"repair.alias"}),
        ("{b: {reason: why}}", [("b", "why")], set[str]()),
    ],
)
@pytest.mark.parametrize("group", ["required", "optional"])
def test_dependencies(group: str, shape: str, pairs: list[tuple[str, str]], codes: set[str]) -> None:
    others = [f"metadata: {{name: {name}}}\n{TASK}" for name in ("b", "c")]
    spec = read_in_fleet(f"dependencies: {{{group}: {shape}}}\n", others)
    assert [(d.agent, d.reason) for d in spec[0].dependencies] == pairs
    assert all(d.required is (group == "required") for d in spec[0].dependencies)
    assert {problem.code for problem in spec[1].repairs} >= codes


def read_in_fleet(body: str, others: list[str]) -> tuple[AgentSpec, LoadedFile]:
    with tempfile.TemporaryDirectory() as folder:
        texts = [HEAD + TASK + body, *others]
        for number, text in enumerate(texts):
            (Path(folder) / f"{number}.yaml").write_text(text)
        report = load_paths([Path(folder)])
    assert report.ok, report.errors
    return report.specs[0], report.files[0]


@pytest.mark.parametrize("condition", list(DependencyCondition))
def test_dependency_conditions(condition: DependencyCondition) -> None:
    body = f"dependencies: {{optional: {{b: {{reason: r, condition: {condition}}}}}}}\n"
    assert read(body).dependencies[0].condition is condition


def test_a_condition_written_as_a_reason_is_warned_of() -> None:
    file = load("dependencies: {optional: [{b: verified}]}\n")
    assert "spec.reason_or_condition" in {problem.code for problem in file.warnings}


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ("{m: words, n: more}", ["m", "n"]),
        ("[m: words, n: more]", ["m", "n"]),
        ("[m, n]", ["m", "n"]),
        ("[{name: m, description: words, type: gauge, unit: s}]", ["m"]),
        ("{m: {description: words, type: gauge, unit: s}}", ["m"]),
    ],
)
def test_metrics(shape: str, names: list[str]) -> None:
    metrics = read(f"reporting: {{metrics: {shape}}}\n").reporting.metrics
    assert [metric.name for metric in metrics] == names
    if "unit" in shape:
        assert (metrics[0].description, metrics[0].type, metrics[0].unit) == ("words", "gauge", "s")


@pytest.mark.parametrize("value", [*ReportFrequency, "continuous", "Real_Time"])
def test_frequencies(value: str) -> None:
    found = read(f"reporting: {{frequency: {value}}}\n").reporting.frequency
    assert found is (ReportFrequency(value) if value in list(ReportFrequency) else ReportFrequency.REAL_TIME)


@pytest.mark.parametrize(
    ("written", "mode"),
    [
        ("true", SandboxMode.REQUIRED),
        ("yes", SandboxMode.REQUIRED),
        ("required", SandboxMode.REQUIRED),
        ("best-effort", SandboxMode.BEST_EFFORT),
        ("none", SandboxMode.NONE),
        ("false", SandboxMode.NONE),
        ('"off"', SandboxMode.NONE),
    ],
)
def test_sandbox(written: str, mode: SandboxMode) -> None:
    assert read(f"security: {{sandbox: {written}}}\n").security.sandbox is mode


def test_all_limits() -> None:
    limits = read(
        "security: {strict: true, resource_limits: {max_memory: 512MB, max_cpu: '0.5', timeout: '1800', "
        "max_disk_usage: 1GB, max_network_bandwidth: 100Mbps, max_processes: 20}}\n"
    ).security.limits
    assert limits.memory_bytes == 512_000_000
    assert limits.cpu_fraction == 0.5
    assert limits.timeout_s == 1800
    assert limits.disk_bytes == 10**9
    assert limits.network_bytes_per_s == 12_500_000
    assert limits.processes == 20


def test_tasks_with_their_later_fields() -> None:
    spec = read(
        """\
tasks:
  default:
    - description: one
      priority: low
      estimated_duration: 4h
      tools_required: [x]
      dependencies: [the other thing]
      timeout: 10m
      inputs: ["src/**"]
    - {description: two, estimated_time: 1d}
    - three
  conditional:
    enterprise:
      - {description: four, priority: high}
    empty: []
""",
        HEAD,
    )
    one, two, three, four = spec.tasks
    assert (one.priority, one.estimated_duration_s, one.timeout_s) == (Priority.LOW, 14400, 600)
    assert (one.tools_required, one.dependencies, one.inputs) == (("x",), ("the other thing",), ("src/**",))
    assert two.estimated_duration_s == 86400
    assert three.description == "three"
    assert (four.condition, four.priority) == ("enterprise", Priority.HIGH)
    assert spec.enabled_tasks(frozenset()) == (one, two, three)
    assert spec.enabled_tasks(frozenset({"enterprise"})) == (one, two, three, four)


@pytest.mark.parametrize(
    ("written", "argv", "timeout"),
    [
        ("pytest -q | tail", ("sh", "-c", "pytest -q | tail"), 600),
        ("[pytest, -q]", ("pytest", "-q"), 600),
        ("{command: make, timeout: 2m}", ("sh", "-c", "make"), 120),
        ("{command: [make, test]}", ("make", "test"), 600),
    ],
)
def test_verify_on_tasks_and_objectives(written: str, argv: tuple[str, ...], timeout: float) -> None:
    item = f"[{{description: d, verify: {written}}}]"
    spec = read(f"tasks: {{default: {item}}}\nobjectives: {item}\n", HEAD)
    for verify in (spec.tasks[0].verify, spec.objectives[0].verify):
        assert verify is not None
        assert (verify.argv, verify.timeout_s) == (argv, timeout)


def test_our_own_additions() -> None:
    spec = read(
        """\
inputs: [docs]
model: claude-sonnet-4-5
budget: {max_tokens: "100,000", max_cost_usd: $2.50}
restart: {policy: on-failure, max_restarts: 0, backoff: 500ms}
grants:
  filesystem-write: ["docs/**", "*.md", "docs/**"]
  network-access: api.github.com:443
"""
    )
    assert (spec.inputs, spec.model) == (("docs",), "claude-sonnet-4-5")
    assert (spec.budget.max_tokens, spec.budget.max_cost_usd) == (100_000, 2.5)
    assert (spec.restart.policy, spec.restart.max_restarts, spec.restart.backoff_s) == (
        RestartPolicy.ON_FAILURE,
        0,
        0.5,
    )
    assert [(grant.capability, grant.scopes) for grant in spec.grants] == [
        ("filesystem-write", ("docs/**", "*.md")),
        ("network-access", ("api.github.com:443",)),
    ]


def test_restart_in_one_word() -> None:
    assert read("restart: on-failure\n").restart.policy is RestartPolicy.ON_FAILURE


def test_what_is_watched_and_when_it_stays_down() -> None:
    spec = read(
        "health: {stall_after: 90s, repeats: 3, on_stuck: pause}\n"
        "restart: {policy: on-failure, max_backoff: 5s, crash_limit: 2, crash_window: 1h}\n"
    )
    assert spec.health == HealthPolicy(stall_after_s=90.0, repeats=3, on_stuck=OnStuck.PAUSE)
    restart = spec.restart
    assert (restart.max_backoff_s, restart.crash_limit, restart.crash_window_s) == (5.0, 2, 3600.0)
    assert read("restart: never\n").health == HealthPolicy()


@pytest.mark.parametrize(
    ("written", "sections"),
    [
        ("{focus: [a, b], other: c}", [("focus", ("a", "b")), ("other", ("c",))]),
        ("[a, b]", [("", ("a", "b"))]),
        ("just this", [("", ("just this",))]),
        ("{risks: [{risk: R, mitigation: M, impact: low}]}", [("risks", ("R (mitigation: M; impact: low)",))]),
        ("{phases: {one: x, two: [y, z]}}", [("phases", ("one: x", "two: y, z"))]),
        ("{empty: []}", []),
        ("null", []),
    ],
)
@pytest.mark.parametrize("key", ["behavioral_directives", "risk_mitigation", "success_criteria"])
def test_prose(key: str, written: str, sections: list[tuple[str, tuple[str, ...]]]) -> None:
    spec = read(f"{key}: {written}\n")
    field = {"behavioral_directives": "directives", "risk_mitigation": "risks"}.get(key, key)
    assert [(section.title, section.lines) for section in getattr(spec, field)] == sections


def test_other_sections_and_keys_are_kept() -> None:
    file = load("github_integration: {hooks: [push, 1, 2.5, null, true, .nan]}\nsecurity: {audit_level: full}\n")
    assert file.spec is not None
    assert file.spec.extensions == {
        "github_integration": {"hooks": ["push", 1, 2.5, None, True, ".nan"]},
        "security.audit_level": "full",
    }
    assert [problem.code for problem in file.warnings] == ["spec.unknown_key"], "of the nested one only"
    assert AgentSpec.model_validate_json(file.spec.model_dump_json()) == file.spec


@pytest.mark.parametrize(
    ("body", "attribute", "value"),
    [
        ("Security: {Resource-Limits: {Max Memory: 1GB}}", "security.limits.memory_bytes", 10**9),
        ("security: {capabilities_required: git-access}", "security.capabilities_required", ("git-access",)),
        ("security: {capabilities_required: [a, b, a]}", "security.capabilities_required", ("a", "b")),
        ("capabilities: {primary: [1, two, true]}", "skills_primary", ("1", "two", "true")),
        ("spec: {name: No, domain: on, priority: HIGH}", "domain", "on"),
        ("spec: {priority: HIGH}", "priority", Priority.HIGH),
        ("spec:\n  description: >\n    folded\n    text\n", "description", "folded text"),
    ],
)
def test_other_spellings(body: str, attribute: str, value: Any) -> None:
    found: Any = read(body + "\n")
    for part in attribute.split("."):
        found = getattr(found, part)
    assert found == value


def test_identity_at_the_top_of_the_file() -> None:
    spec = read("", "name: flat\nversion: 1.0\nbranch: b/flat\npriority: low\ndomain: d\n" + TASK)
    assert (spec.name, spec.version, spec.branch, spec.priority, spec.domain) == ("flat", "1.0", "b/flat", "low", "d")


def test_merge_keys_and_aliases() -> None:
    spec = read("shared: &s {max_memory: 1GB, timeout: 1h}\nsecurity: {resource_limits: {<<: *s, timeout: 2h}}\n")
    assert (spec.security.limits.memory_bytes, spec.security.limits.timeout_s) == (10**9, 7200)
