"""What only shows across files: names twice, unknown dependencies, cycles, one branch for two."""

from __future__ import annotations

from pathlib import Path

import pytest

from toka_runtime.specs.loader import LoadReport, load_paths


@pytest.fixture
def fleet(tmp_path: Path):
    def load(**bodies: str) -> LoadReport:
        for name, body in bodies.items():
            head = "" if "metadata:" in body else f"metadata: {{name: {name}}}\n"
            (tmp_path / f"{name}.yaml").write_text(f"{head}tasks: {{default: [{{description: work}}]}}\n{body}\n")
        return load_paths([tmp_path])

    return load


def found(report: LoadReport, code: str) -> dict[str, list[tuple[int, int, str, str]]]:
    return {
        file.name: problems
        for file in report.files
        if (
            problems := [
                (p.line, p.column, p.message, p.hint) for p in (*file.errors, *file.warnings) if p.code == code
            ]
        )
    }


def requires(*names: str) -> str:
    return "dependencies:\n  required:\n" + "".join(f"    {name}: why\n" for name in names)


def test_a_cycle_is_shown_as_a_path_in_each_file_on_it(fleet) -> None:
    report = fleet(a=requires("b"), b=requires("c"), c=requires("a"), d=requires("a"))
    cycles = found(report, "spec.cycle")
    assert {name: problems[0][:3] for name, problems in cycles.items()} == {
        "a": (5, 5, "dependency cycle: a → b → c → a"),
        "b": (5, 5, "dependency cycle: b → c → a → b"),
        "c": (5, 5, "dependency cycle: c → a → b → c"),
    }
    assert [spec.name for spec in report.specs] == ["d"], "it only waits for the cycle"


def test_an_agent_that_requires_itself(fleet) -> None:
    assert found(fleet(a=requires("a")), "spec.cycle")["a"][0][2] == "dependency cycle: a → a"


def test_two_cycles_that_share_an_agent_are_both_shown(fleet) -> None:
    report = fleet(a=requires("b", "c"), b=requires("a"), c=requires("a"))
    paths = {name: problems[0][2] for name, problems in found(report, "spec.cycle").items()}
    assert paths["b"].endswith("b → a → b")
    assert paths["c"].endswith("c → a → c")


def test_a_cycle_with_an_optional_dependency_in_it_is_none(fleet) -> None:
    assert fleet(a=requires("b"), b="dependencies: {optional: {a: nice}}").ok


def test_unknown_dependencies(fleet) -> None:
    report = fleet(builder="", a=requires("bulider"), b=requires("nobody"), c="dependencies: {optional: [nobody]}")
    assert found(report, "spec.unknown_dependency") == {
        "a": [(5, 5, "requires the unknown agent “bulider”", "did you mean “builder”?")],
        "b": [(5, 5, "requires the unknown agent “nobody”", "load the file of that agent as well")],
    }
    assert found(report, "spec.optional_absent") == {
        "c": [(3, 27, "the optional agent “nobody” is absent", "it is not waited for")]
    }
    assert [spec.name for spec in report.specs] == ["builder", "c"]


def test_a_dependency_on_an_agent_whose_file_is_bad_is_not_unknown(fleet) -> None:
    report = fleet(base="spec: {priority: never}", a=requires("base"))
    assert [(file.name, file.ok) for file in report.files] == [("a", True), ("base", False)]


def test_two_files_of_one_name(fleet) -> None:
    report = fleet(a="", b="metadata:\n  name: a\n")
    assert {file.path.rpartition("/")[2]: len(file.errors) for file in report.files} == {"a.yaml": 1, "b.yaml": 1}
    first, second = (file.errors[0] for file in report.files)
    assert first.code == second.code == "spec.duplicate_name"
    assert "b.yaml:3" in first.message
    assert "a.yaml:1" in second.message
    assert (second.line, second.column) == (3, 9)


def test_a_branch_for_two_is_warned_of(fleet) -> None:
    report = fleet(a="metadata: {name: a, branch: shared}", b="metadata: {name: b, branch: shared}", c="")
    assert report.ok
    assert set(found(report, "spec.shared_branch")) == {"a", "b"}


def test_one_agent_named_twice_as_a_dependency_counts_once(fleet) -> None:
    report = fleet(a="dependencies: {required: {b: x}, optional: {b: y}}", b="")
    assert report.ok
    assert [(d.agent, d.required) for d in report.specs[0].dependencies] == [("b", True)]
    assert "spec.duplicate_dependency" in {p.code for p in report.files[0].warnings}


def test_a_task_that_depends_on_another_agent_makes_its_agent_wait(fleet) -> None:
    tasks = "tasks:\n  default:\n    - {description: merge, dependencies: [b, prose]}\n"
    tasks += "  conditional:\n    more:\n      - {description: extra, dependencies: [c]}\n"
    report = fleet(b="", c="", z="")
    assert report.ok
    folder = Path(report.files[0].path).parent
    (folder / "a.yaml").write_text("metadata: {name: a}\n" + tasks)
    spec = load_paths([folder]).specs[0]
    assert [(d.agent, d.required) for d in spec.dependencies] == [("b", True), ("c", False)]
    assert "merge" in spec.dependencies[0].reason
