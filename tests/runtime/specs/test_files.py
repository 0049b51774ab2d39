"""From paths to files: folders, links, things that are no files, the same file twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from toka_runtime.specs.loader import load_paths


def write(path: Path, name: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"metadata: {{name: {name}}}\ntasks: {{default: [{{description: work}}]}}\n")
    return path


def codes(*paths: Path) -> list[str]:
    return [problem.code for file in load_paths(paths).files for problem in file.errors]


def test_a_folder_gives_its_specs_in_order_and_nothing_else(tmp_path: Path) -> None:
    for name in ("c.yaml", "a.yml", "b.YAML"):
        write(tmp_path / name, name[0])
    write(tmp_path / ".hidden.yaml", "hidden")
    write(tmp_path / "deeper" / "d.yaml", "d")
    (tmp_path / "notes.txt").write_text("no spec")
    (tmp_path / "folder.yaml").mkdir()
    report = load_paths([tmp_path])
    assert report.ok
    assert [file.name for file in report.files] == ["a", "b", "c"]


def test_a_bad_file_hides_no_good_one(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "a")
    (tmp_path / "b.yaml").write_text("metadata: [")
    write(tmp_path / "c.yaml", "c")
    report = load_paths([tmp_path])
    assert [(file.name, file.ok) for file in report.files] == [("a", True), ("b", False), ("c", True)]
    assert [spec.name for spec in report.specs] == ["a", "c"]


def test_a_file_is_loaded_once_however_often_it_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "a")
    (tmp_path / "link.yaml").symlink_to(file)
    report = load_paths([file, tmp_path, tmp_path / "." / "a.yaml"])
    assert report.ok
    assert len(report.files) == 1


def test_any_suffix_is_read_when_the_file_is_named(tmp_path: Path) -> None:
    assert load_paths([write(tmp_path / "agent.spec", "a")]).ok


def test_what_cannot_be_read_is_a_row_with_a_reason(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "broken.yaml").symlink_to(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    assert codes(tmp_path / "absent.yaml") == ["spec.missing_file"]
    assert codes(tmp_path / "pipe.yaml") == ["spec.unreadable"], "and it does not wait for a writer"
    assert codes(tmp_path / "broken.yaml") == ["spec.missing_file"]
    assert codes(Path("/dev/zero")) == ["spec.unreadable"]
    assert codes(tmp_path / "empty") == ["spec.no_specs"]
    assert codes(tmp_path / ("n" * 300)) == ["spec.unreadable"]
    assert codes(Path("a\0b")) == ["spec.unreadable"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_files_and_folders_without_permission(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "a")
    file.chmod(0)
    folder = tmp_path / "closed"
    folder.mkdir(mode=0)
    report = load_paths([file, folder])
    assert [problem.message for file in report.files for problem in file.errors] == [
        "cannot be read: Permission denied",
        "cannot be read: Permission denied",
    ]


def test_a_folder_of_folders_says_where_to_look(tmp_path: Path) -> None:
    write(tmp_path / "agents" / "a.yaml", "a")
    problem = load_paths([tmp_path]).files[0].errors[0]
    assert problem.code == "spec.no_specs"
    assert "agents/" in problem.hint


def test_a_name_that_is_not_utf8_is_shown_and_loads(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.yaml"
    Path(os.fsdecode(name)).write_text("metadata: {name: a}\ntasks: {default: [{description: work}]}\n")
    report = load_paths([tmp_path])
    assert report.ok
    assert report.files[0].path.endswith("caf\\xe9.yaml")
    assert report.specs[0].model_dump_json()


def test_no_paths_no_files() -> None:
    assert load_paths([]).files == ()
    assert load_paths([]).ok
