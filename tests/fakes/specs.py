"""Small agent specs, for tests that need one and not its file."""

from __future__ import annotations

from typing import Any

from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.spec import AgentSpec, TaskSpec


def agent_spec(name: str = "scribe", **fields: Any) -> AgentSpec:
    fields.setdefault("title", f"{name.capitalize()} Agent")
    fields.setdefault("tasks", (TaskSpec(description="Write the first page"), TaskSpec(description="Read it again")))
    return AgentSpec(name=AgentName(name), **fields)
