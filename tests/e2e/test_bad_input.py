"""Bad input: a clear error with its code, the documented exit code, nothing started, nothing lost."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from e2e.fleet import RUNTIME, Ran, environment, make_repository, run_json

GOOD = "metadata: {name: good}\nspec: {name: Good, domain: test}\ntasks: {default: [{description: look around}]}\n"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path


def run(*arguments: str | Path, home: Path, **variables: str) -> Ran:
    return run_json(*arguments, "--provider", "rehearsal", home=home, **variables)


def test_one_bad_spec_starts_nothing_and_every_problem_is_told(good: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("metadata:\n  name: bad\n  nmae: x\nspec: [\n")
    ran = run(good, bad, "--workspace", make_repository(tmp_path / "p"), home=tmp_path)
    assert ran.code == 2
    assert ran.envelopes == []
    assert f"{bad}:" in ran.stderr
    assert "nothing was started" in ran.stderr


def test_missing_workspace(good: Path, tmp_path: Path) -> None:
    ran = run(good, "--workspace", tmp_path / "absent", home=tmp_path)
    assert ran.code == 3
    assert "workspace.error" in ran.stderr
    assert str(tmp_path / "absent") in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_workspace_without_write_permission(good: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    ran = run(good, "--workspace", folder, home=tmp_path)
    assert ran.code == 3
    assert str(folder) in ran.stderr


def test_unknown_provider_and_missing_credential(good: Path, tmp_path: Path) -> None:
    workspace = make_repository(tmp_path / "p")
    ran = run_json(good, "--workspace", workspace, "--provider", "oracle", home=tmp_path)
    assert ran.code == 2
    assert "anthropic, rehearsal or replay:FILE" in ran.stderr
    ran = run_json(good, "--workspace", workspace, "--provider", "anthropic", home=tmp_path)
    assert ran.code == 3
    assert "model.credential_missing" in ran.stderr


def test_no_git_binary_is_told(good: Path, tmp_path: Path) -> None:
    workspace = make_repository(tmp_path / "p")
    ran = run(good, "--workspace", workspace, home=tmp_path, PATH=str(tmp_path))
    assert ran.code == 3
    assert "git" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_wrong_usage_is_two(tmp_path: Path) -> None:
    done = subprocess.run(
        [*RUNTIME, "run", "--max-agents", "0"], capture_output=True, env=environment(tmp_path), check=False
    )
    assert done.returncode == 2
    done = subprocess.run([*RUNTIME, "walk"], capture_output=True, env=environment(tmp_path), check=False)
    assert done.returncode == 2
