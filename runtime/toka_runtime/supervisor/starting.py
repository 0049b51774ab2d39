"""From a spec to a process: the agent's folder, the plan of its walls, and their making."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from toka_runtime.errors import SandboxUnavailable
from toka_runtime.protocol.capability import PathRule, Rights
from toka_runtime.protocol.events import Event, Level, Noticed, ProtectionsInForce, WorkspaceReady
from toka_runtime.protocol.spec import AgentSpec, SandboxMode
from toka_runtime.sandbox.in_force import protections_in_force
from toka_runtime.sandbox.plan import AgentProcess, SandboxPlan
from toka_runtime.supervisor.services import RunVoice, Services
from toka_runtime.supervisor.workspace import AgentWorkspace


async def prepare(
    voice: RunVoice, spec: AgentSpec, rights: Rights, *, asks: bool
) -> tuple[AgentWorkspace, SandboxPlan]:
    """`asks`: operators may open more of the folder while it runs. Raises WorkspaceError, StoreError."""
    workspace = await voice.services.workspaces.prepare(spec, voice.run)
    await voice.emit(
        WorkspaceReady(
            mode=workspace.mode,
            path=str(workspace.path),
            branch=workspace.branch,
            base_commit=workspace.base_commit,
        )
    )
    for note in workspace.notes:
        await voice.emit(Noticed(level=Level.INFO, code="workspace.note", message=note))
    plan = SandboxPlan(
        agent=spec.name,
        run=voice.run,
        root=str(workspace.path),
        rights=rights,
        ceiling=_ceiling(rights) if asks else None,
        limits=spec.security.limits,
        on_limit=spec.security.on_limit,
        mode=spec.security.sandbox,
        environment=workspace.environment,
        scratch=(str(workspace.scratch),),
        readable=tuple(str(path) for path in workspace.git_paths),
        own_folder=workspace.mode != "in-place",
    )
    return workspace, plan


async def launch(voice: RunVoice, spec: AgentSpec, plan: SandboxPlan) -> tuple[AgentProcess, str]:
    """Confined, or as its spec says, with the reason why it is not: never a silent downgrade."""
    launcher = voice.services.launcher
    if plan.mode is SandboxMode.NONE:
        if not voice.services.options.allow_unconfined:
            raise SandboxUnavailable(
                f"{spec.name} asks to run unconfined", hint="allow it with --allow-unconfined, or set sandbox: true"
            )
        return await _launch_unconfined(voice, spec, plan, "its spec says `sandbox: false`")
    await voice.emit(voice.services.guard.in_force(spec, confined=True))
    try:
        return await launcher.launch(plan), ""
    except SandboxUnavailable as error:
        if plan.mode is not SandboxMode.BEST_EFFORT:
            raise
        why = f"`sandbox: best-effort`, and {error.message}"
    return await _launch_unconfined(voice, spec, plan, why)


async def _launch_unconfined(voice: RunVoice, spec: AgentSpec, plan: SandboxPlan, why: str) -> tuple[AgentProcess, str]:
    message = f"{spec.name} runs UNCONFINED, with all rights of its user: {why}"
    await voice.emit(Noticed(level=Level.WARNING, code="sandbox.unconfined", message=message))
    await voice.emit(voice.services.guard.in_force(spec, confined=False))
    process = await voice.services.launcher.launch(plan.model_copy(update={"mode": SandboxMode.NONE}))
    return process, why


async def tell_protections(
    services: Services,
    spec: AgentSpec,
    unconfined: str,
    over: asyncio.Future[None],
    record: Callable[[Event], Awaitable[None]],
) -> None:
    """As soon as the host has been probed, at the latest when the run is `over`: no run waits for it."""
    await asyncio.wait((services.host, over), return_when=asyncio.FIRST_COMPLETED)
    found = services.host.result() if services.host.done() else None
    protections = protections_in_force(found, asked=spec.security.sandbox, unconfined=unconfined)
    await record(ProtectionsInForce(protections=protections))


def _ceiling(rights: Rights) -> Rights:
    """An operator may open any place of its own folder; what is protected there stays so."""
    whole = PathRule(id="ceiling", capability="", glob="**")
    return rights.model_copy(update={"read": (*rights.read, whole), "write": (*rights.write, whole)})
