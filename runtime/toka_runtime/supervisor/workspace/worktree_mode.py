"""Each agent in its own linked worktree, on its own branch of the operator's repository.

The operator's index, files, stash, HEAD and settings are never touched. What is touched: the agent's branch, new
objects, and one administrative folder below `.git/worktrees`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from toka_runtime.errors import WorkspaceError
from toka_runtime.protocol.events import WorkCommitted
from toka_runtime.protocol.ids import AgentName, RunId
from toka_runtime.protocol.spec import AgentSpec
from toka_runtime.supervisor.agent_environment import agent_environment, author_of, make_scratch
from toka_runtime.supervisor.git import Git, GitError
from toka_runtime.supervisor.workspace.base import AgentWorkspace
from toka_runtime.supervisor.workspace.facts import Repository
from toka_runtime.supervisor.workspace.folders import agent_root, mend_pointer, remove_tree
from toka_runtime.supervisor.workspace.layout import Layout, Record
from toka_runtime.supervisor.workspace.linked import LinkedWorktrees, is_own
from toka_runtime.supervisor.workspace.message import commit_message
from toka_runtime.supervisor.workspace.snapshots import SnapshotRepository, Stat


@dataclass(slots=True)
class _Place:
    """One agent's worktree while this runtime lives."""

    tree: Path
    folder: Path
    """Of its snapshot repository and record."""
    snapshots: SnapshotRepository
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    branch: str = ""
    run: RunId | None = None
    head: str = ""
    """The operator's commit when it was last prepared."""
    claimed: bool = False
    left_out: tuple[str, ...] = ()


