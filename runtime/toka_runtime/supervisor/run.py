"""What a run does between its process's birth and its end: say hello, do the tasks, commit, prove the objectives."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from toka_runtime.broker.approvals import ApprovalDesk
from toka_runtime.broker.definitions import TOOLS
from toka_runtime.broker.gate import Gate
from toka_runtime.broker.operations import tool_schemas
from toka_runtime.broker.proxy import EgressProxy, proxy_environment
from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.events import Stream, TaskStateChanged
from toka_runtime.protocol.ids import CallId
from toka_runtime.protocol.spec import AgentSpec
from toka_runtime.protocol.states import StopReason, TaskState, Verdict
from toka_runtime.sandbox.plan import AgentProcess
from toka_runtime.sandbox.toolchains import tool_environment
from toka_runtime.supervisor.deadline import FreezableClock, PauseGate, within
from toka_runtime.supervisor.journal import FRESH, Beginning
from toka_runtime.supervisor.model_calls import ModelCalls, OnBudget
from toka_runtime.supervisor.prompt import system_prompt
from toka_runtime.supervisor.services import RunVoice
from toka_runtime.supervisor.session import WorkerDied, WorkerSession
from toka_runtime.supervisor.steps import Steps
from toka_runtime.supervisor.tasks import TaskEnd, TaskScene, prove, run_task
from toka_runtime.supervisor.workspace import AgentWorkspace

Narrow = Callable[[Rights, str], Awaitable[None]]
"""Takes rights away while a run goes on: (what is left, what is gone)."""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    ok: bool
    reason: StopReason
    detail: str
    verified: bool = False
    """At least one check was declared, and all that were have passed."""


async def perform(
    voice: RunVoice,
    spec: AgentSpec,
    rights: Rights,
    process: AgentProcess,
    workspace: AgentWorkspace,
    pause_gate: PauseGate,
    *,
    asks: bool,
    on_ready: Callable[[ApprovalDesk | None, Narrow], Awaitable[None]],
    on_budget: OnBudget,
    steps: Steps,
    begin: Beginning = FRESH,
) -> RunOutcome:
    """`asks`: what lies beyond the rights is put before an operator. `on_ready`: its work begins; with what takes
    rights away while it goes on. `begin`: what an earlier run has done already.

    Raises what ends a run at once: WorkerDied, StoreError, ProtocolError, DeadlineExceeded, cancellation."""
    services = voice.services
    options = services.options
    tasks = spec.enabled_tasks(options.enable)
    rights = asking_rights(rights) if asks else rights
    system = system_prompt(spec, rights, workspace)
    tools = tool_schemas(rights)
    root = str(workspace.path)
    # The names that the spec may see, then what is made for the agent: that wins.
    visible = {name: os.environ[name] for name in rights.environment if name in os.environ}
    found = tool_environment(rights, workspace.environment)
    environment = visible | workspace.environment | found | _way_out(process)

    def output(stream: Stream, text: str, task: int, turn: int, call: CallId) -> None:
        services.output.append(voice.agent, voice.run, stream, text, task=task, turn=turn, call=call)

    async def narrowed() -> None:
        await proxy.recheck()

    desk = _desk(voice, pause_gate, narrowed) if asks else None
    gate = Gate(
        root=workspace.path,
        rights=rights,
        runner=process,
        catalogue=services.catalogue,
        emit=voice.emit,
        output=output,
        clock=services.clock,
        environment=environment,
        redact=services.redactor.text,
        timeout_s=options.loop.tool_timeout_s,
        approvals=desk,
    )
    proxy = EgressProxy(
        rights=lambda: gate.rights_of_programs,
        catalogue=services.catalogue,
        emit=voice.emit,
        clock=services.clock,
        limits=spec.security.limits,
        redact=services.redactor.text,
        on_failure=services.on_failure,
    )
    calls = ModelCalls(
        voice,
        spec,
        rights,
        pause_gate,
        system=system,
        tools=tools,
        descriptions=tuple(task.description for task in tasks),
        folder=root,
        on_budget=on_budget,
    )
    session = WorkerSession(voice, process, gate, calls, steps)
    hello = session.hello(system=system, tools=tools, model=spec.model, limits=options.loop)
    async with AsyncExitStack() as closing:
        closing.push_async_callback(gate.flush)
        closing.push_async_callback(proxy.aclose)
        if desk is not None:
            closing.push_async_callback(desk.aclose)
        if process.listener is not None:
            await proxy.serve(process.listener)
        await within(hello, options.loop.ready_timeout_s, pause_gate, services.clock)

        async def narrow(less: Rights, why: str) -> None:
            await gate.narrow(asking_rights(less) if asks else less, why)
            await proxy.recheck()

        await on_ready(desk, narrow)
        scene = TaskScene(voice, spec, session, process, pause_gate, tasks, root, environment)
        ends = await _tasks(scene, desk, begin)
        verdicts = await _objectives(scene, begin.objectives) if all(end.ok for end in ends) else ()
        outcome = _outcome(ends, verdicts)
        await session.goodbye()
    return outcome


def asking_rights(rights: Rights) -> Rights:
    """The same rights, with every tool offered: what a call would do beyond them, an operator is asked about."""
    line = "anything else in your folder, other programs and hosts: an operator is asked first, and the call waits"
    return rights.model_copy(update={"tools": tuple(TOOLS), "text": (*rights.text, line)})


def _desk(voice: RunVoice, gate: PauseGate, narrowed: Callable[[], Awaitable[None]]) -> ApprovalDesk:
    services = voice.services
    return ApprovalDesk(
        agent=voice.agent,
        run=voice.run,
        emit=voice.emit,
        clock=services.clock,
        run_clock=FreezableClock(gate, services.clock),
        narrowed=narrowed,
        redact=services.redactor.text,
        wait_s=services.options.approval_wait_s,
    )


def _way_out(process: AgentProcess) -> dict[str, str]:
    """What tells the programs of a confined agent where the network begins."""
    if process.listener is None:
        return {}
    return proxy_environment(process.listener)


async def _tasks(scene: TaskScene, desk: ApprovalDesk | None, begin: Beginning) -> list[TaskEnd]:
    results = list(begin.results)
    ends = [TaskEnd(result, ok=True) for result in results]
    for index in range(len(results), len(scene.tasks)):
        if ends and not ends[-1].ok:
            detail = f"task {len(ends)} failed"
            await scene.voice.emit(
                TaskStateChanged(task=index, total=len(scene.tasks), after=TaskState.SKIPPED, detail=detail)
            )
            continue
        end = await run_task(scene, index, results, begin.cut_off if index == len(begin.results) else None)
        if desk is not None:
            await desk.end_task(index)
        ends.append(end)
        results.append(end.result)
        committed = await scene.voice.services.workspaces.commit(scene.spec, index, end.result.summary)
        if committed is not None:
            await scene.voice.emit(committed)
    return ends


async def _objectives(scene: TaskScene, known: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """Run the verify commands of the objectives; objectives without one stay claims. `known`: verdicts of the run that
    this one goes on with."""
    verdicts: list[Verdict] = []
    for index, objective in enumerate(scene.spec.objectives):
        if objective.verify is None:
            continue
        if index < len(known) and known[index] is not Verdict.NONE:
            verdicts.append(known[index])
            continue
        subject, call = f"objective {index + 1}", CallId(f"o{index + 1}")
        verified = await prove(scene, objective.verify, subject=subject, objective=index, call=call)
        verdicts.append(verified.verdict)
    return tuple(verdicts)


def _outcome(ends: list[TaskEnd], objectives: tuple[Verdict, ...]) -> RunOutcome:
    failed = next((end for end in ends if not end.ok), None)
    if failed is not None:
        model = failed.code.startswith("model.")
        reason = StopReason.LLM_FAILED if model else StopReason.TASK_FAILED
        if failed.code == WorkerDied.code:
            reason = StopReason.WORKER_DIED
        return RunOutcome(False, reason, f"task {failed.result.index + 1}: {failed.detail}")
    if Verdict.FAILED in objectives:
        return RunOutcome(False, StopReason.TASK_FAILED, "an objective's verify command failed")
    verdicts = [end.result.verdict for end in ends]
    counts = ", ".join(
        f"{verdicts.count(verdict)} {verdict}"
        for verdict in (Verdict.VERIFIED, Verdict.CLAIMED, Verdict.INCONCLUSIVE)
        if verdict in verdicts
    )
    detail = f"tasks: {counts}" if counts else "no task"
    return RunOutcome(True, StopReason.NONE, detail, all_verified(verdicts, objectives))


def all_verified(tasks: Iterable[Verdict], objectives: Iterable[Verdict]) -> bool:
    """At least one check was declared, and all that were have passed."""
    checked = {verdict for verdict in tasks if verdict is not Verdict.CLAIMED}
    checked |= {verdict for verdict in objectives if verdict is not Verdict.NONE}
    return checked == {Verdict.VERIFIED}
