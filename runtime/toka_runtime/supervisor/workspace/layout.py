"""Where the folders of agents lie below the state folder. Each workspace has its own set, so that fleets with equal
names on different workspaces may share a state folder."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from toka_runtime.supervisor.text import safe_component
from toka_runtime.supervisor.workspace.folders import write_atomically


@dataclass(frozen=True, slots=True)
class Layout:
    """`workspace` and `state_dir` are absolute and resolved."""

    workspace: Path
    state_dir: Path

    @property
    def workspace_id(self) -> str:
        digest = hashlib.sha256(os.fsencode(self.workspace)).hexdigest()[:8]
        return f"{safe_component(self.workspace.name or 'root')[:40]}-{digest}"

    def worktree(self, agent: str) -> Path:
        return self._of("worktrees", agent)

    def copy(self, agent: str) -> Path:
        return self._of("copies", agent)

    def snapshot(self, agent: str) -> Path:
        """Holds `git/`, the runtime's own git folder over the agent's files, and `record.json`."""
        return self._of("snapshots", agent)

    def scratch(self, agent: str) -> Path:
        return self._of("scratch", agent)

    def _of(self, kind: str, agent: str) -> Path:
        return self.state_dir / kind / self.workspace_id / safe_component(agent)

    def create(self) -> None:
        """Make the state folder. Inside the workspace, git is told to look away from it."""
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.state_dir.is_relative_to(self.workspace):
            ignore = self.state_dir / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", encoding="utf-8")


@dataclass(slots=True)
class Record:
    """What a later runtime must know of one agent's folder. Written before the folder is begun and when it is ready."""

    status: Literal["creating", "ready"]
    branch: str = ""
    base: str = ""
    last: str = ""
    """The newest commit that the runtime has seen or made there."""

    @staticmethod
    def load(folder: Path) -> Record | None:
        """None when there is none, or it cannot be read."""
        try:
            found: Any = json.loads((folder / "record.json").read_bytes())
            return Record(**{field.name: found[field.name] for field in fields(Record)})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, folder: Path) -> None:
        write_atomically(folder / "record.json", json.dumps(asdict(self)).encode())
