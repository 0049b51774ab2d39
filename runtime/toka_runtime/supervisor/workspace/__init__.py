"""Gives each agent a folder to work in, and shows the operator what changed there.

A git repository: each agent gets a linked worktree on its own branch. Any other folder: a copy. On request: the folder
itself. Prepared folders stay when a run ends, so that work can be read, merged and continued.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from toka_runtime.errors import WorkspaceError
from toka_runtime.protocol.events import WorkCommitted
from toka_runtime.protocol.ids import AgentName, RunId
from toka_runtime.protocol.spec import AgentSpec
from toka_runtime.supervisor.workspace.base import AgentWorkspace, Mode
from toka_runtime.supervisor.workspace.copy_mode import CopyMode
from toka_runtime.supervisor.workspace.copying import CopyLimits, measure
from toka_runtime.supervisor.workspace.facts import ModeChoice, check_folder, look, operator_excludes
from toka_runtime.supervisor.workspace.in_place_mode import InPlaceMode
from toka_runtime.supervisor.workspace.layout import Layout
from toka_runtime.supervisor.workspace.worktree_mode import WorktreeMode

__all__ = ["AgentWorkspace", "CopyLimits", "Workspaces"]


class Workspaces:
    """The folders of all agents of one runtime, whose state folder nobody else uses.

    Every method raises WorkspaceError with a hint; nothing of the operator's is changed by a call that failed.
    """

    def __init__(
        self, workspace: Path, state_dir: Path, *, mode: ModeChoice = "auto", limits: CopyLimits | None = None
    ) -> None:
        self._layout = Layout(workspace.absolute().resolve(), state_dir.absolute().resolve())
        self._choice: ModeChoice = mode
        self._limits = limits or CopyLimits()
        self._mode: Mode | None = None
        self._checking = asyncio.Lock()

    async def check(self) -> None:
        """Everything that can be known to be wrong before an agent starts. Creates the state folder."""
        async with self._checking, _errors("workspace"):
            await self._check()

    async def prepare(self, spec: AgentSpec, run: RunId) -> AgentWorkspace:
        """The agent's folder for this run: a new one, or the one of its last run with all that is in it."""
        mode = await self._checked()
        async with _errors(f"workspace of {spec.name}"):
            return await mode.prepare(spec, run)

    async def commit(self, spec: AgentSpec, task: int, detail: str) -> WorkCommitted | None:
        """Commit what changed since the last call, under the agent's author line; `task` counts from 0, `detail`
        becomes the message. None when nothing changed, and always for in-place. Call it while the agent does not
        write: its processes waiting or stopped."""
        mode = await self._checked()
        async with _errors(f"work of {spec.name}"):
            return await mode.commit(spec, task, detail)

    async def diff(self, agent: AgentName, max_bytes: int = 1_000_000) -> tuple[str, bool]:
        """A patch from the base to what lies in the agent's folder now, committed or not, and whether it was cut at
        `max_bytes`. The text holds what the agent wrote: clean it before it reaches a terminal."""
        mode = await self._checked()
        async with _errors(f"diff of {agent}"):
            return await mode.diff(agent, max_bytes)

    async def release(self, agent: AgentName, *, remove: bool = False) -> None:
        """The agent's run is over. Its folder stays, unless `remove`: then it goes, and its branch stays. A worktree
        that holds work in no commit is not removed."""
        mode = await self._checked()
        async with _errors(f"workspace of {agent}"):
            await mode.release(agent, remove=remove)

    async def _checked(self) -> Mode:
        if self._mode is None:
            await self.check()
        if self._mode is None:
            raise WorkspaceError("the workspace could not be checked")
        return self._mode

    async def _check(self) -> None:
        if self._mode is not None:
            return
        layout = self._layout
        check_folder(layout.workspace, layout.state_dir)
        facts = await look(layout.workspace, self._choice)
        settings = await operator_excludes(facts.git) if facts.git is not None else {}
        if self._choice == "in-place":
            mode: Mode = InPlaceMode(layout, facts, settings, self._limits)
        elif facts.git is not None and facts.repository is not None:
            mode = WorktreeMode(layout, facts.git, facts.repository, settings)
        else:
            await asyncio.to_thread(measure, layout.workspace, layout.state_dir, self._limits)
            mode = CopyMode(layout, facts.git, settings, self._limits)
        layout.create()
        self._mode = mode


@asynccontextmanager
async def _errors(what: str) -> AsyncGenerator[None]:
    """What the operating system says, said as an error of the workspace."""
    try:
        yield
    except OSError as error:
        raise WorkspaceError(f"{what}: {error}", hint="check permissions and free space") from error
