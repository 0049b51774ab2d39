"""Linked worktrees and branches of the operator's repository. Nothing here reads a file that an agent may write."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from toka_runtime.aio import to_the_end
from toka_runtime.errors import WorkspaceError
from toka_runtime.supervisor.git import Git, GitError, GitResult
from toka_runtime.supervisor.workspace.facts import Repository
from toka_runtime.supervisor.workspace.folders import remove_tree

_LOCK_TRIES = 20
_LOCK_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Entry:
    """One worktree that the repository knows."""

    path: Path
    branch: str
    """Short name; "" when detached."""
    exists: bool


class LinkedWorktrees:
    def __init__(self, git: Git, repository: Repository) -> None:
        self._git = git
        self._repository = repository
        self._at = {"GIT_DIR": str(repository.git_dir)}

    async def entries(self) -> tuple[Entry, ...]:
        listed = await self._run("worktree", "list", "--porcelain", "-z")
        entries: list[Entry] = []
        for block in listed.stdout.split(b"\0\0"):
            fields: dict[str, str] = {}
            for line in block.split(b"\0"):
                key, _, value = os.fsdecode(line).partition(" ")
                fields[key] = value
            if path := fields.get("worktree"):
                branch = fields.get("branch", "").removeprefix("refs/heads/")
                entries.append(Entry(Path(path), branch, Path(path).exists()))
        return tuple(entries)

    def admin_dir(self, path: Path) -> Path | None:
        """The repository's folder for the worktree at `path`, found from the repository's side."""
        wanted = str(path / ".git")
        for pointer in sorted((self._repository.common_dir / "worktrees").glob("*/gitdir")):
            try:
                named = os.fsdecode(pointer.read_bytes()).strip("\n")
            except OSError:
                continue
            if os.path.normpath(pointer.parent / named) == wanted:
                return pointer.parent
        return None

    def mend(self, ours: Path) -> None:
        """Remove what a `git worktree add` for a folder below `ours` left half made when the power went: it would make
        git fail in the whole repository. Only while no other runtime uses `ours`."""
        for admin in sorted((self._repository.common_dir / "worktrees").glob("*")):
            try:
                beginning = (admin / "locked").read_bytes() == b"initializing"
                target = Path(os.fsdecode((admin / "gitdir").read_bytes()).strip("\n"))
            except OSError:
                continue
            if beginning and target.is_relative_to(ours):
                remove_tree(admin)

    async def add(self, path: Path, branch: str, *, start: str | None, force: bool) -> Path:
        """Register a worktree without files at `path`; `start`: make the branch there. Returns its admin folder."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        options = ["--force"] if force else []
        what = ["-b", branch, str(path), start] if start else [str(path), branch]
        try:
            await self._change("worktree", "add", "--quiet", "--no-checkout", *options, *what)
        except GitError as error:
            raise WorkspaceError(
                f"no worktree on branch {branch} could be made: {_reason(error)}",
                hint=error.hint or "see `git worktree list` and `git branch`, or name another metadata.branch",
            ) from error
        admin = self.admin_dir(path)
        if admin is None:
            raise WorkspaceError(f"git made the worktree {path}, but its administrative folder is not to be found")
        patterns = admin / "info/sparse-checkout"
        if patterns.exists():
            # Inherited from the operator's sparse checkout; here every file is present.
            patterns.write_text("/*\n", encoding="utf-8")
        return admin

    async def forget(self, path: Path) -> None:
        """Unregister the worktree at `path`, whose folder is gone already."""
        if os.path.lexists(path):
            raise WorkspaceError(f"{path} still exists")
        await self._change("worktree", "remove", "--force", "--force", str(path))

    async def check_branch_name(self, branch: str) -> None:
        valid = branch.isprintable() and not branch.startswith("-") and branch != "HEAD"
        if valid:
            found = await self._run("check-ref-format", f"refs/heads/{branch}", check=False)
            valid = found.exit_code == 0
        if not valid:
            raise WorkspaceError(f"{branch!r} is no valid branch name", hint="see `git help check-ref-format`")

    async def tip(self, branch: str) -> str:
        """Commit that the branch points to; "" when there is no such branch."""
        found = await self._run("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}^{{commit}}", check=False)
        return found.text if found.exit_code == 0 else ""

    async def head(self) -> str:
        """The operator's commit, now."""
        return (await self._run("rev-parse", "--verify", "HEAD^{commit}")).text

    async def move(self, branch: str, new: str, old: str, message: str) -> None:
        """Point `branch` from `old` ("": it must not exist) to `new`. Refuses where somebody else has moved it."""
        await self._change("update-ref", "-m", message, f"refs/heads/{branch}", new, old or "0" * len(new))

    async def merge_base(self, one: str, other: str) -> str:
        """ "" when they share no history (or it was cut off in a shallow clone)."""
        found = await self._run("merge-base", one, other, check=False)
        return found.text.partition("\n")[0] if found.exit_code == 0 else ""

    async def count_missing(self, tip: str, head: str) -> int:
        """How many commits of `head` are not in `tip`."""
        found = await self._run("rev-list", "--count", f"{tip}..{head}", check=False)
        return int(found.text) if found.exit_code == 0 else 0

    async def attach(self, admin: Path, branch: str) -> None:
        """Let the worktree's HEAD be `branch`, without touching files."""
        at = {"GIT_DIR": str(admin), "GIT_COMMON_DIR": str(self._repository.common_dir)}
        await to_the_end(self._git.run("symbolic-ref", "HEAD", f"refs/heads/{branch}", at=at))

    async def _change(self, *arguments: str) -> None:
        # A change to the operator's repository is not cut short: even git, asked to end, may leave a lock file behind.
        # It is a matter of milliseconds.
        await to_the_end(self._run(*arguments))

    async def _run(self, *arguments: str, check: bool = True) -> GitResult:
        """Waits a little for a lock that another git holds."""
        for left in range(_LOCK_TRIES - 1, -1, -1):
            try:
                return await self._git.run(*arguments, at=self._at, check=check)
            except GitError as error:
                if ".lock': File exists" not in error.stderr:
                    raise
                if left == 0:
                    hint = "if no git is at work in that repository, remove the lock file"
                    raise GitError(error.message, stderr=error.stderr, hint=hint) from error
                await asyncio.sleep(_LOCK_PAUSE_S)
        raise AssertionError("unreachable")


def is_own(admin: Path, commit: str) -> bool:
    """Whether `commit` was made or fetched in the worktree itself: then its reflog has it."""
    try:
        log = (admin / "logs/HEAD").read_bytes()
    except OSError:
        return False
    return any(line.split(b" ", 2)[1:2] == [commit.encode()] for line in log.splitlines())


def _reason(error: GitError) -> str:
    lines = [line for line in error.stderr.splitlines() if line.startswith(("fatal:", "error:"))]
    return "; ".join(line.partition(": ")[2] for line in lines) or error.message
