"""Where a run that was cut off goes on: its finished tasks, and the conversation up to the last complete turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toka_runtime.broker.definitions import FINISH, WITHOUT_EFFECT
from toka_runtime.protocol.ids import RunId
from toka_runtime.protocol.snapshot import AgentView
from toka_runtime.protocol.states import TaskState, Verdict
from toka_runtime.store.transcripts import ToolCall, Transcripts, call_of
from toka_runtime.supervisor.prompt import TaskResult
from toka_runtime.supervisor.session import AttemptResult
from toka_runtime.worker.conversation import call_ids, clean_answer, tool_calls, tool_result

Message = dict[str, Any]

OUTCOME_UNKNOWN = "Outcome unknown: the runtime died during this call. Check the present state before you repeat it."
NOT_BEGUN = "Not run: the runtime died before this call began. Send it again if it is still wanted."
RESULT_LOST = "This call has ended ({outcome}), but its result was lost when the runtime died. It began: {summary}"


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A task attempt that was cut off."""

    attempt: int
    history: tuple[Message, ...] = ()
    """Valid to go on with: every tool call in it has an answer. Empty: the attempt begins anew."""
    failure: str = ""
    """Why the attempt before it failed, when this one had not begun."""
    said: AttemptResult | None = None
    """The agent had called `finish`: only the proof is missing."""
    unknown: tuple[str, ...] = ()
    """Calls with an effect of which nobody knows whether they were done, each as `tool target`."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a run starts from."""

    results: tuple[TaskResult, ...] = ()
    """Of the first tasks, which are not done again."""
    objectives: tuple[Verdict, ...] = ()
    cut_off: Interrupted | None = None
    """The attempt at the task after those."""


FRESH = Beginning()


async def beginning(view: AgentView, transcripts: Transcripts) -> Beginning:
    """Where the agent's newest run was, by the log and its journal. Raises StoreError."""
    results: list[TaskResult] = []
    for index, task in enumerate(view.tasks):
        if task.state is not TaskState.DONE:
            break
        results.append(TaskResult(index, task.description, task.verdict, task.detail, task.evidence))
    cut_off = await _interrupted(view, len(results), transcripts) if len(results) < len(view.tasks) else None
    return Beginning(tuple(results), view.objectives, cut_off)


async def _interrupted(view: AgentView, index: int, transcripts: Transcripts) -> Interrupted | None:
    task = view.tasks[index]
    if task.state is TaskState.RETRYING:
        return Interrupted(task.attempt, failure=task.detail)
    if task.state not in (TaskState.RUNNING, TaskState.VERIFYING):
        return None
    run = await run_on_record(view, transcripts)
    history = await transcripts.conversation(run, index, task.attempt) if run is not None else []
    if run is None or not history:
        return Interrupted(task.attempt)
    calls = await transcripts.calls(run, index, task.attempt)
    return _complete(task.attempt, history, calls, _Told(view))


async def run_on_record(view: AgentView, transcripts: Transcripts) -> RunId | None:
    """The run whose journal is to be gone on with: the newest, or, when that was cut off before it had said anything,
    the one that it was to go on with. Raises StoreError."""
    if view.run is not None and view.resumes is not None and not await transcripts.turns(view.run):
        return view.resumes
    return view.run


class _Told:
    """What the log says of tool calls, by the model's own ids."""

    def __init__(self, view: AgentView) -> None:
        self._actions = {action.call: action for action in view.actions}

    def outcome(self, call: ToolCall) -> str | None:
        """None: not even its start was told, so nothing of it happened."""
        action = self._actions.get(call_of(call.call))
        return None if action is None else action.outcome

    def summary(self, call: ToolCall) -> str:
        return self._actions[call_of(call.call)].summary

    def target(self, call: ToolCall) -> str:
        action = self._actions.get(call_of(call.call))
        return f"{call.tool} {action.target if action else ''}".rstrip()


def _complete(attempt: int, history: Sequence[Message], calls: Sequence[ToolCall], told: _Told) -> Interrupted:
    """The last turn's calls answered by what is known of each. Nothing that was begun is left to be done again."""
    *earlier, last = history
    if last.get("role") != "assistant" or not tool_calls(last.get("content")):
        return Interrupted(attempt, tuple(history))
    # The ids that the worker gave them, as it did when it asked for the calls.
    blocks, _ = clean_answer(last.get("content"), call_ids(earlier))
    asked = {call["id"]: call for call in tool_calls(blocks)}
    answered = call_ids(earlier)
    journal = {call_of(call.call): call for call in calls if call_of(call.call) not in answered}
    stray = [call for identity, call in journal.items() if identity not in asked and not _known(call, told)]
    answers: list[Message] = []
    unknown = [told.target(call) for call in stray if call.tool not in WITHOUT_EFFECT]
    for identity, block in asked.items():
        call = journal.get(identity)
        if call is not None and block["name"] == FINISH and call.result is not None and call.result.get("finish"):
            return Interrupted(attempt, tuple(history), said=_finished(block["input"]))
        if call is None:
            answers.append(tool_result(identity, OUTCOME_UNKNOWN if stray else NOT_BEGUN, is_error=True))
            continue
        answers.append(_answer(identity, call, told))
        if not _known(call, told) and call.tool not in WITHOUT_EFFECT:
            unknown.append(told.target(call))
    complete = (*earlier, {**last, "content": blocks}, {"role": "user", "content": answers})
    return Interrupted(attempt, complete, unknown=tuple(unknown))


def _known(call: ToolCall, told: _Told) -> bool:
    """What became of it. A call that was cut short, and not by itself, may have had any part of its effect."""
    return call.result is not None or told.outcome(call) in (None, "ok", "error", "denied")


def _answer(identity: str, call: ToolCall, told: _Told) -> Message:
    if call.result is not None:
        return tool_result(identity, str(call.result["content"]), is_error=bool(call.result["is_error"]))
    outcome = told.outcome(call)
    if outcome is None:
        return tool_result(identity, NOT_BEGUN, is_error=True)
    if _known(call, told):
        return tool_result(
            identity, RESULT_LOST.format(outcome=outcome, summary=told.summary(call)), is_error=outcome != "ok"
        )
    return tool_result(identity, OUTCOME_UNKNOWN, is_error=True)


def _finished(said: Mapping[str, Any]) -> AttemptResult:
    return AttemptResult(
        outcome="finished",
        status=str(said.get("status", "")),
        summary=str(said.get("summary", "")),
        evidence=tuple(str(item) for item in said.get("evidence", ())),
    )
