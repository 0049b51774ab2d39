"""What a prepared workspace is, and what each of its three modes can do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from toka_runtime.protocol.events import WorkCommitted
from toka_runtime.protocol.ids import AgentName, RunId
from toka_runtime.protocol.spec import AgentSpec

ModeName = Literal["worktree", "copy", "in-place"]


@dataclass(frozen=True, slots=True)
class AgentWorkspace:
    """The folder that one run of an agent works in."""

    agent: AgentName
    run: RunId
    mode: ModeName
    path: Path
    """Absolute. Where the agent works; below the top of its worktree when the workspace is below the top of a
    repository."""
    scratch: Path
    """Private `home` and `tmp` of the agent, outside of `path`; the environment points there."""
    environment: dict[str, str]
    """The whole environment of its tool processes, built from nothing. Git run with it works in `path`."""
    branch: str = ""
    base_commit: str = ""
    """What `diff` compares with; "" without git."""
    git_paths: tuple[Path, ...] = ()
    """Folders outside of `path` that git needs when the agent runs it: its own administrative folder and the
    repository's. Writing to the latter is authority over the operator's repository."""
    notes: tuple[str, ...] = ()
    """What the operator should know about this folder, a sentence each."""


class Mode(Protocol):
    """One way of giving each agent a folder. Every method raises WorkspaceError."""

    async def prepare(self, spec: AgentSpec, run: RunId) -> AgentWorkspace: ...

    async def commit(self, spec: AgentSpec, task: int, detail: str) -> WorkCommitted | None: ...

    async def diff(self, agent: AgentName, max_bytes: int) -> tuple[str, bool]: ...

    async def release(self, agent: AgentName, *, remove: bool) -> None: ...
