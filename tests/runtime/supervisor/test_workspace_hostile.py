"""An agent may write anything into its folder. None of it may run in the runtime's name, hide work, or lead outside."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from fakes.repositories import git, make_repository
from fakes.specs import agent_spec
from toka_runtime.errors import WorkspaceError
from toka_runtime.protocol.ids import RunId
from toka_runtime.supervisor.workspace import AgentWorkspace, Workspaces

SPEC = agent_spec()
RUN = RunId("r1")


class Scene:
    """A prepared worktree, and a canary that any started program would touch."""

    def __init__(self, repository: Path, workspaces: Workspaces, prepared: AgentWorkspace, canary: Path) -> None:
        self.repository, self.workspaces, self.canary = repository, workspaces, canary
        self.path = prepared.path
        self.hook = f"touch {canary}; cat"

    async def everything(self) -> str:
        """All that the runtime ever does with the folder; returns the diff."""
        text, _ = await self.workspaces.diff(SPEC.name)
        await self.workspaces.commit(SPEC, 0, "Work")
        await self.workspaces.prepare(SPEC, RunId("r2"))
        assert not self.canary.exists(), "something that the agent wrote was started"
        return text

    def committed(self) -> list[str]:
        return git(self.repository, "ls-tree", "-r", "--name-only", "agent/scribe").splitlines()

    def evil_config(self) -> str:
        return (
            f"[core]\n\trepositoryformatversion = 0\n\tfsmonitor = {self.hook}\n\thooksPath = {self.path}/hooks\n"
            f"\tpager = {self.hook}\n\teditor = {self.hook}\n\tsshCommand = {self.hook}\n"
            f'[filter "evil"]\n\tclean = {self.hook}\n\tsmudge = {self.hook}\n\trequired = true\n'
            f'[diff "evil"]\n\tcommand = {self.hook}\n\ttextconv = {self.hook}\n[diff]\n\texternal = {self.hook}\n'
        )


@pytest.fixture
async def scene(tmp_path: Path) -> Scene:
    repository = make_repository(tmp_path / "r")
    workspaces = Workspaces(repository, tmp_path / "state")
    return Scene(repository, workspaces, await workspaces.prepare(SPEC, RUN), tmp_path / "canary")


def _hooks(folder: Path, scene: Scene) -> None:
    folder.mkdir(exist_ok=True)
    for name in ("post-checkout", "pre-commit", "reference-transaction", "post-index-change", "fsmonitor-watchman"):
        (folder / name).write_text(f"#!/bin/sh\ntouch {scene.canary}\n")
        (folder / name).chmod(0o755)


async def test_its_git_file_points_to_a_repository_of_its_own(scene: Scene) -> None:
    (scene.path / "evil.git").mkdir()
    git(scene.path / "evil.git", "init", "--quiet", "--bare", "--initial-branch=main", ".")
    (scene.path / "evil.git/config").write_text(scene.evil_config())
    _hooks(scene.path / "evil.git/hooks", scene)
    (scene.path / ".git").write_text(f"gitdir: {scene.path}/evil.git\n")
    (scene.path / "work").write_text("1")
    await scene.everything()
    assert "work" in scene.committed()
    assert (scene.path / ".git").read_text() == f"gitdir: {scene.repository}/.git/worktrees/scribe\n"


@pytest.mark.parametrize("kind", ["folder", "link", "gone", "pipe"])
async def test_its_git_file_is_something_else(scene: Scene, kind: str, tmp_path: Path) -> None:
    pointer = scene.path / ".git"
    pointer.unlink()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    if kind == "folder":
        git(scene.path, "init", "--quiet")
        (pointer / "config").write_text(scene.evil_config())
    elif kind == "link":
        pointer.symlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(pointer)
    (scene.path / "work").write_text("1")
    await scene.everything()
    assert "work" in scene.committed()
    assert pointer.is_file()
    assert victim.read_text() == "precious"
    assert git(scene.path, "branch", "--show-current") == "agent/scribe"


async def test_nested_repositories_start_nothing_and_are_named(scene: Scene) -> None:
    nested = make_repository(scene.path / "nested", {"inner": "1"})
    (nested / ".git/config").write_text(scene.evil_config())
    _hooks(nested / ".git/hooks", scene)
    (scene.path / "work").write_text("1")
    text = await scene.everything()
    assert "# left out: nested/ (a git repository of its own)" in text
    assert "work" in scene.committed()


async def test_a_repository_in_a_submodules_place_starts_nothing(tmp_path: Path) -> None:
    inner = make_repository(tmp_path / "inner")
    repository = make_repository(tmp_path / "r")
    git(repository, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "lib")
    git(repository, "commit", "--quiet", "--message", "Submodule")
    workspaces = Workspaces(repository, tmp_path / "state")
    scene = Scene(repository, workspaces, await workspaces.prepare(SPEC, RUN), tmp_path / "canary")
    shutil.rmtree(scene.path / "lib")
    make_repository(scene.path / "lib", {"other": "1"})
    (scene.path / "lib/.git/config").write_text(scene.evil_config())
    (scene.path / ".gitmodules").write_text('[submodule "lib"]\n\tpath = lib\n\turl = ext::sh -c "touch x"\n')
    (scene.path / "work").write_text("1")
    await scene.everything()
    assert "work" in scene.committed()


async def test_the_operators_filters_are_not_run_on_what_an_agent_wrote(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "r", {"tools/clean.sh": "cat\n", ".gitattributes": "*.txt filter=mine\n"})
    git(repository, "config", "filter.mine.clean", "sh tools/clean.sh")
    git(repository, "config", "filter.mine.smudge", "sh tools/clean.sh")
    git(repository, "config", "filter.mine.required", "true")
    git(repository, "config", "diff.mine.textconv", "sh tools/clean.sh")
    git(repository, "config", "core.fsmonitor", "sh tools/clean.sh")
    workspaces = Workspaces(repository, tmp_path / "state")
    prepared = await workspaces.prepare(SPEC, RUN)
    assert "git filters (such as LFS) are not run" in prepared.notes[0]
    scene = Scene(repository, workspaces, prepared, tmp_path / "canary")
    (scene.path / "tools/clean.sh").write_text(f"touch {scene.canary}\ncat\n")
    (scene.path / ".gitattributes").write_text("* filter=mine diff=mine\n")
    (scene.path / "work.txt").write_text("as written\n")
    assert "+as written" in await scene.everything()
    assert git(repository, "cat-file", "blob", "agent/scribe:work.txt") == "as written"


async def test_the_operators_hooks_are_not_run(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "r")
    workspaces = Workspaces(repository, tmp_path / "state")
    canary = tmp_path / "canary"
    for name in ("post-checkout", "reference-transaction", "post-index-change", "pre-commit", "post-commit"):
        hook = repository / ".git/hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {canary}\n")
        hook.chmod(0o755)
    scene = Scene(repository, workspaces, await workspaces.prepare(SPEC, RUN), canary)
    (scene.path / "work").write_text("1")
    await scene.everything()
    assert "work" in scene.committed()


async def test_attributes_do_not_hide_a_file_from_the_diff(scene: Scene) -> None:
    (scene.path / ".gitattributes").write_text("*.py -diff binary\n* -diff\n")
    (scene.path / "src/app.py").write_text("import backdoor\n")
    text = await scene.everything()
    assert "+import backdoor" in text
    assert "Binary files" not in text


async def test_index_flags_do_not_hide_a_change(scene: Scene) -> None:
    git(scene.path, "update-index", "--assume-unchanged", "src/app.py")
    git(scene.path, "update-index", "--skip-worktree", "README.md")
    (scene.path / "src/app.py").write_text("import backdoor\n")
    (scene.path / "README.md").write_text("changed\n")
    text = await scene.everything()
    assert "+import backdoor" in text
    assert "+changed" in text


async def test_restored_times_do_not_hide_a_change(scene: Scene) -> None:
    file = scene.path / "src/app.py"
    before = file.stat()
    file.write_text("print('HELLO')\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert "+print('HELLO')" in await scene.everything()


async def test_its_index_is_garbage(scene: Scene) -> None:
    (scene.repository / ".git/worktrees/scribe/index").write_bytes(b"DIRC" + b"\xff" * 100)
    (scene.path / "work").write_text("1")
    await scene.everything()
    assert git(scene.path, "status", "--porcelain") == ""


async def test_links_are_links(scene: Scene, tmp_path: Path) -> None:
    secret = tmp_path / "outside"
    secret.mkdir()
    (secret / "app.py").write_text("secret")
    shutil.rmtree(scene.path / "src")
    (scene.path / "src").symlink_to(secret)
    (scene.path / "README.md").unlink()
    (scene.path / "README.md").symlink_to(secret / "app.py")
    text = await scene.everything()
    assert "secret" not in text.replace(str(secret), "")
    assert set(scene.committed()) == {".gitignore", "README.md", "src"}
    assert git(scene.repository, "cat-file", "blob", "agent/scribe:src") == str(secret)


async def test_a_link_in_the_way_of_the_agents_own_folder(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "r")
    workspaces = Workspaces(repository / "src", tmp_path / "state")
    prepared = await workspaces.prepare(SPEC, RUN)
    shutil.rmtree(prepared.path)
    prepared.path.symlink_to(tmp_path)
    with pytest.raises(WorkspaceError, match="is no folder any more"):
        await workspaces.prepare(SPEC, RunId("r2"))


async def test_files_become_folders_pipes_and_sockets(scene: Scene) -> None:
    (scene.path / "README.md").unlink()
    (scene.path / "README.md").mkdir()
    (scene.path / "README.md/inside").write_text("1")
    shutil.rmtree(scene.path / "src")
    (scene.path / "src").write_text("a file now")
    (scene.path / ".gitignore").unlink()
    os.mkfifo(scene.path / "pipe")
    os.mknod(scene.path / "socket", stat.S_IFSOCK | 0o600)
    await scene.everything()
    assert set(scene.committed()) == {"README.md/inside", "src"}


async def test_a_tracked_file_becomes_a_pipe(scene: Scene) -> None:
    (scene.path / "README.md").unlink()
    os.mkfifo(scene.path / "README.md")
    (scene.path / "work").write_text("1")
    await scene.everything()
    assert set(scene.committed()) == {".gitignore", "src/app.py", "work"}


async def test_a_huge_file_is_left_out_and_named(scene: Scene) -> None:
    with (scene.path / "huge.img").open("wb") as file:
        file.truncate(200 * 1024 * 1024)
    (scene.path / "work").write_text("1")
    text = await scene.everything()
    assert "# left out: huge.img (209,715,200 bytes)" in text
    assert "huge.img" not in scene.committed()
    with pytest.raises(WorkspaceError, match="in no commit"):
        await scene.workspaces.release(SPEC.name, remove=True)


async def test_it_left_its_branch(scene: Scene) -> None:
    git(scene.path, "switch", "--quiet", "--create", "elsewhere")
    (scene.path / "work").write_text("1")
    done = await scene.workspaces.commit(SPEC, 0, "Work")
    assert done is not None
    assert git(scene.repository, "rev-parse", "agent/scribe") == done.commit
    await scene.workspaces.prepare(SPEC, RunId("r2"))
    assert git(scene.path, "branch", "--show-current") == "agent/scribe"
    assert git(scene.path, "status", "--porcelain") == ""


async def test_broken_text_in_the_diff(scene: Scene) -> None:
    (scene.path / "latin").write_bytes(b"caf\xe9\n")
    (scene.path / "name-\udce9").write_text("x\n")
    text = await scene.everything()
    assert "+caf\ufffd" in text
    text.encode("utf-8")