class WorktreeMode:
    def __init__(self, layout: Layout, git: Git, repository: Repository, settings: dict[str, str]) -> None:
        self._layout = layout
        self._git = git
        self._repository = repository
        self._settings = repository.settings | settings
        self._linked = LinkedWorktrees(git, repository)
        self._registering = asyncio.Lock()
        """Worktrees are added to a repository one at a time."""
        self._places: dict[AgentName, _Place] = {}
        self._linked.mend(layout.state_dir)

    async def prepare(self, spec: AgentSpec, run: RunId) -> AgentWorkspace:
        branch = spec.git_branch
        await self._linked.check_branch_name(branch)
        place = self._place(spec.name)
        self._claim(spec.name, place, branch)
        try:
            async with place.lock:
                place.run, place.head = run, await self._linked.head()
                notes = await self._make_ready(spec, place)
                admin = self._linked.admin_dir(place.tree)
                base = await self._base(place)
        except BaseException:
            place.claimed = False
            raise
        scratch = self._layout.scratch(spec.name)
        make_scratch(scratch)
        path = agent_root(place.tree, self._repository.prefix)
        return AgentWorkspace(
            agent=spec.name,
            run=run,
            mode="worktree",
            path=path,
            scratch=scratch,
            environment=agent_environment(spec, scratch),
            branch=branch,
            base_commit=base,
            git_paths=(*([admin] if admin else []), self._repository.common_dir),
            notes=tuple(notes),
        )

    async def commit(self, spec: AgentSpec, task: int, detail: str) -> WorkCommitted | None:
        place = self._place(spec.name)
        async with place.lock:
            message = commit_message(spec, task, detail, place.run)
            done = await self._commit(spec, place, message)
        if done is None:
            return None
        commit, stat = done
        return WorkCommitted(
            task=task, commit=commit, files=stat.files, insertions=stat.insertions, deletions=stat.deletions
        )

    async def diff(self, agent: AgentName, max_bytes: int) -> tuple[str, bool]:
        place = self._place(agent)
        record = self._record(agent, place)
        return await place.snapshots.diff(record.base, max_bytes)

    async def release(self, agent: AgentName, *, remove: bool) -> None:
        place = self._place(agent)
        place.claimed = False
        if not remove:
            return
        async with place.lock:
            record = self._record(agent, place)
            left_out = await place.snapshots.stage()
            if left_out or await place.snapshots.write_tree() != await place.snapshots.tree_of(record.last):
                raise WorkspaceError(
                    f"{place.tree} holds work that is in no commit",
                    hint="commit it there, or delete the folder and run `git worktree prune`",
                )
            await self._discard(place)

    # -- making it ready ------------------------------------------------------------------------------------------

    async def _make_ready(self, spec: AgentSpec, place: _Place) -> list[str]:
        await self._check_not_taken(spec, place)
        record = Record.load(place.folder)
        admin = self._linked.admin_dir(place.tree)
        has_files = await asyncio.to_thread(_has_files, place.tree)
        notes: list[str] = []
        if record is not None and record.status == "creating":
            # A runtime was killed while it made the folder: no agent has worked there yet.
            await self._discard(place)
        elif record is not None and admin is not None and has_files:
            if record.branch == place.branch:
                return await self._continue(spec, place, record, admin)
            notes += await self._leave_branch(spec, place, record)
        else:
            if has_files:
                notes.append(f"files of an unknown earlier run were moved to {self._set_aside(place)}")
            await self._discard(place)
        return notes + await self._begin(place)

    async def _begin(self, place: _Place) -> list[str]:
        """A new worktree, on a new branch from HEAD or on the existing one."""
        tip = await self._linked.tip(place.branch)
        start = tip or place.head
        record = Record("creating", place.branch, start, start)
        record.save(place.folder)
        await place.snapshots.create(self._repository.object_format, self._repository.excludes())
        # Forced: where the branch's former worktree is gone, git would still count it as checked out.
        async with self._registering:
            admin = await self._linked.add(place.tree, place.branch, start=None if tip else start, force=bool(tip))
        await place.snapshots.checkout(start)
        await self._share_index(place, admin)
        record.status = "ready"
        record.save(place.folder)
        return await self._notes(place, start)

    async def _continue(self, spec: AgentSpec, place: _Place, record: Record, admin: Path) -> list[str]:
        """The folder of an earlier run, with whatever it had not committed yet."""
        await place.snapshots.create(self._repository.object_format, self._repository.excludes())
        mend_pointer(place.tree, admin)
        if not place.snapshots.has_index():
            await place.snapshots.read(record.last)
        tip = await self._linked.tip(place.branch)
        if not tip:
            # Somebody deleted the branch under its worktree: what the agent did comes back.
            await self._linked.move(place.branch, record.last, "", "toka: branch restored")
            tip = record.last
        if tip != record.last and is_own(admin, tip):
            await place.snapshots.adopt(tip)
        elif tip != record.last:
            try:
                await place.snapshots.stage()
                await place.snapshots.forward(record.last, tip)
            except GitError as error:
                raise WorkspaceError(
                    f"branch {place.branch} was moved while {place.tree} holds work of {spec.name} that is in no "
                    f"commit: {error.stderr.strip() or error.message}",
                    hint="commit or discard the work in that folder, then start the agent again",
                ) from error
            await self._share_index(place, admin)
        # Last: it leaves `tip` in the reflog, by which own commits are known.
        await self._linked.attach(admin, place.branch)
        record.last = tip
        record.save(place.folder)
        return await self._notes(place, tip)

    async def _leave_branch(self, spec: AgentSpec, place: _Place, record: Record) -> list[str]:
        """The spec names another branch than last time: keep on the old one what is there, then start over."""
        old = _Place(place.tree, place.folder, place.snapshots, branch=record.branch, run=place.run)
        await self._commit(spec, old, f"Work left on {record.branch}\n\nAgent: {spec.name}\n")
        if old.left_out:
            note = f"files that are in no commit of {record.branch} were moved to {self._set_aside(place)}"
        else:
            note = f"the agent's branch was {record.branch}; its work there is committed"
        await self._discard(place)
        return [note]

    async def _discard(self, place: _Place) -> None:
        """Nothing of the worktree is left but its branch."""
        await asyncio.to_thread(remove_tree, place.tree)
        async with self._registering:
            if self._linked.admin_dir(place.tree) is not None:
                await self._linked.forget(place.tree)
        await asyncio.to_thread(remove_tree, place.folder)

    def _set_aside(self, place: _Place) -> Path:
        number = 1
        while (aside := place.tree.with_name(f"{place.tree.name}.left-{number}")).exists():
            number += 1
        place.tree.rename(aside)
        return aside

    # -- committing -----------------------------------------------------------------------------------------------

    async def _commit(self, spec: AgentSpec, place: _Place, message: str) -> tuple[str, Stat] | None:
        record = self._record(spec.name, place)
        admin = self._linked.admin_dir(place.tree)
        tip = await self._linked.tip(place.branch)
        if tip and tip != record.last:
            if admin is None or not is_own(admin, tip):
                raise WorkspaceError(
                    f"branch {place.branch} was moved by somebody else; the work of {spec.name} stays in {place.tree}",
                    hint="bring the branch back, or merge by hand in that folder, and start the agent again",
                )
            await place.snapshots.adopt(tip)
        place.left_out = await place.snapshots.stage()
        tree = await place.snapshots.write_tree()
        parent = tip or record.last
        new = parent
        if tree != await place.snapshots.tree_of(parent):
            await self._check_not_taken(spec, place)
            new = await place.snapshots.commit_tree(tree, parent, message, author_of(spec))
        if new != tip:
            await self._linked.move(place.branch, new, tip, "toka: " + message.partition("\n")[0])
        if admin is not None:
            await self._share_index(place, admin)
        if new == record.last:
            return None
        stat = await place.snapshots.stat(record.last, new)
        record.last = new
        record.save(place.folder)
        return new, stat

    async def _check_not_taken(self, spec: AgentSpec, place: _Place) -> None:
        """A commit on a branch that somebody has checked out would change under their feet."""
        for entry in await self._linked.entries():
            if entry.branch == place.branch and entry.path != place.tree and entry.exists:
                raise WorkspaceError(
                    f"branch {place.branch} of agent {spec.name} is checked out at {entry.path}",
                    hint="switch that folder to another branch, or give the agent another metadata.branch",
                )

    async def _share_index(self, place: _Place, admin: Path) -> None:
        """Give git as the agent runs it the runtime's view of what is committed, unless it is at work just now."""
        if not (admin / "index.lock").exists():
            await place.snapshots.share_index(admin / "index")

    # -- knowing --------------------------------------------------------------------------------------------------

    def _place(self, agent: AgentName) -> _Place:
        place = self._places.get(agent)
        if place is None:
            folder = self._layout.snapshot(agent)
            tree = self._layout.worktree(agent)
            snapshots = SnapshotRepository(
                self._git, folder / "git", tree, self._repository.objects, settings=self._settings
            )
            record = Record.load(folder)
            place = _Place(tree, folder, snapshots, branch=record.branch if record else "")
            self._places[agent] = place
        return place

    def _record(self, agent: AgentName, place: _Place) -> Record:
        record = Record.load(place.folder)
        if record is None or record.status != "ready" or not place.tree.is_dir():
            raise WorkspaceError(f"agent {agent} has no worktree", hint="it gets one when it is started")
        return record

    def _claim(self, agent: AgentName, place: _Place, branch: str) -> None:
        for other, theirs in self._places.items():
            if other != agent and theirs.claimed and theirs.branch == branch:
                raise WorkspaceError(
                    f"agents {other} and {agent} both have the branch {branch}",
                    hint="give each agent its own metadata.branch",
                )
        place.branch, place.claimed = branch, True

    async def _base(self, place: _Place) -> str:
        """What merging the branch would be compared with: where it left the operator's HEAD."""
        record = Record.load(place.folder)
        if record is None:
            raise WorkspaceError(f"the record of {place.tree} is gone")
        record.base = await self._linked.merge_base(place.head, record.last) or record.base
        record.save(place.folder)
        return record.base

    async def _notes(self, place: _Place, tip: str) -> list[str]:
        notes: list[str] = []
        behind = await self._linked.count_missing(tip, place.head) if tip != place.head else 0
        if behind:
            commits = "commit" if behind == 1 else "commits"
            notes.append(f"branch {place.branch} is continued; it is {behind} {commits} behind HEAD")
        if b"filter=" in await place.snapshots.file_of(tip, ".gitattributes"):
            notes.append("git filters (such as LFS) are not run: agents see, and commit, such files as git stores them")
        return notes


def _has_files(tree: Path) -> bool:
    return tree.is_dir() and any(entry.name != ".git" for entry in tree.iterdir())
