"""A git folder of the runtime's own over files that an agent may write.

Everything that the runtime reads of an agent's work goes through it: its settings, index, excludes and attributes are
the runtime's, so nothing that lies in the work tree (a `.git` file, nested repositories, attributes) and nothing in
the operator's repository settings (filters, monitors, hooks) can start a program or hide a change. Objects go where
the caller says: into the operator's repository when they become commits on a branch, else into this folder.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from toka_runtime.supervisor.git import Author, Git, GitError, GitResult
from toka_runtime.supervisor.workspace.changes import Changes, Nested, sort_out
from toka_runtime.supervisor.workspace.folders import write_atomically

_TIMEOUT_S = 300.0
"""Reading or writing a whole tree on a slow disk."""
_TRIES = 3
"""An agent that still writes can make a name vanish between listing and reading it."""


@dataclass(frozen=True, slots=True)
class Stat:
    files: int
    insertions: int
    deletions: int


@dataclass(frozen=True)
class SnapshotRepository:
    git: Git
    git_dir: Path
    tree: Path
    """The agent's files; their top folder."""
    objects: Path
    """Where new objects are written."""
    alternates: tuple[Path, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    nested: Nested = "skip"
    index: Path = Path()

    async def create(self, object_format: str, excludes: bytes = b"") -> None:
        """Make the folder if need be, and clear what a killed runtime left in it."""
        if not (self.git_dir / "HEAD").exists():
            self.git_dir.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.rmtree(self.git_dir, ignore_errors=True)
            form = f"--object-format={object_format}"
            await self.git.run("init", "--quiet", "--bare", "--template=", form, str(self.git_dir))
        for lock in self.git_dir.glob("*.lock"):
            lock.unlink(missing_ok=True)
        for left in self.git_dir.glob("diff-*"):
            shutil.rmtree(left, ignore_errors=True)
        write_atomically(self.git_dir / "info/exclude", excludes)
        # Stronger than any .gitattributes: a diff never hides a file by declaring it binary.
        write_atomically(self.git_dir / "info/attributes", b"* !diff\n")

    async def checkout(self, commit: str) -> None:
        """Write the files of `commit` into the empty tree."""
        await self._call("read-tree", commit)
        try:
            await self._call("checkout-index", "--all", "--index", "--quiet")
        except GitError as error:
            if "unable to read" not in error.stderr:
                raise
            hint = "fetch the missing objects (`git fetch --refetch --filter=blob:limit=1g`), or check the repository"
            raise GitError(f"objects of {commit} are missing: {error.message}", hint=hint) from error

    async def read(self, commit: str) -> None:
        """Take `commit` as what the tree was made from, without touching a file."""
        await self._call("read-tree", commit)

    async def adopt(self, commit: str) -> None:
        """Take `commit`, which was made from these very files, as known. Files that did not change keep their place
        in the index, so that they are not read again."""
        await self._call("read-tree", "-m", "-i", commit)

    async def forward(self, before: str, after: str) -> None:
        """Bring the files from `before` to `after`. Raises GitError, changing nothing, where they were changed."""
        await self._call("read-tree", "-m", "-u", before, after)

    async def stage(self) -> tuple[str, ...]:
        """Take the tree as it is into the index; returns what was left out, with the reason.

        Call it while nothing writes there: git looks at a name and then opens it.
        """
        for left in range(_TRIES - 1, -1, -1):
            changes = await self._changes()
            try:
                await self._update_index("--force-remove", names=changes.remove)
                await self._update_index("--add", "--replace", names=changes.add)
            except GitError:
                if left == 0:
                    raise
            else:
                return changes.left_out
        raise AssertionError("unreachable")

    async def write_tree(self) -> str:
        return (await self._call("write-tree", "--missing-ok")).text

    async def commit_tree(self, tree: str, parent: str, message: str, author: Author) -> str:
        parents = ("-p", parent) if parent else ()
        text = message.encode("utf-8", "replace")
        return (await self._call("commit-tree", tree, *parents, author=author, stdin=text)).text

    async def set_ref(self, name: str, commit: str) -> None:
        await self._call("update-ref", name, commit)

    async def file_of(self, commit: str, name: str) -> bytes:
        """Empty when there is none."""
        return (await self._call("cat-file", "blob", f"{commit}:{name}", check=False)).stdout

    async def tree_of(self, commit: str) -> str:
        return (await self._call("rev-parse", "--verify", f"{commit}^{{tree}}")).text

    async def empty_tree(self) -> str:
        return (await self._call("hash-object", "-t", "tree", "--stdin")).text

    async def stat(self, before: str, after: str) -> Stat:
        """What `after` changed, by files and lines; a binary file counts no line."""
        listed = await self._call("diff-tree", "-r", "-z", "--numstat", "--no-renames", before, after)
        rows = [row.split(b"\t") for row in listed.stdout.split(b"\0") if row.count(b"\t") >= 2]
        added, removed = (sum(int(row[column]) for row in rows if row[column].isdigit()) for column in (0, 1))
        return Stat(len(rows), added, removed)

    async def diff(self, base: str, max_bytes: int) -> tuple[str, bool]:
        """The tree as it is now against `base`, as a patch of at most about `max_bytes`, and whether it was cut.
        Neither the index nor the objects of this repository change."""
        how = ("--patch", "--find-renames", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv")
        names = ("--submodule=short", "--src-prefix=a/", "--dst-prefix=b/")
        async with self._aside() as aside:
            left_out = await aside.stage()
            result = await aside._call("diff-index", "--cached", *how, *names, base, "--", max_bytes=max_bytes)
        text = result.stdout.decode("utf-8", "replace")
        if result.truncated:
            text = text[: text.rfind("\n") + 1]
        return text + "".join(f"# left out: {name}\n" for name in left_out), result.truncated

    def has_index(self) -> bool:
        return self._index.exists()

    async def share_index(self, target: Path) -> None:
        """Give another git the same view of what is committed; its index is replaced as a whole."""
        data = await asyncio.to_thread(self._index.read_bytes)
        await asyncio.to_thread(write_atomically, target, data, mode=0o644)

    @asynccontextmanager
    async def _aside(self) -> AsyncGenerator[SnapshotRepository]:
        """The same with an index and objects that are thrown away."""
        folder = Path(tempfile.mkdtemp(prefix="diff-", dir=self.git_dir))
        try:
            index, objects = folder / "index", folder / "objects"
            objects.mkdir()
            if self._index.exists():
                await asyncio.to_thread(shutil.copyfile, self._index, index)
            yield replace(self, index=index, objects=objects, alternates=(self.objects, *self.alternates))
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _changes(self) -> Changes:
        listed = await self._call("ls-files", "-z", "--modified", "--deleted", "--others", "--exclude-standard")
        changes = await asyncio.to_thread(sort_out, self.tree, listed.stdout, self.nested)
        if changes.nested:
            asked = b"\0".join(changes.nested)
            answer = await self._call("check-ignore", "-z", "--stdin", stdin=asked, check=False)
            ignored = frozenset(answer.stdout.split(b"\0"))
            changes.add.extend(name for name in changes.nested if name not in ignored)
        return changes

    async def _update_index(self, *options: str, names: list[bytes]) -> None:
        if names:
            await self._call("update-index", *options, "-z", "--stdin", stdin=b"\0".join(names) + b"\0")

    async def _call(
        self,
        *arguments: str,
        stdin: bytes = b"",
        author: Author | None = None,
        max_bytes: int | None = None,
        check: bool = True,
    ) -> GitResult:
        return await self.git.run(
            *arguments,
            at=self._at(),
            settings=self.settings,
            author=author,
            cwd=self.tree,
            stdin=stdin,
            timeout_s=_TIMEOUT_S,
            max_bytes=max_bytes,
            check=check,
        )

    @property
    def _index(self) -> Path:
        return self.index if self.index.name else self.git_dir / "index"

    def _at(self) -> dict[str, str]:
        at = {
            "GIT_DIR": str(self.git_dir),
            "GIT_WORK_TREE": str(self.tree),
            "GIT_INDEX_FILE": str(self._index),
            "GIT_OBJECT_DIRECTORY": str(self.objects),
        }
        if self.alternates:
            at["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = ":".join(_quoted(path) for path in self.alternates)
        return at


def _quoted(path: Path) -> str:
    """As git reads a list of paths: quoted like C where it holds a colon or a quote."""
    text = os.fsdecode(path)
    if not any(c in text for c in ':"\n'):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
