"""Real git repositories for tests, made fast and alike, and a look at all that must not change in them."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
import tempfile
from functools import cache
from pathlib import Path

_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Olivia Operator",
    "GIT_AUTHOR_EMAIL": "olivia@example.invalid",
    "GIT_COMMITTER_NAME": "Olivia Operator",
    "GIT_COMMITTER_EMAIL": "olivia@example.invalid",
    "GIT_EDITOR": "true",
}


def git(folder: Path, *arguments: str, check: bool = True, **environment: str) -> str:
    """What git prints, as the operator would run it in `folder`."""
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=_ENVIRONMENT | environment, check=False, capture_output=True, text=True
    )
    if check and done.returncode != 0:
        raise AssertionError(f"git {' '.join(arguments)}: {done.stderr}")
    return done.stdout.strip("\n")


def make_repository(folder: Path, files: dict[str, str] | None = None) -> Path:
    """A repository with one commit on `main`."""
    if files is None:
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(_template())) as packed:
            # Our own archive. Python 3.11.2, Debian 12's, does not know the filter yet.
            packed.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit_files(folder, files)
    return folder


@cache
def _template() -> bytes:
    """Made once and kept packed: unpacking is several times faster than git."""
    files = {"README.md": "# Sample\n", "src/app.py": "print('hello')\n", ".gitignore": "*.log\n"}
    packed = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(make_repository(Path(folder), files), arcname=".")
    return packed.getvalue()


def commit_files(folder: Path, files: dict[str, str], message: str = "Change") -> str:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--message", message)
    return git(folder, "rev-parse", "HEAD")


def operator_state(folder: Path) -> dict[str, str]:
    """Everything of the operator's: all files with their times and rights, index, HEAD, stash, settings, branches."""
    state = {
        "status": git(folder, "--no-optional-locks", "status", "--porcelain=v2", "--ignored", "--show-stash"),
        "refs": git(folder, "for-each-ref", "refs/heads/main", "refs/stash", "refs/tags", "refs/remotes"),
        "reflog": git(folder, "reflog", "show", "HEAD"),
    }
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if relative.parts[0] == ".git" and not _is_the_operators(relative):
            continue
        entry = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        state[str(relative)] = f"{entry.st_mode:o} {entry.st_mtime_ns if content else 0} {_digest(content)}"
    return state


def _is_the_operators(path: Path) -> bool:
    inside = path.relative_to(".git").parts
    mine = ("index", "HEAD", "config", "ORIG_HEAD", "MERGE_HEAD", "hooks", "info", "rebase-merge", "rebase-apply")
    return bool(inside) and inside[0] in mine


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
