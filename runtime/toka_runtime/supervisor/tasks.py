"""One task of one run: attempts with back-off, then the proof. The agent's word is a claim, a verify command proves."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from toka_runtime.errors import ProtocolError
from toka_runtime.protocol.events import Stream, TaskStateChanged, Verified
from toka_runtime.protocol.ids import CallId
from toka_runtime.protocol.spec import AgentSpec, TaskSpec, Verify
from toka_runtime.protocol.states import TaskState, Verdict
from toka_runtime.sandbox.plan import AgentProcess
from toka_runtime.supervisor.deadline import DeadlineExceeded, PauseGate, elapse, within
from toka_runtime.supervisor.journal import Interrupted
from toka_runtime.supervisor.prompt import EVIDENCE, EVIDENCE_CHARS, TaskResult, task_prompt
from toka_runtime.supervisor.services import RunVoice
from toka_runtime.supervisor.session import AttemptResult, WorkerSession
from toka_runtime.supervisor.verify import run_verification

FINAL = frozenset({"model.credential_missing", "model.refused", "model.recording_miss"})
"""Codes that another attempt cannot change."""


@dataclass(frozen=True, slots=True)
class TaskEnd:
    result: TaskResult
    ok: bool
    code: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TaskScene:
    """What the tasks of one run share."""

    voice: RunVoice
    spec: AgentSpec
    session: WorkerSession
    process: AgentProcess
    gate: PauseGate
    tasks: tuple[TaskSpec, ...]
    root: str
    environment: dict[str, str]
    jitter: Callable[[], float] = random.random


async def run_task(
    scene: TaskScene, index: int, earlier: Sequence[TaskResult], cut_off: Interrupted | None = None
) -> TaskEnd:
    """Attempts until it is done, proven wrong for good, or out of attempts. `cut_off`: the attempt to go on with.
    Raises what ends the whole run: WorkerDied, StoreError, cancellation."""
    limits = scene.voice.services.options.loop
    task = scene.tasks[index]
    failure = cut_off.failure if cut_off else ""
    first = min(cut_off.attempt, limits.task_attempts) if cut_off else 1
    end = TaskEnd(TaskResult(index, task.description, Verdict.FAILED, ""), ok=False)
    attempt = first
    for attempt in range(first, limits.task_attempts + 1):
        if attempt > first:
            delay = min(limits.retry_backoff_cap_s, limits.retry_backoff_s * 2 ** (attempt - 2))
            delay *= 0.5 + scene.jitter() / 2
            await _say(scene, index, TaskState.RETRYING, attempt=attempt, detail=f"again in {delay:.1f} s: {failure}")
            await elapse(delay, scene.gate, scene.voice.services.clock)
        await _say(scene, index, TaskState.RUNNING, attempt=attempt)
        end = await _attempt(scene, index, attempt, earlier, failure, cut_off if attempt == first else None)
        if end.ok:
            await _say(
                scene,
                index,
                TaskState.DONE,
                attempt=attempt,
                verdict=end.result.verdict,
                detail=end.result.summary,
                evidence=tuple(item[:EVIDENCE_CHARS] for item in end.result.evidence[:EVIDENCE]),
            )
            return end
        failure = end.detail
        if end.code in FINAL:
            break
    await _say(scene, index, TaskState.FAILED, attempt=attempt, verdict=Verdict.FAILED, detail=end.detail)
    return end


async def _attempt(
    scene: TaskScene,
    index: int,
    attempt: int,
    earlier: Sequence[TaskResult],
    failure: str,
    cut_off: Interrupted | None,
) -> TaskEnd:
    if cut_off is not None and cut_off.said is not None:
        # The agent had ended it; only the proof was cut off.
        return await _judge(scene, index, attempt, cut_off.said)
    services = scene.voice.services
    task = scene.tasks[index]
    prompt = task_prompt(
        scene.spec, task, index, len(scene.tasks), earlier, sorted(services.options.enable), failure=failure
    )
    history = list(cut_off.history) if cut_off is not None else []
    work = scene.session.attempt(index, attempt, prompt, history)
    try:
        said = await within(work, task.timeout_s, scene.gate, services.clock)
    except DeadlineExceeded:
        await scene.session.cancel(index, services.options.loop.cancel_timeout_s)
        said = AttemptResult("failed", code="task.timeout", message=f"the task's {task.timeout_s:g} s are over")
    except ProtocolError as error:
        await scene.session.cancel(index, services.options.loop.cancel_timeout_s)
        said = AttemptResult("failed", code=error.code, message=error.message)
    return await _judge(scene, index, attempt, said)


async def _judge(scene: TaskScene, index: int, attempt: int, said: AttemptResult) -> TaskEnd:
    """Order of proof: the verify command, then the typed `finish`. Words are never judged."""
    task = scene.tasks[index]

    def end(verdict: Verdict, *, ok: bool, detail: str = "", code: str = "") -> TaskEnd:
        result = TaskResult(index, task.description, verdict, said.summary, said.evidence)
        return TaskEnd(result, ok=ok, code=code, detail=detail)

    if said.outcome == "finished" and said.status in {"blocked", "failed"}:
        return end(
            Verdict.FAILED, ok=False, code=f"task.{said.status}", detail=f"agent says {said.status}: {said.summary}"
        )
    if said.outcome in {"failed", "cancelled"}:
        return end(Verdict.FAILED, ok=False, code=said.code, detail=f"{said.code}: {said.message}")
    if task.verify is None:
        if said.outcome == "finished":
            return end(Verdict.CLAIMED, ok=True)
        return end(Verdict.FAILED, ok=False, code="task.unfinished", detail="it ended without calling finish")
    await _say(scene, index, TaskState.VERIFYING, attempt=attempt, detail=task.verify.text)
    call = CallId(f"v{index + 1}.{attempt}")
    verified = await prove(scene, task.verify, subject=f"task {index + 1}", task=index, call=call)
    if verified.verdict is Verdict.FAILED:
        return end(
            Verdict.FAILED,
            ok=False,
            code="task.verify_failed",
            detail=f"`{verified.command}` ended with {verified.exit_code}: {verified.output_tail[-500:]}",
        )
    return end(verified.verdict, ok=True)


async def prove(
    scene: TaskScene,
    verify: Verify,
    *,
    subject: str,
    call: CallId,
    task: int | None = None,
    objective: int | None = None,
) -> Verified:
    """Run a verify command as the runtime's own act, its output live, and record what came of it."""
    voice = scene.voice

    def show(stream: str, data: bytes) -> None:
        at = -1 if task is None else task
        voice.services.output.append(voice.agent, voice.run, Stream(stream), data, task=at, call=call)

    verified = await run_verification(
        verify,
        runner=scene.process,
        root=scene.root,
        environment=scene.environment,
        subject=subject,
        task=task,
        objective=objective,
        call=call,
        clock=voice.services.clock,
        on_output=show,
    )
    await voice.emit(verified)
    return verified


async def _say(
    scene: TaskScene,
    index: int,
    after: TaskState,
    *,
    attempt: int = 1,
    verdict: Verdict = Verdict.NONE,
    detail: str = "",
    evidence: tuple[str, ...] = (),
) -> None:
    await scene.voice.emit(
        TaskStateChanged(
            task=index,
            total=len(scene.tasks),
            after=after,
            verdict=verdict,
            attempt=attempt,
            detail=detail,
            evidence=evidence,
        )
    )
    scene.voice.services.wake()
