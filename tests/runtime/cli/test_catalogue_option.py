"""`--catalogue`: an operator's own capabilities, wherever specs are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toka_runtime.cli.main import main

SPEC = (
    "metadata: {name: baker}\nspec: {name: Baker, domain: bread}\ntasks: {default: [{description: bake}]}\n"
    "security: {sandbox: true, capabilities_required: [bake-access]}\n"
)
CATALOGUE = (
    "schema = 1\n[capability.bake-access]\ntext = 'bake bread'\n[[capability.bake-access.execute]]\nargv = ['bake']\n"
)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "baker.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(CATALOGUE)
    return path


def test_its_names_are_known(spec: Path, catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--strict", str(spec)]) == 1
    assert "“bake-access” is unknown" in capsys.readouterr().out
    assert main(["validate", "--strict", "--catalogue", str(catalogue), str(spec)]) == 0
    capsys.readouterr()
    assert main(["plan", "--format", "json", "--catalogue", str(catalogue), str(spec)]) == 0
    (agent,) = json.loads(capsys.readouterr().out)["agents"]
    assert agent["rights"]["unknown"] == []
    assert any("bake" in line for line in agent["rights"]["text"])


def test_the_one_in_the_configuration_folder_is_read_by_itself(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "toka").mkdir()
    (tmp_path / "toka/capabilities.toml").write_text(CATALOGUE)
    assert main(["validate", "--strict", str(spec)]) == 0


@pytest.mark.parametrize("verb", ["validate", "plan", "run"])
def test_a_bad_one_is_told_with_its_place_before_anything_starts(
    verb: str, spec: Path, catalogue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue.write_text(CATALOGUE + "wat = 1\n")
    workspace, state = tmp_path / "workspace", tmp_path / "state"
    workspace.mkdir()
    more = (
        ["--provider", "rehearsal", "--workspace", str(workspace), "--state-dir", str(state)] if verb == "run" else []
    )
    assert main([verb, "--catalogue", str(catalogue), str(spec), *more]) == 2
    said = capsys.readouterr()
    assert f"error [policy.invalid]: {catalogue}:6:1" in said.err
    assert "unknown key 'wat'" in said.err
    assert not (state / "events.db").exists()


def test_a_run_grants_by_it_but_not_from_where_agents_may_write(
    spec: Path, catalogue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    words = ["run", "--json", "--provider", "rehearsal", "--rehearsal-delay", "0", "--workspace", str(workspace)]
    words += ["--state-dir", str(tmp_path / "state"), str(spec), "--catalogue"]
    main([*words, str(catalogue)])
    loaded = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    (rights,) = (event["rights"] for event in loaded if event["kind"] == "spec.loaded")
    assert ["bake"] in [rule["argv_prefix"] for rule in rights["execute"]]
    inside = workspace / "own.toml"
    inside.write_text(CATALOGUE)
    assert main([*words, str(inside)]) == 2
    assert "where agents may write" in capsys.readouterr().err
