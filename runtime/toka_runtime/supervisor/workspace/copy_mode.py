"""Each agent in its own copy of a plain folder. A private repository in the state folder holds what the copy was, and
a commit for each task, so that the operator can read what changed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from toka_runtime.errors import WorkspaceError
from toka_runtime.protocol.events import WorkCommitted
from toka_runtime.protocol.ids import AgentName, RunId
from toka_runtime.protocol.spec import AgentSpec
from toka_runtime.supervisor.agent_environment import agent_environment, author_of, make_scratch
from toka_runtime.supervisor.git import Author, Git
from toka_runtime.supervisor.workspace.base import AgentWorkspace
from toka_runtime.supervisor.workspace.copying import CopyLimits, CopyReport, copy_folder
from toka_runtime.supervisor.workspace.folders import remove_tree
from toka_runtime.supervisor.workspace.layout import Layout, Record
from toka_runtime.supervisor.workspace.message import commit_message
from toka_runtime.supervisor.workspace.plain_diff import plain_diff
from toka_runtime.supervisor.workspace.snapshots import SnapshotRepository

_REF = "refs/heads/work"
_BASE_AUTHOR = Author("Toka runtime", "runtime@agents.toka.invalid")


@dataclass(slots=True)
class _Place:
    tree: Path
    folder: Path
    snapshots: SnapshotRepository | None
    """None: no git on this host."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    run: RunId | None = None


class CopyMode:
    def __init__(self, layout: Layout, git: Git | None, settings: dict[str, str], limits: CopyLimits) -> None:
        self._layout = layout
        self._git = git
        self._settings = settings
        self._limits = limits
        self._places: dict[AgentName, _Place] = {}

    async def prepare(self, spec: AgentSpec, run: RunId) -> AgentWorkspace:
        place = self._place(spec.name)
        async with place.lock:
            place.run = run
            record = Record.load(place.folder)
            notes: list[str] = []
            if record is None or record.status != "ready" or not place.tree.is_dir():
                record, notes = await self._begin(place)
            elif place.snapshots is not None:
                await place.snapshots.create("sha1")
        scratch = self._layout.scratch(spec.name)
        make_scratch(scratch)
        return AgentWorkspace(
            agent=spec.name,
            run=run,
            mode="copy",
            path=place.tree,
            scratch=scratch,
            environment=agent_environment(spec, scratch),
            base_commit=record.base,
            notes=tuple(notes),
        )

    async def commit(self, spec: AgentSpec, task: int, detail: str) -> WorkCommitted | None:
        place = self._place(spec.name)
        if place.snapshots is None:
            return None
        async with place.lock:
            record = self._record(spec.name, place)
            await place.snapshots.stage()
            tree = await place.snapshots.write_tree()
            if tree == await place.snapshots.tree_of(record.last):
                return None
            message = commit_message(spec, task, detail, place.run)
            commit = await place.snapshots.commit_tree(tree, record.last, message, author_of(spec))
            await place.snapshots.set_ref(_REF, commit)
            stat = await place.snapshots.stat(record.last, commit)
            record.last = commit
            record.save(place.folder)
        return WorkCommitted(
            task=task, commit=commit, files=stat.files, insertions=stat.insertions, deletions=stat.deletions
        )

    async def diff(self, agent: AgentName, max_bytes: int) -> tuple[str, bool]:
        place = self._place(agent)
        record = self._record(agent, place)
        if place.snapshots is not None:
            return await place.snapshots.diff(record.base, max_bytes)
        # Without git: against the workspace as it is now, which the operator may have changed since.
        exclude = self._layout.state_dir
        return await asyncio.to_thread(plain_diff, self._layout.workspace, place.tree, exclude, max_bytes)

    async def release(self, agent: AgentName, *, remove: bool) -> None:
        place = self._place(agent)
        if not remove:
            return
        async with place.lock:
            for folder in (place.folder, place.tree):
                await asyncio.to_thread(remove_tree, folder)

    async def _begin(self, place: _Place) -> tuple[Record, list[str]]:
        """Copy, and keep what was copied. What a killed runtime had begun is begun again."""
        record = Record.load(place.folder)
        notes: list[str] = []
        if record is None and place.tree.exists():
            number = 1
            while (aside := place.tree.with_name(f"{place.tree.name}.left-{number}")).exists():
                number += 1
            place.tree.rename(aside)
            notes.append(f"files of an unknown earlier run were moved to {aside}")
        record = Record("creating")
        record.save(place.folder)
        await asyncio.to_thread(remove_tree, place.tree)
        layout = self._layout
        report = await copy_folder(layout.workspace, place.tree, layout.state_dir, self._limits)
        if place.snapshots is not None:
            await asyncio.to_thread(remove_tree, place.snapshots.git_dir)
            await place.snapshots.create("sha1")
            await place.snapshots.stage()
            tree = await place.snapshots.write_tree()
            record.base = await place.snapshots.commit_tree(tree, "", "As copied\n", _BASE_AUTHOR)
            record.last = record.base
            await place.snapshots.set_ref(_REF, record.base)
        record.status = "ready"
        record.save(place.folder)
        return record, [*notes, *_skipped(report)]

    def _place(self, agent: AgentName) -> _Place:
        place = self._places.get(agent)
        if place is None:
            folder, tree = self._layout.snapshot(agent), self._layout.copy(agent)
            snapshots = None
            if self._git is not None:
                objects = folder / "git/objects"
                snapshots = SnapshotRepository(
                    self._git, folder / "git", tree, objects, settings=self._settings, nested="include"
                )
            place = self._places[agent] = _Place(tree, folder, snapshots)
        return place

    def _record(self, agent: AgentName, place: _Place) -> Record:
        record = Record.load(place.folder)
        if record is None or record.status != "ready" or not place.tree.is_dir():
            raise WorkspaceError(f"agent {agent} has no copy of the workspace", hint="it gets one when it is started")
        return record


def _skipped(report: CopyReport) -> list[str]:
    if not report.skipped:
        return []
    more = f" and {report.skipped - 1:,} more" if report.skipped > 1 else ""
    return [f"not copied (not readable, or a pipe, socket or device): {report.first_skipped}{more}"]
