"""`toka-runtime validate`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from toka_runtime.cli.main import main
from toka_runtime.cli.validate import print_problems
from toka_runtime.specs.loader import load_paths

GOOD = "metadata: {name: good}\ntasks: {default: [{description: work}]}\n"
KEYS = {"file", "line", "column", "code", "message", "hint"}


@pytest.fixture
def files(tmp_path: Path):
    def write(**texts: str) -> Path:
        for name, text in texts.items():
            (tmp_path / f"{name}.yaml").write_text(text)
        return tmp_path

    return write


def validate(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    code = main(["validate", *map(str, arguments)])
    captured = capsys.readouterr()
    assert captured.err == ""
    return code, captured.out


def validate_json(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, list[dict[str, Any]]]:
    code, out = validate(capsys, "--json", *arguments)
    answer = json.loads(out)
    assert set(answer) == {"specs"}
    for row in answer["specs"]:
        assert set(row) == {"file", "name", "ok", "errors", "warnings", "repairs"}
        for problem in (*row["errors"], *row["warnings"], *row["repairs"]):
            assert set(problem) == KEYS
    return code, answer["specs"]


def test_the_published_specs(capsys: pytest.CaptureFixture[str], toka_specs: Path) -> None:
    code, rows = validate_json(capsys, toka_specs)
    assert code == 0
    assert len(rows) == 9
    assert all(row["ok"] and not row["errors"] for row in rows)
    assert {row["file"] for row in rows} == {str(file) for file in toka_specs.glob("*.yaml")}


def test_the_fleet_that_ships_has_no_warning(capsys: pytest.CaptureFixture[str], repo_root: Path) -> None:
    code, rows = validate_json(capsys, "--strict", repo_root / "configs/agents")
    assert code == 0
    assert [row["warnings"] for row in rows] == [[]] * 9


def test_every_broken_file_is_reported_at_once(capsys: pytest.CaptureFixture[str], files) -> None:
    folder = files(a="metadata: [", b=GOOD, c="metadata: {name: c}\nspec: {priority: urgent}\n")
    code, rows = validate_json(capsys, folder, folder / "absent.yaml")
    assert code == 1
    assert [(Path(row["file"]).name, row["name"], row["ok"]) for row in rows] == [
        ("a.yaml", "a", False),
        ("b.yaml", "good", True),
        ("c.yaml", "c", False),
        ("absent.yaml", "absent", False),
    ]
    assert rows[2]["errors"] == [
        {
            "file": str(folder / "c.yaml"),
            "line": 2,
            "column": 18,
            "code": "spec.bad_value",
            "message": "spec.priority cannot be “urgent”",
            "hint": "one of critical, high, medium, low",
        }
    ]
    assert rows[3]["errors"][0]["code"] == "spec.missing_file"


def test_text_for_people(capsys: pytest.CaptureFixture[str], files) -> None:
    folder = files(
        a=GOOD.replace("good", "a") + "spec: {priority: hihg}\n", b=GOOD + "restart: never\nspec: {name: 7}\n"
    )
    code, out = validate(capsys, folder)
    assert code == 1
    assert out.splitlines() == [
        f"✗ {folder}/a.yaml  a",
        f"    {folder}/a.yaml:3:18  spec.bad_value  spec.priority cannot be “hihg”  (did you mean “high”?)",
        f"✓ {folder}/b.yaml  good",
        "1 good, 1 not good, 1 repair (-v shows them)",
    ]
    _, out = validate(capsys, "-v", folder)
    assert f"    {folder}/b.yaml:4:14  repair.text  spec.name: a number read as the text “7”" in out.splitlines()


def test_a_permission_that_is_unknown(capsys: pytest.CaptureFixture[str], files) -> None:
    folder = files(a=GOOD + "security:\n  capabilities_required:\n    - filesystem-raed\n    - mind-reading\n")
    code, rows = validate_json(capsys, folder)
    assert code == 0
    assert [(p["line"], p["column"], p["code"]) for p in rows[0]["warnings"]] == [
        (5, 7, "policy.unknown_capability"),
        (6, 7, "policy.unknown_capability"),
    ]
    assert "filesystem-read" in rows[0]["warnings"][0]["hint"]
    code, rows = validate_json(capsys, "--strict", folder)
    assert code == 1
    assert not rows[0]["ok"]
    assert len(rows[0]["errors"]) == 2


def test_a_scope_that_grants_nothing_is_warned_of(capsys: pytest.CaptureFixture[str], files) -> None:
    folder = files(a=GOOD + "grants:\n  filesystem-write: ['../elsewhere']\n")
    code, rows = validate_json(capsys, folder)
    assert code == 0
    assert [(p["line"], p["column"], p["code"]) for p in rows[0]["warnings"]] == [(4, 3, "policy.refused_grant")]


def test_a_fleet_file_gives_a_row_an_agent(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text("".join(f'[[agents]]\nname = "{n}"\n[[agents.tasks.default]]\ndescription = "d"\n' for n in "ab"))
    code, rows = validate_json(capsys, file)
    assert code == 0
    assert [(row["file"], row["name"]) for row in rows] == [(str(file), "a"), (str(file), "b")]


def test_names_of_files_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a\x1b[31m\nb.yaml").write_text("x")
    _, out = validate(capsys, tmp_path)
    assert "\x1b" not in out
    assert "\\x1b[31m\\nb.yaml" in out


def test_problems_for_other_verbs_go_where_they_want(files) -> None:
    stream = io.StringIO()
    print_problems(load_paths([files(a="metadata: {}\n", b=GOOD)]), stream)
    assert stream.getvalue().count("\n") == 1
    assert "a.yaml:1:11  spec.missing_key" in stream.getvalue()
