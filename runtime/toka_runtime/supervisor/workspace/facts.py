"""What the operator's workspace is, found out before anything is started."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from toka_runtime.errors import WorkspaceError
from toka_runtime.supervisor.git import Git, GitError

ModeChoice = Literal["auto", "in-place"]

_CARRIED = frozenset(
    {
        "core.filemode",
        "core.symlinks",
        "core.ignorecase",
        "core.precomposeunicode",
        "core.autocrlf",
        "core.eol",
        "core.sharedrepository",
    }
)
"""Settings of the operator's repository that say how files map to objects, and can start nothing."""


@dataclass(frozen=True, slots=True)
class Repository:
    """The operator's repository around the workspace. All paths absolute."""

    git_dir: Path
    common_dir: Path
    """The same as `git_dir` unless the workspace is itself a linked worktree."""
    prefix: str
    """Where the workspace lies below the top of the work tree; "" at the top."""
    object_format: str
    head: str
    """Commit; "" when there is none yet."""
    settings: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def objects(self) -> Path:
        return self.common_dir / "objects"

    def excludes(self) -> bytes:
        """The operator's private ignore patterns for this repository."""
        try:
            return (self.common_dir / "info/exclude").read_bytes()
        except OSError:
            return b""


@dataclass(frozen=True, slots=True)
class Facts:
    workspace: Path
    git: Git | None
    repository: Repository | None
    """None: a plain folder, or one that the repository around it knows nothing of."""


def check_folder(workspace: Path, state_dir: Path) -> None:
    """Raises WorkspaceError unless `workspace` is a folder that can be read and written."""
    if not workspace.exists():
        raise WorkspaceError(f"workspace {workspace} does not exist", hint="create it, or name another --workspace")
    if not workspace.is_dir():
        raise WorkspaceError(f"workspace {workspace} is not a folder", hint="name a folder as --workspace")
    if workspace == state_dir:
        raise WorkspaceError(f"{workspace} is the state folder itself", hint="name another --workspace or --state-dir")
    if workspace.is_relative_to(state_dir):
        raise WorkspaceError(
            f"workspace {workspace} lies inside the state folder {state_dir}", hint="name another --state-dir"
        )
    if not os.access(workspace, os.R_OK | os.X_OK, effective_ids=True):
        raise WorkspaceError(f"workspace {workspace} cannot be read", hint="check its permissions")
    _check_writable(workspace)


async def look(workspace: Path, mode: ModeChoice) -> Facts:
    """Raises WorkspaceError where the workspace cannot serve in this mode."""
    git = Git.find()
    around = _repository_root(workspace)
    if git is None:
        if around is not None and mode == "auto":
            raise WorkspaceError(
                f"workspace {workspace} is in the git repository {around}, but there is no git program on this host",
                hint="install git, or work on the folder itself with --in-place",
            )
        return Facts(workspace, None, None)
    await git.check_version()
    if around is None:
        return Facts(workspace, git, None)
    repository = await _repository(git, workspace, around)
    if repository is not None and mode == "auto":
        if not repository.head:
            raise WorkspaceError(
                f"the git repository {around} has no commit yet, so no worktree can be made of it",
                hint='make a first commit (git commit --allow-empty -m "First"), or use --in-place',
            )
        for folder in (repository.common_dir, repository.objects):
            _check_writable(folder)
    return Facts(workspace, git, repository)


async def operator_excludes(git: Git) -> dict[str, str]:
    """The setting that points git at the operator's personal ignore file, if there is one, so that what they never
    commit (editor files, virtual environments) is not committed for them."""
    home = Path(os.environ.get("HOME") or "/nonexistent")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    chosen = config / "git/ignore"
    at = {"HOME": str(home), "XDG_CONFIG_HOME": str(config)}
    ask = ("--includes", "--type=path", "--get", "core.excludesFile")
    for file in (home / ".gitconfig", config / "git/config"):
        said = await git.run("config", "--file", str(file), *ask, at=at, check=False)
        if said.exit_code == 0 and said.text:
            chosen = home / said.text
            break
    return {"core.excludesFile": str(chosen)} if chosen.is_file() else {}


def _repository_root(workspace: Path) -> Path | None:
    """The nearest folder upwards that looks like the top of a repository (also a bare one)."""
    for folder in (workspace, *workspace.parents):
        if os.path.lexists(folder / ".git"):
            return folder
        if all((folder / name).exists() for name in ("HEAD", "objects", "refs")):
            return folder
    return None


async def _repository(git: Git, workspace: Path, around: Path) -> Repository | None:
    """None when the repository around does not hold the workspace's files."""
    flags = ("--is-bare-repository", "--is-inside-git-dir", "--show-object-format")
    try:
        said = await git.run(
            "rev-parse", "--path-format=absolute", *flags, "--absolute-git-dir", "--git-common-dir", cwd=workspace
        )
    except GitError as error:
        if "not a git repository" in error.stderr and around != workspace:
            return None
        raise WorkspaceError(
            f"git cannot read the repository {around}: {error.stderr.strip() or error.message}",
            hint="repair it, or use --in-place on a folder outside of it",
        ) from error
    bare, inside, object_format, git_dir, common_dir = said.text.split("\n")
    if bare == "true" or inside == "true":
        raise WorkspaceError(
            f"workspace {workspace} is a bare repository or a git folder: it has no files to work on",
            hint="clone it, and name the clone as --workspace",
        )
    prefix = (await git.run("rev-parse", "--show-prefix", cwd=workspace)).text.rstrip("/")
    found = await git.run("rev-parse", "--verify", "--quiet", "HEAD^{commit}", cwd=workspace, check=False)
    head = found.text if found.exit_code == 0 else ""
    if prefix:
        kind = await git.run("cat-file", "-t", f"HEAD:{prefix}", cwd=workspace, check=False)
        if kind.text != "tree":
            return None
    return Repository(
        Path(git_dir), Path(common_dir), prefix, object_format, head, await _carried_settings(git, workspace)
    )


async def _carried_settings(git: Git, workspace: Path) -> dict[str, str]:
    listed = await git.run("config", "--local", "--includes", "--list", "-z", cwd=workspace)
    settings: dict[str, str] = {}
    for entry in listed.text.split("\0"):
        key, _, value = entry.partition("\n")
        if key in _CARRIED:
            settings[key] = value or "true"
    return settings


def _check_writable(folder: Path) -> None:
    reason = ""
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        reason = "no permission to write"
    else:
        try:
            # A file without a name: proves it (quota, read-only mount), and leaves no trace.
            os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600))
        except PermissionError as error:
            reason = error.strerror
        except OSError as error:
            # Not every file system can make one; then `access` has to do.
            reason = error.strerror if error.errno in _FULL_OR_READ_ONLY else ""
    if reason:
        raise WorkspaceError(f"{folder} cannot be written: {reason}", hint="check permissions, mount and free space")


_FULL_OR_READ_ONLY = frozenset({errno.EROFS, errno.ENOSPC, errno.EDQUOT})
