"""All agents in the workspace itself, as the operator asked. Nothing is committed there: the work tree is theirs."""

from __future__ import annotations

import asyncio

from toka_runtime.errors import WorkspaceError
from toka_runtime.protocol.events import WorkCommitted
from toka_runtime.protocol.ids import AgentName, RunId
from toka_runtime.protocol.spec import AgentSpec
from toka_runtime.supervisor.agent_environment import agent_environment, make_scratch
from toka_runtime.supervisor.git import Author
from toka_runtime.supervisor.workspace.base import AgentWorkspace
from toka_runtime.supervisor.workspace.copying import CopyLimits, measure
from toka_runtime.supervisor.workspace.facts import Facts
from toka_runtime.supervisor.workspace.folders import remove_tree
from toka_runtime.supervisor.workspace.layout import Layout
from toka_runtime.supervisor.workspace.snapshots import SnapshotRepository

_BASE_AUTHOR = Author("Toka runtime", "runtime@agents.toka.invalid")


class InPlaceMode:
    def __init__(self, layout: Layout, facts: Facts, settings: dict[str, str], limits: CopyLimits) -> None:
        self._layout = layout
        self._facts = facts
        self._limits = limits
        self._settings = settings
        self._lock = asyncio.Lock()
        self._snapshots: SnapshotRepository | None = None
        self._base = ""
        self._no_diff = ""
        """Why there is nothing to compare with."""

    async def prepare(self, spec: AgentSpec, run: RunId) -> AgentWorkspace:
        async with self._lock:
            if self._snapshots is None and not self._no_diff:
                await self._look()
        scratch = self._layout.scratch(spec.name)
        make_scratch(scratch)
        repository = self._facts.repository
        return AgentWorkspace(
            agent=spec.name,
            run=run,
            mode="in-place",
            path=self._layout.workspace,
            scratch=scratch,
            environment=agent_environment(spec, scratch),
            base_commit=self._base if repository is not None and repository.head else "",
            git_paths=(repository.common_dir,) if repository is not None else (),
            notes=(self._no_diff,) if self._no_diff else (),
        )

    async def commit(self, spec: AgentSpec, task: int, detail: str) -> WorkCommitted | None:
        return None

    async def diff(self, agent: AgentName, max_bytes: int) -> tuple[str, bool]:
        """What differs from HEAD in a git repository (the operator's own changes and all agents' together), else from
        what the folder was when this runtime first used it."""
        if self._snapshots is None:
            if self._no_diff:
                return f"# {self._no_diff}\n", False
            raise WorkspaceError("no agent has worked in the workspace yet", hint="start one")
        return await self._snapshots.diff(self._base, max_bytes)

    async def release(self, agent: AgentName, *, remove: bool) -> None:
        return

    async def _look(self) -> None:
        """Find or make what a diff compares with. Nothing is written into the workspace or its repository."""
        git, repository = self._facts.git, self._facts.repository
        if git is None:
            self._no_diff = "no diff: there is no git on this host"
            return
        if repository is None:
            try:
                await asyncio.to_thread(measure, self._layout.workspace, self._layout.state_dir, self._limits)
            except WorkspaceError:
                self._no_diff = "no diff: the folder is too large to be kept for comparison"
                return
        folder = self._layout.snapshot("in-place workspace") / "git"
        await asyncio.to_thread(remove_tree, folder)
        top = self._layout.workspace
        for _ in repository.prefix.split("/") if repository is not None and repository.prefix else ():
            top = top.parent
        snapshots = SnapshotRepository(
            git,
            folder,
            top,
            folder / "objects",
            alternates=(repository.objects,) if repository is not None else (),
            settings=(repository.settings if repository is not None else {}) | self._settings,
            nested="skip" if repository is not None else "include",
        )
        if repository is None:
            await snapshots.create("sha1")
            await snapshots.stage()
            tree = await snapshots.write_tree()
            self._base = await snapshots.commit_tree(tree, "", "As found\n", _BASE_AUTHOR)
        else:
            await snapshots.create(repository.object_format, repository.excludes())
            self._base = repository.head or await snapshots.empty_tree()
            await snapshots.read(self._base)
        self._snapshots = snapshots
