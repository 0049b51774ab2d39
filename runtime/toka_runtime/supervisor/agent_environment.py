"""What an agent's tool processes see of the world: an environment built from nothing."""

from __future__ import annotations

import os
from pathlib import Path

from toka_runtime.protocol.spec import AgentSpec
from toka_runtime.supervisor.git import Author, config_environment
from toka_runtime.supervisor.text import one_line, safe_component

_GIT_SETTINGS = {
    # Under confinement an agent may run as another user than the folder's owner.
    "safe.directory": "*",
    "commit.gpgSign": "false",
    # No housekeeping in the background of the operator's repository.
    "gc.auto": "0",
    "maintenance.auto": "false",
    # The runtime tells an agent's own commits from foreign ones by the reflog of its worktree.
    "core.logAllRefUpdates": "true",
}


def author_of(spec: AgentSpec) -> Author:
    """The agent's author line: its title or name, at an address that can never be delivered to."""
    name = "".join(c for c in one_line(spec.title or spec.name, 100) if c not in "<>").strip(" .,:;\"'\\")
    return Author(name or safe_component(spec.name), f"{safe_component(spec.name)}@agents.toka.invalid")


def make_scratch(folder: Path) -> None:
    """Private `home` and `tmp` below `folder`, kept over restarts."""
    for name in ("home", "tmp"):
        (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)


def agent_environment(spec: AgentSpec, scratch: Path) -> dict[str, str]:
    """Of the operator's own environment only PATH is passed on."""
    author = author_of(spec)
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(scratch / "home"),
        "TMPDIR": str(scratch / "tmp"),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "NO_COLOR": "1",
        "PAGER": "cat",
        "GIT_PAGER": "cat",
        "GIT_EDITOR": "true",
        "GIT_TERMINAL_PROMPT": "0",
        # The git folder is the runtime's to write: a `git status` must not try, and be refused.
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_AUTHOR_NAME": author.name,
        "GIT_AUTHOR_EMAIL": author.email,
        "GIT_COMMITTER_NAME": author.name,
        "GIT_COMMITTER_EMAIL": author.email,
    } | config_environment(_GIT_SETTINGS)
