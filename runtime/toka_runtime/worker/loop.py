"""The agent loop: asks the model, passes its tool calls on, answers them, until `finish`. Standard library only.

Everything with an effect is a request to the runtime over one socket. Frames, runtime → worker: `hello`, `task`,
`model.result`, `tool.result`, `cancel`, `bye`; worker → runtime: `ready`, `model`, `tool`, `task.done`, `note`.

The runtime mirrors the conversation. At the start of a task the mirror is the task's `history`; a `model` frame says
"keep the first `base` messages, append these", and so does `task.done`, whose `messages` nobody has seen yet.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

from toka_runtime.worker.compaction import compact
from toka_runtime.worker.conversation import (
    Block,
    Conversation,
    call_ids,
    clean_answer,
    resumable,
    text_block,
    tool_calls,
    tool_result,
)
from toka_runtime.worker.frames import Frame, FrameError, FrameSocket

DEFAULT_MAX_TURNS = 100
DEFAULT_CONTEXT_TOKENS = 200_000
FULL = 0.8
"""Share of the context at which it is compacted …"""
ROOMY = 0.5
"""… and the share that is aimed at."""
MAX_NUDGES = 2
"""How often an answer without a tool call is met with a reminder before the task counts as unfinished."""
MAX_CUT_ANSWERS = 3
"""How many answers in a row may end at the output limit."""
MAX_PAUSES = 10
"""How many `pause_turn` in a row are followed."""
LAST_TURNS = 3
"""The model is told when only so many turns are left."""

NUDGE = (
    "You stopped without calling `finish`. If the task is done, call `finish` with status, summary and evidence. "
    "If something blocks you, call `finish` with status blocked and say what. Otherwise go on with the task."
)
EMPTY = "Your last answer was empty. Go on with the task, or call `finish`."
CUT_TEXT = "Your answer reached the output limit and was cut there. Continue exactly where it stopped."
CUT_CALL = (
    "Not run: your answer reached the output limit, so that a call may have been cut. Send it again; "
    "split what is long into several smaller calls."
)
NOT_ASKED = "Not run: the answer did not end with a request for tools (stop reason {reason!r}). Send the call again."
INTERRUPTED = "An operator interrupted your answer. Go on with the task from here."
SKIPPED = "Skipped: the task was finished by an earlier call of the same turn."
CANCELLED_CALL = "The task was cancelled during this call: its outcome is unknown."
CANCELLED_LATER = "Not run: the task was cancelled."

TOO_LONG_CODES = frozenset({"model.prompt_too_long", "model.context_exceeded", "model.context_too_large"})
TOO_LONG_WORDS = ("prompt is too long", "context window", "context limit", "context length", "context size")


class Violation(Exception):
    """The runtime sent what has no place here."""


class Closed(Exception):
    """The runtime said goodbye or is gone."""


class Cancelled(Exception):
    """The task was cancelled."""


class Ended(Exception):
    """The task is over."""

    def __init__(self, outcome: str, code: str = "", message: str = "", finish: Frame | None = None) -> None:
        super().__init__(outcome)
        self.outcome, self.code, self.message, self.finish = outcome, code, message, finish


class Runtime:
    """The other end of the socket."""

    def __init__(self, frames: FrameSocket) -> None:
        self._frames = frames
        self._number = 0

    def send(self, frame: Frame) -> None:
        try:
            self._frames.write(frame)
        except (BrokenPipeError, ConnectionResetError):
            raise Closed from None

    def note(self, level: str, message: str) -> None:
        self.send({"t": "note", "level": level, "message": message})

    def next_task(self, hello: Frame | None) -> tuple[Frame, Frame]:
        """(hello, task); a `cancel` or an answer that comes too late for its task is passed over. Raises Closed."""
        while True:
            frame = self._read()
            match frame.get("t"):
                case "hello":
                    hello = frame
                case "task" if hello is not None:
                    return hello, frame
                case "task":
                    raise Violation("a task came before hello")
                case _:
                    pass

    def ask(self, frame: Frame, reply: str) -> Frame:
        """Send a numbered request and wait for its answer. Raises Cancelled, Closed."""
        self._number += 1
        self.send({**frame, "id": self._number})
        while True:
            answer = self._read_in_task()
            if answer.get("t") == reply and answer.get("id") == self._number:
                return answer

    def check(self) -> None:
        """Look, without waiting, whether the task was cancelled meanwhile."""
        while self._frames.waiting():
            self._read_in_task()

    def _read_in_task(self) -> Frame:
        frame = self._read()
        match frame.get("t"):
            case "cancel":
                raise Cancelled
            case "hello" | "task":
                raise Violation(f"a {frame['t']} came in the middle of a task")
            case _:
                return frame

    def _read(self) -> Frame:
        frame = self._frames.read()
        if frame is None or frame.get("t") == "bye":
            raise Closed
        return frame


class TaskLoop:
    """One attempt at one task."""

    def __init__(self, runtime: Runtime, hello: Frame, frame: Frame) -> None:
        limits: dict[str, Any] = hello.get("limits") or {}
        history = list(frame.get("history") or [])
        self._runtime = runtime
        self._task = frame["task"]
        self._max_turns = int(limits.get("max_turns") or DEFAULT_MAX_TURNS)
        self._context = int(limits.get("context_tokens") or DEFAULT_CONTEXT_TOKENS)
        reserve = self._context - int(hello.get("max_tokens") or 0)
        # A small context must leave room for the answer, a careless setting must leave some for the prompt.
        self._budget = int(max(0.3 * self._context, min(FULL * self._context, reserve)))
        self._talk = Conversation(history, overhead=[hello.get("system"), hello.get("tools")])
        self._talk.replace(resumable(history, str(frame.get("prompt", ""))))
        self._ids = call_ids(self._talk.messages)
        self._turn = sum(message["role"] == "assistant" for message in self._talk.messages)
        self._nudges = self._cut_answers = self._pauses = 0

    def run(self) -> Frame:
        """The `task.done` frame. Raises Closed, Violation, FrameError."""
        try:
            while True:
                self._one_turn()
        except Ended as end:
            return self._done(end)
        except Cancelled:
            return self._done(Ended("cancelled", "worker.cancelled", "the task was cancelled"))

    def _done(self, end: Ended) -> Frame:
        base, messages = self._talk.delta()
        return {
            "t": "task.done",
            "task": self._task,
            "outcome": end.outcome,
            "finish": end.finish,
            "code": end.code,
            "message": end.message,
            "base": base,
            "messages": messages,
        }

    def _one_turn(self) -> None:
        if self._turn >= self._max_turns:
            raise Ended("failed", "worker.turn_limit", f"the limit of {self._max_turns} turns is reached")
        self._make_room()
        self._turn += 1
        answer = self._ask_model()
        stop = str(answer.get("stop_reason") or "")
        blocks, problems = clean_answer(answer.get("content"), self._ids)
        if stop == "refusal":
            said = _text(blocks)
            raise Ended("failed", "model.refused_task", said or "the model refused to go on with this task")
        if blocks:
            self._talk.append("assistant", blocks)
        calls = tool_calls(blocks)
        if stop == "tool_use" and calls:
            self._nudges = self._cut_answers = self._pauses = 0
            self._run_calls(calls, problems)
        elif stop in {"max_tokens", "model_context_window_exceeded"}:
            self._continue_cut(blocks, calls, stop)
        elif stop == "interrupted":
            self._talk.append("user", [text_block(INTERRUPTED)])
        elif stop == "pause_turn" and blocks and not calls:
            self._pauses += 1
            if self._pauses > MAX_PAUSES:
                raise Ended("failed", "worker.pause_limit", f"the model paused its turn {MAX_PAUSES} times in a row")
        else:
            self._nudge(blocks, calls, stop)

    # -- the model ------------------------------------------------------------------------------------------------

    def _ask_model(self) -> Frame:
        answer = self._model_frame()
        if not answer.get("ok") and _too_long(answer):
            # The provider's limit is lower than we were told, or our estimate is: believe the provider.
            self._talk.calibrate(int(self._talk.tokens * 1.25))
            if self._compact(min(self._budget, self._talk.tokens) * ROOMY):
                answer = self._model_frame()
        if not answer.get("ok"):
            code = str(answer.get("code") or "model.error")
            raise Ended("failed", code, str(answer.get("message") or "the model call failed"))
        usage: dict[str, Any] = answer.get("usage") or {}
        if not usage.get("estimated"):
            self._talk.calibrate(_prompt_tokens(usage))
        return answer

    def _model_frame(self) -> Frame:
        # Before the delta is taken: what it holds counts as seen.
        self._runtime.check()
        base, append = self._talk.delta()
        frame = {"t": "model", "task": self._task, "turn": self._turn, "base": base, "append": append}
        return self._runtime.ask(frame, "model.result")

    def _make_room(self) -> None:
        if self._talk.tokens <= self._budget:
            return
        self._compact(self._budget * ROOMY / FULL)
        if self._talk.tokens > self._budget:
            message = f"the task and its last turn need about {self._talk.tokens} of {self._context} tokens"
            raise Ended("failed", "worker.context_full", message)

    def _compact(self, target: float) -> bool:
        """True when something was made smaller."""
        before = self._talk.tokens
        result = compact(self._talk.messages, int(target), self._talk.message_tokens)
        if not result.shortened and not result.dropped:
            return False
        self._talk.replace(result.messages)
        self._runtime.note(
            "info",
            f"context compacted from about {before} to {self._talk.tokens} tokens: "
            f"{result.shortened} texts shortened, {result.dropped} turns left out",
        )
        return True

    # -- its tool calls -------------------------------------------------------------------------------------------

    def _run_calls(self, calls: list[Block], problems: dict[str, str]) -> None:
        results: list[Block] = []
        finish: Frame | None = None
        begun = ""
        try:
            for call in calls:
                if finish is not None:
                    results.append(tool_result(call["id"], SKIPPED, is_error=True))
                elif call["id"] in problems:
                    results.append(tool_result(call["id"], f"Not run: {problems[call['id']]}.", is_error=True))
                else:
                    self._runtime.check()
                    begun = call["id"]
                    answer = self._tool_frame(call)
                    content, is_error = str(answer.get("content") or ""), bool(answer.get("is_error"))
                    results.append(tool_result(call["id"], content, is_error=is_error))
                    if answer.get("finish") and not is_error:
                        finish = dict(call["input"])
        except Cancelled:
            for call in calls[len(results) :]:
                said = CANCELLED_CALL if call["id"] == begun else CANCELLED_LATER
                results.append(tool_result(call["id"], said, is_error=True))
            raise
        finally:
            self._talk.append("user", results)
        if finish is not None:
            raise Ended("finished", finish=finish)
        left = self._max_turns - self._turn
        if left == LAST_TURNS:
            said = f"{left} turns are left for this task: bring it to an end and call `finish`."
            self._talk.append("user", [text_block(said)])

    def _tool_frame(self, call: Block) -> Frame:
        asked = {"id": call["id"], "name": call["name"], "input": call["input"]}
        frame = {"t": "tool", "task": self._task, "turn": self._turn, "call": asked}
        return self._runtime.ask(frame, "tool.result")

    # -- answers that end otherwise -------------------------------------------------------------------------------

    def _continue_cut(self, blocks: list[Block], calls: list[Block], stop: str) -> None:
        self._cut_answers += 1
        refused = [tool_result(call["id"], CUT_CALL, is_error=True) for call in calls]
        if self._cut_answers > MAX_CUT_ANSWERS:
            if refused:
                self._talk.append("user", refused)
            message = f"{self._cut_answers} answers in a row reached the output limit"
            raise Ended("failed", "worker.output_limit", message)
        if stop == "model_context_window_exceeded":
            self._compact(min(self._budget, self._talk.tokens) * ROOMY)
        self._talk.append("user", refused or [text_block(CUT_TEXT if blocks else EMPTY)])

    def _nudge(self, blocks: list[Block], calls: list[Block], stop: str) -> None:
        self._nudges += 1
        refused = [tool_result(call["id"], NOT_ASKED.format(reason=stop), is_error=True) for call in calls]
        if self._nudges > MAX_NUDGES:
            if refused:
                self._talk.append("user", refused)
            raise Ended("unfinished", "worker.no_finish", _text(blocks) or "the model stopped without calling finish")
        self._talk.append("user", refused or [text_block(NUDGE if blocks else EMPTY)])


def main(descriptor: int) -> int:
    """Serve one runtime over the connected stream socket `descriptor`. Returns the exit code: 0 after goodbye or end of
    file, 3 when the runtime broke the protocol."""
    with socket.socket(fileno=descriptor) as sock:
        try:
            _serve(Runtime(FrameSocket(sock)))
        except Closed:
            return 0
        except (FrameError, Violation) as error:
            sys.stderr.write(f"the worker ends: {error}\n")
            return 3
    return 0


def _serve(runtime: Runtime) -> None:
    runtime.send({"t": "ready", "pid": os.getpid()})
    hello: Frame | None = None
    while True:
        hello, frame = runtime.next_task(hello)
        runtime.send(TaskLoop(runtime, hello, frame).run())


def _text(blocks: list[Block]) -> str:
    """What the model said, for people: the end of it."""
    return "\n".join(str(block.get("text", "")) for block in blocks if block.get("type") == "text").strip()[-2000:]


def _too_long(answer: Frame) -> bool:
    message = str(answer.get("message") or "").lower()
    return answer.get("code") in TOO_LONG_CODES or any(words in message for words in TOO_LONG_WORDS)


def _prompt_tokens(usage: dict[str, Any]) -> int:
    """The whole prompt: what was read from and written to the cache is not part of `input_tokens`."""
    names = ("input_tokens", "cache_read_tokens", "cache_write_tokens")
    return sum(int(usage.get(name) or 0) for name in names)
