"""Identities of rows. They outlive any order on screen: a cursor, a mark and a pending command hold one of these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from toka_runtime.protocol.ids import AgentName, ApprovalId, GrantId, HostId


class AgentKey(NamedTuple):
    """Names are unique on a host."""

    host: HostId
    name: AgentName


class RowKey(NamedTuple):
    """A row of the Fleet: an agent, or a spec file that could not become one."""

    kind: Literal["agent", "rejected"]
    host: HostId
    name: str
    """Agent name, or the file."""

    @property
    def agent(self) -> AgentKey | None:
        return AgentKey(self.host, self.name) if self.kind == "agent" else None  # type: ignore[arg-type] # NewType of str


class DenialKey(NamedTuple):
    serial: int


class ApprovalKey(NamedTuple):
    """A request that waits for an operator."""

    agent: AgentKey
    id: ApprovalId


class GrantKey(NamedTuple):
    agent: AgentKey
    id: GrantId
