"""Worktrees: each agent on its own branch, the operator's things as they were."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from fakes.repositories import commit_files, git, make_repository, operator_state
from fakes.specs import agent_spec
from toka_runtime.errors import WorkspaceError
from toka_runtime.protocol.ids import RunId
from toka_runtime.protocol.spec import AgentSpec
from toka_runtime.supervisor.workspace import AgentWorkspace, Workspaces

RUN = RunId("r1")
SPEC = agent_spec()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "r")


@pytest.fixture
def workspaces(repository: Path, tmp_path: Path) -> Workspaces:
    return Workspaces(repository, tmp_path / "state")


async def test_a_worktree_from_head_on_the_agents_branch(repository: Path, workspaces: Workspaces) -> None:
    spec = agent_spec(branch="feature/pages")
    prepared = await workspaces.prepare(spec, RUN)
    assert (prepared.mode, prepared.branch) == ("worktree", "feature/pages")
    assert prepared.base_commit == git(repository, "rev-parse", "HEAD")
    assert (prepared.path / "src/app.py").read_text() == "print('hello')\n"
    assert git(prepared.path, "status", "--porcelain=v2", "--branch").splitlines()[1] == "# branch.head feature/pages"
    assert git(prepared.path, "status", "--porcelain") == ""
    assert prepared.notes == ()


async def test_a_commit_at_the_end_of_a_task(repository: Path, workspaces: Workspaces) -> None:
    prepared = await workspaces.prepare(SPEC, RUN)
    assert await workspaces.commit(SPEC, 0, "Nothing yet") is None
    (prepared.path / "src/app.py").write_text("print('hello')\nprint('world')\n")
    (prepared.path / "new.bin").write_bytes(b"\0\1")
    (prepared.path / "README.md").unlink()
    (prepared.path / "noise.log").write_text("ignored")
    done = await workspaces.commit(SPEC, 1, "Wrote a page\n\nwith two lines\x1b[31m")
    assert done is not None
    assert (done.task, done.files, done.insertions, done.deletions) == (1, 3, 1, 1)
    assert done.commit == git(repository, "rev-parse", "agent/scribe")
    shown = git(repository, "show", "--no-patch", "--format=%an <%ae>|%cn|%B", done.commit)
    assert shown.startswith("Scribe Agent <scribe@agents.toka.invalid>|Toka runtime|Task 2: Wrote a page with two")
    assert shown.endswith("Agent: scribe\nTask: 2\nRun: r1")
    assert "\x1b" not in shown
    assert git(repository, "ls-tree", "-r", "--name-only", done.commit).split() == [
        ".gitignore", "new.bin", "src/app.py",
    ]  # fmt: skip
    assert git(prepared.path, "status", "--porcelain") == "", "the agent's own git sees a clean worktree"
    assert await workspaces.commit(SPEC, 2, "Again") is None


async def test_nothing_of_the_operators_is_touched(repository: Path, workspaces: Workspaces) -> None:
    commit_files(repository, {"stashed": "1"})
    (repository / "stashed").write_text("2")
    git(repository, "stash", "--quiet")
    (repository / "README.md").write_text("changed, staged")
    git(repository, "add", "README.md")
    (repository / "README.md").write_text("changed again, not staged")
    (repository / "untracked").write_text("mine")
    (repository / "ignored.log").write_text("mine too")
    git(repository, "config", "alias.mine", "status")
    before = operator_state(repository)

    prepared = await workspaces.prepare(SPEC, RUN)
    assert (prepared.path / "README.md").read_text() == "# Sample\n"
    (prepared.path / "README.md").write_text("the agent's")
    await workspaces.commit(SPEC, 0, "Change")
    await workspaces.diff(SPEC.name)
    await workspaces.prepare(SPEC, RunId("r2"))
    assert operator_state(repository) == before
    await workspaces.release(SPEC.name, remove=True)
    assert operator_state(repository) == before
    assert git(repository, "branch", "--list").split() == ["agent/scribe", "*", "main"]
    assert git(repository, "worktree", "list").count("\n") == 0


async def test_nine_agents_at_once(repository: Path, workspaces: Workspaces) -> None:
    specs = [agent_spec(f"agent-{number}") for number in range(9)]

    async def work(spec: AgentSpec) -> AgentWorkspace:
        prepared = await workspaces.prepare(spec, RUN)
        (prepared.path / f"{spec.name}.txt").write_text(spec.name)
        assert await workspaces.commit(spec, 0, "Mine") is not None
        return prepared

    prepared = await asyncio.gather(*(work(spec) for spec in specs))
    assert len({workspace.path for workspace in prepared}) == 9
    for spec in specs:
        changed = git(repository, "diff", "--name-only", "main", spec.git_branch)
        assert changed == f"{spec.name}.txt"


async def test_two_agents_on_one_branch(workspaces: Workspaces) -> None:
    one, other = agent_spec("one", branch="same"), agent_spec("other", branch="same")
    await workspaces.prepare(one, RUN)
    with pytest.raises(WorkspaceError, match="agents one and other both have the branch same"):
        await workspaces.prepare(other, RUN)
    await workspaces.release(one.name)
    with pytest.raises(WorkspaceError, match="same of agent other is checked out at"):
        await workspaces.prepare(other, RUN)
    await workspaces.release(one.name, remove=True)
    await workspaces.prepare(other, RUN)


@pytest.mark.parametrize("branch", ["../up", "a..b", "-x", "HEAD", "a b", "x.lock", "a\nb", "@{-1}", "a//b"])
async def test_branch_names(workspaces: Workspaces, repository: Path, branch: str) -> None:
    with pytest.raises(WorkspaceError, match="no valid branch name"):
        await workspaces.prepare(agent_spec(branch=branch), RUN)
    assert git(repository, "branch", "--list") == "* main"


async def test_a_branch_that_the_operator_has_checked_out(repository: Path, workspaces: Workspaces) -> None:
    with pytest.raises(WorkspaceError, match="main of agent scribe is checked out at") as caught:
        await workspaces.prepare(agent_spec(branch="main"), RUN)
    assert str(repository) in caught.value.message
    assert "metadata.branch" in caught.value.hint


async def test_a_branch_in_the_way_of_a_folder_of_branches(repository: Path, workspaces: Workspaces) -> None:
    git(repository, "branch", "feature")
    with pytest.raises(WorkspaceError, match="no worktree on branch feature/x could be made"):
        await workspaces.prepare(agent_spec(branch="feature/x"), RUN)


async def test_an_existing_branch_is_continued(repository: Path, workspaces: Workspaces) -> None:
    base = git(repository, "rev-parse", "HEAD")
    git(repository, "switch", "--quiet", "--create", "topic")
    commit_files(repository, {"earlier": "1\n"})
    git(repository, "switch", "--quiet", "main")
    commit_files(repository, {"meanwhile": "1\n"})
    spec = agent_spec(branch="topic")
    prepared = await workspaces.prepare(spec, RUN)
    assert (prepared.path / "earlier").exists()
    assert not (prepared.path / "meanwhile").exists()
    assert prepared.base_commit == base
    assert prepared.notes == ("branch topic is continued; it is 1 commit behind HEAD",)
    text, truncated = await workspaces.diff(spec.name)
    assert "+++ b/earlier" in text
    assert not truncated


async def test_a_workspace_below_the_top_of_its_repository(repository: Path, tmp_path: Path) -> None:
    workspaces = Workspaces(repository / "src", tmp_path / "state")
    prepared = await workspaces.prepare(SPEC, RUN)
    assert [path.name for path in prepared.path.iterdir()] == ["app.py"]
    (prepared.path / "more.py").write_text("")
    await workspaces.commit(SPEC, 0, "More")
    assert git(repository, "diff", "--name-only", "main", "agent/scribe") == "src/more.py"


async def test_git_as_the_agent_runs_it(repository: Path, workspaces: Workspaces) -> None:
    prepared = await workspaces.prepare(SPEC, RUN)
    (prepared.path / "own.txt").write_text("1")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=prepared.path, env=prepared.environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    run("add", "--all")
    run("commit", "--quiet", "--message", "By the agent")
    assert run("log", "-1", "--format=%an <%ae> %s").startswith("Scribe Agent <scribe@agents.toka.invalid> By the")
    done = await workspaces.commit(SPEC, 0, "Nothing more")
    assert done is not None, "commits of the agent's own making count"
    assert done.commit == run("rev-parse", "HEAD").strip()
    assert done.files == 1
    (prepared.path / "noise.log").write_text("kept in spite of .gitignore")
    run("add", "--force", "noise.log")
    run("commit", "--quiet", "--message", "Forced")
    (prepared.path / "own.txt").write_text("2")
    assert await workspaces.commit(SPEC, 1, "More") is not None
    assert git(repository, "show", "agent/scribe:noise.log") == "kept in spite of .gitignore"
    assert git(repository, "show", "agent/scribe:own.txt") == "2"
    assert all(path.is_dir() for path in prepared.git_paths)


async def test_the_environment_holds_nothing_of_the_operators(
    workspaces: Workspaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    prepared = await workspaces.prepare(agent_spec(title="Ev<il>\nName\x07 "), RUN)
    assert "sk-secret" not in "".join(prepared.environment.values())
    assert prepared.environment["GIT_AUTHOR_NAME"] == "Evil Name\ufffd"
    assert Path(prepared.environment["HOME"]).is_dir()
    assert Path(prepared.environment["TMPDIR"]).is_dir()
    assert not Path(prepared.environment["HOME"]).is_relative_to(prepared.path)


async def test_diff_shows_what_is_committed_and_what_is_not(repository: Path, workspaces: Workspaces) -> None:
    prepared = await workspaces.prepare(SPEC, RUN)
    (prepared.path / "one").write_text("1\n")
    await workspaces.commit(SPEC, 0, "One")
    (prepared.path / "two").write_text("2\n")
    (prepared.path / "README.md").rename(prepared.path / "READ.md")
    objects = git(repository, "count-objects")
    text, truncated = await workspaces.diff(SPEC.name)
    assert not truncated
    assert "+++ b/one\n@@ -0,0 +1 @@\n+1\n" in text
    assert "+++ b/two\n" in text
    assert "rename from README.md\nrename to READ.md\n" in text
    assert git(repository, "count-objects") == objects, "looking leaves no objects in the operator's repository"
    cut, truncated = await workspaces.diff(SPEC.name, max_bytes=60)
    assert truncated
    assert text.startswith(cut)
    assert cut.endswith("\n")


async def test_no_workspace_no_diff(workspaces: Workspaces) -> None:
    with pytest.raises(WorkspaceError, match="agent scribe has no worktree"):
        await workspaces.diff(SPEC.name)
    with pytest.raises(WorkspaceError, match="agent scribe has no worktree"):
        await workspaces.commit(SPEC, 0, "x")


async def test_what_is_not_committed_is_not_removed(workspaces: Workspaces) -> None:
    prepared = await workspaces.prepare(SPEC, RUN)
    (prepared.path / "precious").write_text("1")
    with pytest.raises(WorkspaceError, match="holds work that is in no commit"):
        await workspaces.release(SPEC.name, remove=True)
    assert (prepared.path / "precious").exists()


async def test_operator_settings_that_shape_files_are_kept(repository: Path, workspaces: Workspaces) -> None:
    git(repository, "config", "core.fileMode", "false")
    (repository / ".git/info/exclude").write_text("private/\n")
    prepared = await workspaces.prepare(SPEC, RUN)
    (prepared.path / "src/app.py").chmod(0o755)
    (prepared.path / "private").mkdir()
    (prepared.path / "private/x").write_text("")
    assert await workspaces.commit(SPEC, 0, "Rights only") is None


async def test_the_operators_personal_ignore_file(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[core]\n\texcludesFile = ~/ignore\n")
    (home / "ignore").write_text(".idea/\n")
    monkeypatch.setenv("HOME", str(home))
    workspaces = Workspaces(repository, tmp_path / "state")
    prepared = await workspaces.prepare(SPEC, RUN)
    (prepared.path / ".idea").mkdir()
    (prepared.path / ".idea/x").write_text("")
    assert await workspaces.commit(SPEC, 0, "Editor files") is None


async def test_sha256_repository(tmp_path: Path) -> None:
    repository = tmp_path / "r"
    repository.mkdir()
    git(repository, "init", "--quiet", "--object-format=sha256", "--initial-branch=main")
    commit_files(repository, {"a": "1"})
    workspaces = Workspaces(repository, tmp_path / "state")
    prepared = await workspaces.prepare(SPEC, RUN)
    (prepared.path / "b").write_text("2")
    done = await workspaces.commit(SPEC, 0, "B")
    assert done is not None
    assert len(done.commit) == 64


async def test_sparse_checkout_of_the_operator(repository: Path, tmp_path: Path) -> None:
    commit_files(repository, {"docs/a": "1", "lib/b": "2"})
    git(repository, "sparse-checkout", "set", "docs")
    assert not (repository / "lib").exists()
    workspaces = Workspaces(repository, tmp_path / "state")
    prepared = await workspaces.prepare(SPEC, RUN)
    assert (prepared.path / "lib/b").exists()
    assert await workspaces.commit(SPEC, 0, "Nothing") is None
    assert git(prepared.path, "status", "--porcelain") == ""
    assert not (repository / "lib").exists()


async def test_shallow_clone(repository: Path, tmp_path: Path) -> None:
    commit_files(repository, {"a": "1"})
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{repository}", "shallow")
    workspaces = Workspaces(tmp_path / "shallow", tmp_path / "state")
    prepared = await workspaces.prepare(SPEC, RUN)
    (prepared.path / "b").write_text("2\n")
    assert await workspaces.commit(SPEC, 0, "B") is not None
    assert "+++ b/b" in (await workspaces.diff(SPEC.name))[0]


async def test_names_that_git_and_shells_find_hard(repository: Path, tmp_path: Path) -> None:
    odd = tmp_path / 'st:ate "x"\n'
    workspaces = Workspaces(repository, odd)
    spec = agent_spec("../evil agent", branch="odd")
    prepared = await workspaces.prepare(spec, RUN)
    assert prepared.path.is_relative_to(odd)
    for name in ("with space", "new\nline", "-dash", "ünï", "tab\t", '"q"', "star*"):
        (prepared.path / name).write_text("x")
    done = await workspaces.commit(spec, 0, "Names")
    assert done is not None
    assert done.files == 7
    assert "b/with space" in (await workspaces.diff(spec.name))[0]


async def test_a_partial_clone_never_dials_out(repository: Path, tmp_path: Path) -> None:
    git(repository, "config", "uploadpack.allowFilter", "true")
    commit_files(repository, {"a": "1"})
    git(tmp_path, "clone", "--quiet", "--filter=blob:none", f"file://{repository}", "partial")
    partial = tmp_path / "partial"
    commit_files(repository, {"later": "x" * 100})
    git(partial, "fetch", "--quiet")
    git(partial, "branch", "missing", "origin/main")
    canary = tmp_path / "canary"
    git(partial, "config", "remote.origin.url", f"ext::touch {canary}")
    git(partial, "config", "protocol.ext.allow", "always")
    workspaces = Workspaces(partial, tmp_path / "state")
    prepared = await workspaces.prepare(SPEC, RUN)
    assert (prepared.path / "a").read_text() == "1"
    with pytest.raises(WorkspaceError, match="are missing") as caught:
        await workspaces.prepare(agent_spec("other", branch="missing"), RUN)
    assert "git fetch --refetch" in caught.value.hint
    assert not canary.exists()
