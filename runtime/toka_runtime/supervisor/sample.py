"""Makes the workspace that a first start works on, so that it can be tried without risking anything of one's own."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from toka_runtime.errors import WorkspaceError
from toka_runtime.supervisor.git import Author, git_environment
from toka_runtime.supervisor.sample_files import HISTORY, SampleCommit
from toka_runtime.supervisor.workspace.folders import remove_tree

_AUTHOR = Author("Sam Sample", "sam@sample.invalid")
_TIMEOUT_S = 30.0


def create_sample_workspace(path: Path) -> None:
    """Make a small project at `path`, as a git repository where there is git; its commits are the same everywhere.

    What is there already is kept as it is: a folder that holds anything is not touched. The folder appears whole or
    not at all. Raises WorkspaceError.
    """
    try:
        if path.is_dir() and any(path.iterdir()):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            part.chmod(0o755)
            _fill(part)
            part.rename(path)
        finally:
            remove_tree(part)
    except (OSError, subprocess.SubprocessError) as error:
        # Another start may have made it in the meantime.
        with contextlib.suppress(OSError):
            if any(path.iterdir()):
                return
        said = getattr(error, "stderr", b"") or str(error).encode()
        reason = said.decode("utf-8", "replace").strip()
        raise WorkspaceError(
            f"the sample workspace {path} could not be made: {reason}", hint="name a folder of yours as --workspace"
        ) from error


def _fill(folder: Path) -> None:
    git = shutil.which("git")
    if git is not None:
        _git(git, folder, "init", "--quiet", "--template=", "--initial-branch=main")
    for commit in HISTORY:
        for name, content in commit.files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content, encoding="utf-8")
        if git is not None:
            _git(git, folder, "add", "--all")
            _git(git, folder, "commit", "--quiet", "--message", commit.message, commit=commit)


def _git(git: str, folder: Path, *arguments: str, commit: SampleCommit | None = None) -> None:
    environment = git_environment({"core.autocrlf": "false"}, _AUTHOR)
    if commit is not None:
        environment |= {
            "GIT_COMMITTER_NAME": _AUTHOR.name,
            "GIT_COMMITTER_EMAIL": _AUTHOR.email,
            "GIT_AUTHOR_DATE": commit.at,
            "GIT_COMMITTER_DATE": commit.at,
        }
    subprocess.run([git, *arguments], cwd=folder, env=environment, check=True, capture_output=True, timeout=_TIMEOUT_S)
