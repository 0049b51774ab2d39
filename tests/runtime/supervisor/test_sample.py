"""The sample workspace: the same everywhere, made once, and good enough to work on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from fakes.repositories import git
from fakes.specs import agent_spec
from toka_runtime.errors import WorkspaceError
from toka_runtime.protocol.ids import RunId
from toka_runtime.supervisor.sample import create_sample_workspace
from toka_runtime.supervisor.workspace import Workspaces


def test_the_same_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".gitconfig").write_text("[user]\n\tname = Somebody\n[commit]\n\tgpgSign = true\n")
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    for name in ("one", "deeper/two"):
        create_sample_workspace(tmp_path / name)
    heads = {git(tmp_path / name, "rev-parse", "HEAD") for name in ("one", "deeper/two")}
    assert heads == {"b40e17e23f58a846634784988352db861fa08909"}
    assert git(tmp_path / "one", "status", "--porcelain") == ""
    assert git(tmp_path / "one", "log", "--format=%an <%ae>").splitlines() == ["Sam Sample <sam@sample.invalid>"] * 3
    assert not list(tmp_path.glob(".one-*"))


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    sample = tmp_path / "sample"
    create_sample_workspace(sample)
    (sample / "README.md").write_text("mine")
    create_sample_workspace(sample)
    assert (sample / "README.md").read_text() == "mine"
    own = tmp_path / "own"
    own.mkdir()
    (own / "file").write_text("")
    create_sample_workspace(own)
    assert [path.name for path in own.iterdir()] == ["file"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "sample").mkdir()
    create_sample_workspace(tmp_path / "sample")
    assert (tmp_path / "sample/Makefile").exists()


def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    create_sample_workspace(tmp_path / "sample")
    assert not (tmp_path / "sample/.git").exists()
    assert (tmp_path / "sample/src/tally/report.py").exists()


def test_its_own_tests_pass_and_its_report_prints(tmp_path: Path) -> None:
    create_sample_workspace(tmp_path / "sample")
    for target, words in (("test", "OK"), ("report", "order: tea (3 left)")):
        done = subprocess.run(["make", target], cwd=tmp_path / "sample", capture_output=True, text=True, check=True)
        assert words in done.stdout + done.stderr


def test_there_is_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    sample = tmp_path / "sample"
    create_sample_workspace(sample)
    broken = [
        (page.name, link)
        for page in sample.rglob("*.md")
        for link in re.findall(r"\]\(([^)#]+)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert broken == [("usage.md", "configuration.md")]


def test_where_nothing_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(WorkspaceError, match="could not be made"):
            create_sample_workspace(path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


async def test_agents_get_worktrees_of_it(tmp_path: Path) -> None:
    create_sample_workspace(tmp_path / "sample")
    prepared = await Workspaces(tmp_path / "sample", tmp_path / "state").prepare(agent_spec(), RunId("r1"))
    assert prepared.mode == "worktree"
    assert (prepared.path / "docs/usage.md").exists()
