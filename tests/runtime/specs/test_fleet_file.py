"""The TOML form: fleet settings and many agents in one file."""

from __future__ import annotations

from pathlib import Path

import pytest

from toka_runtime.protocol.spec import Priority, SandboxMode
from toka_runtime.specs.loader import LoadReport, load_paths, load_text

FLEET = """\
# Settings for all
[orchestration]
max_concurrent_agents = 8
agent_spawn_timeout = 30
workstream_timeout = 3600
agent_pool_size = 10

[security]
sandbox_enabled = true
capability_validation = "strict"

[security.resource_limits]
max_memory = "512MB"
max_cpu = "0.5"

[storage]
backend = "sqlite"
limits = [1, 2.5, 1979-05-27]

[llm]
provider = "anthropic"
model = "some-model"
rate_limit = 50

[[agents]]
name = "monitor"
version = "1.0.0"
created = 2025-07-04
domain = "operations"
priority = "critical"
workstream = "infra"
branch = "agents/monitor"

[agents.capabilities]
primary = ["monitoring", "tracking"]

[[agents.objectives]]
description = "Watch"
deliverable = "A report"

[[agents.tasks.default]]
description = "Look"
priority = "high"
dependencies = []

[agents.ownership]
exclusive = true

[[agents]]
name = "improver"

[agents.security]
capabilities_required = ["filesystem-write"]
resource_limits = { timeout = "10m" }

[[agents.tasks.default]]
description = "Improve"
dependencies = ["monitor"]

[[agents.tasks.default]]
description = \"\"\"
More
of it\"\"\"
"""


def load(text: str) -> LoadReport:
    return load_text(text.encode(), "fleet.toml")


def test_settings_and_agents() -> None:
    report = load(FLEET)
    assert report.ok, report.errors
    assert [(file.name, file.path, file.file) for file in report.files] == [
        ("monitor", "fleet.toml", "fleet.toml#monitor"),
        ("improver", "fleet.toml", "fleet.toml#improver"),
    ]
    fleet = report.fleet
    assert fleet is not None
    assert fleet.max_concurrent_agents == 8
    assert fleet.agent_spawn_timeout_s == 30
    assert fleet.workstream_timeout_s == 3600
    assert (fleet.provider, fleet.model) == ("anthropic", "some-model")
    assert fleet.extensions["storage"] == {"backend": "sqlite", "limits": [1, 2.5, "1979-05-27"]}
    assert fleet.extensions["orchestration.agent_pool_size"] == 10
    assert fleet.extensions["llm.rate_limit"] == 50
    monitor, improver = report.specs
    assert (monitor.domain, monitor.priority, monitor.branch) == ("operations", Priority.CRITICAL, "agents/monitor")
    assert monitor.created == "2025-07-04"
    assert monitor.skills_primary == ("monitoring", "tracking")
    assert monitor.objectives[0].deliverable == "A report"
    assert monitor.extensions == {"ownership": {"exclusive": True}}
    assert monitor.security.capabilities_required == ("filesystem-read",), "it may read its workspace, no more"
    assert monitor.security.limits.memory_bytes == 512_000_000
    assert monitor.security.limits.timeout_s == 3600
    assert improver.security.capabilities_required == ("filesystem-write",)
    assert improver.security.limits.timeout_s == 600
    assert improver.security.limits.cpu_fraction == 0.5, "what it does not say comes from the file"
    assert [(d.agent, d.required) for d in improver.dependencies] == [("monitor", True)]
    assert improver.tasks[1].description == "More\nof it"


def test_no_sandbox_where_the_file_says_so() -> None:
    report = load(
        '[security]\nsandbox_enabled = false\n[[agents]]\nname = "a"\n[[agents.tasks.default]]\ndescription="d"\n'
    )
    assert report.specs[0].security.sandbox is SandboxMode.NONE


def test_one_agent_in_toml() -> None:
    report = load('[metadata]\nname = "solo"\n[[tasks.default]]\ndescription = "work"\n')
    assert report.ok
    assert report.fleet is None
    assert report.files[0].file == "fleet.toml"


@pytest.mark.parametrize(
    ("text", "at", "code"),
    [
        ("a = \n", (1, 5), "spec.toml_syntax"),
        ('[x]\ny = "1\n', (2, 7), "spec.toml_syntax"),
        ("a = 1\na = 2\n", (2, 6), "spec.toml_syntax"),
        ("title = 'x'\n", (0, 0), "spec.no_agents"),
        ("agents = 3\n", (1, 10), "spec.no_agents"),
        ("agents = []\n", (1, 10), "spec.no_agents"),
        ("x = " + "[" * 5000, (0, 0), "spec.too_deep"),
        ("x = " + "9" * 5000, (0, 0), "spec.toml_syntax"),
        ("a." * 100 + "a = 1\n", (1, 1), "spec.too_deep"),
        ('x = "\\u001b"\n[[agents]]\nname = "a"\n', (1, 5), "spec.control_character"),
    ],
)
def test_text_that_is_no_fleet(text: str, at: tuple[int, int], code: str) -> None:
    problem = load(text).files[0].errors[0]
    assert ((problem.line, problem.column), problem.code) == (at, code)


def test_problems_of_one_agent_stay_with_it_and_have_their_place() -> None:
    text = FLEET.replace('priority = "critical"', 'priority = "urgent"') + '\n[[agents]]\nname = "third one"\n'
    report = load(text)
    assert [(file.name, file.ok) for file in report.files] == [
        ("monitor", False),
        ("improver", True),
        ("fleet-3", False),
    ]
    line = text.splitlines().index('priority = "urgent"') + 1
    problem = report.files[0].errors[0]
    assert (problem.file, problem.line, problem.column) == ("fleet.toml", line, 12)
    assert report.files[2].errors[0].code == "spec.bad_name"


def test_a_setting_that_cannot_be_read_stops_every_agent_of_the_file() -> None:
    for bad in (
        FLEET.replace('"512MB"', '"plenty"'),
        FLEET.replace("[security.resource_limits]", "[security.resource_limit]"),
    ):
        report = load(bad)
        assert not any(file.ok for file in report.files), "no agent runs without the limit that was meant"
        assert report.fleet is None
        assert report.files[0].errors[0].line > 0
        assert {problem.code for problem in report.files[1].errors} == {"spec.fleet_settings"}


def test_a_dependency_in_a_fleet_file_names_an_agent() -> None:
    problem = load(FLEET.replace('["monitor"]', '["montor"]')).files[1].errors[0]
    assert problem.code == "spec.unknown_dependency"
    assert problem.hint == "did you mean “monitor”?"
    assert problem.line == FLEET.splitlines().index('dependencies = ["monitor"]') + 1


def test_a_second_fleet_file_brings_agents_but_no_settings(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(FLEET)
    (tmp_path / "b.toml").write_text(
        "[orchestration]\nmax_concurrent_agents = 1\n"
        '[[agents]]\nname = "z"\n[[agents.tasks.default]]\ndescription = "d"\n'
    )
    report = load_paths([tmp_path])
    assert report.ok
    assert report.fleet is not None
    assert report.fleet.max_concurrent_agents == 8
    assert [problem.code for problem in report.files[2].warnings] == ["spec.second_fleet"]
