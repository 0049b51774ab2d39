"""Real agents that ask, and an operator who answers them, in a scene."""

from __future__ import annotations

from pathlib import Path

from fakes.gateway import Answer, finish, tool_turn
from fakes.scene import Scene, spec
from toka_runtime.llm.base import ModelRequest
from toka_runtime.protocol import commands as cmd
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.approval import ApprovalRequest, GrantScope
from toka_runtime.protocol.fold import fold
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.snapshot import AgentView, FleetState

ASKING = "  approvals: ask\n"
NARROW = (
    "capabilities_required: [filesystem-read, filesystem-write, script-execution]",
    "capabilities_required: [filesystem-read]",
)


def asking(
    name: str = "a", *, security: str = ASKING, tasks: str = "[{description: the work}]", limits: str = ""
) -> str:
    return spec(name, security=security + limits, tasks=tasks).replace(*NARROW)


def write(path: str = "docs/new.md", content: str = "granted\n") -> Answer:
    return tool_turn(("write_file", {"path": path, "content": content}))


class Script:
    """A brain that gives these answers in turn, and then finishes."""

    def __init__(self, *answers: Answer) -> None:
        self.left = list(answers)

    def __call__(self, request: ModelRequest) -> Answer:
        return self.left.pop(0) if self.left else finish()


async def asked(stage: Scene, count: int = 1) -> ApprovalRequest:
    await stage.until(lambda: len(stage.of(ev.ApprovalRequested)) >= count)
    return stage.of(ev.ApprovalRequested)[-1].request


def answer(
    stage: Scene,
    request: ApprovalRequest,
    *,
    allow: bool = True,
    scope: GrantScope = GrantScope.ONCE,
    wide: bool = False,
) -> cmd.DecideApproval:
    return cmd.DecideApproval(
        target=stage.ref(request.agent),
        approval=request.id,
        digest=request.digest,
        allow=allow,
        scope=scope,
        wide=wide,
    )


def view(stage: Scene, name: str = "a") -> AgentView:
    return fold(FleetState(), stage.log).agents[AgentName(name)]


def folder(stage: Scene, name: str = "a") -> Path:
    return Path(stage.of(ev.WorkspaceReady, name)[-1].path)
