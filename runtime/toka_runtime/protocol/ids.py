"""Names of things. An agent's identity for a command is `RunRef`: it never goes to a reused name or pid."""

from __future__ import annotations

import secrets
from typing import NewType

from toka_runtime.protocol.model import Model

AgentName = NewType("AgentName", str)
"""Slug from `metadata.name`; unique in a fleet on one host."""
RunId = NewType("RunId", str)
"""One attempt of one agent: sortable by start within a runtime is not promised, unique is."""
HostId = NewType("HostId", str)
CallId = NewType("CallId", str)
"""One tool call or one model call within a run."""
CommandId = NewType("CommandId", str)
ApprovalId = NewType("ApprovalId", str)
GrantId = NewType("GrantId", str)


def new_run_id() -> RunId:
    return RunId("r" + secrets.token_hex(5))


def new_approval_id() -> ApprovalId:
    return ApprovalId("a" + secrets.token_hex(5))


def new_grant_id() -> GrantId:
    return GrantId("g" + secrets.token_hex(5))


def new_command_id(console: str = "") -> CommandId:
    return CommandId(f"{console or 'c'}:{secrets.token_hex(6)}")


class ProcessRef(Model):
    """A process that cannot be confused with a later one of the same pid."""

    pid: int
    started_ticks: int
    """Field 22 of /proc/PID/stat: clock ticks since boot."""


class RunRef(Model):
    """What a key press freezes: the command goes to this run of this agent on this host, or is refused."""

    host: HostId
    agent: AgentName
    run: RunId | None = None
    process: ProcessRef | None = None
