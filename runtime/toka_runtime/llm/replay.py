"""Provider `replay`: plays a recording with its timing.

A call is found by who made it: (agent, task, attempt, turn), and the how-manieth call with these it is; that system
prompt and tool names are the same is checked by a digest. What is not in the recording is an error, never something
made up. A call that was cancelled when it was recorded is passed over when the same turn was asked again later.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from toka_runtime.clock import Clock
from toka_runtime.errors import ModelError, ModelUnavailable, RecordingBroken, RecordingMiss
from toka_runtime.llm.base import CallContext, ModelRequest
from toka_runtime.llm.failures import TryFailed
from toka_runtime.llm.provider import Opened, RawEvent
from toka_runtime.llm.recording import VERSION, stable_digest
from toka_runtime.llm.wire import error_tree

Key = tuple[str, int, int, int]


class ReplayProvider:
    name = "replay"
    free = True

    def __init__(self, path: Path, clock: Clock, *, speed: float = 1.0) -> None:
        """`speed`: 2 is twice as fast, 0 without any pause. Raises RecordingBroken."""
        self._clock = clock
        self._path = path
        self._pause = 1.0 / speed if speed > 0 else 0.0
        self._calls = _read(path)
        self._played: defaultdict[Key, int] = defaultdict(int)
        self._playing: dict[tuple[str, str], dict[str, Any]] = {}

    def notice(self, model: str) -> str:
        return ""

    async def aclose(self) -> None:
        pass

    @asynccontextmanager
    async def open(self, request: ModelRequest, attempt: int) -> AsyncGenerator[Opened]:
        call = self._find(request, attempt)
        tries = call["tries"]
        if attempt > len(tries):
            raise TryFailed(
                RecordingMiss(f"the recording of {_name(_key(request.context))} has {len(tries)} tries"),
                retryable=False,
            )
        recorded = tries[attempt - 1]
        if attempt == len(tries):
            self._playing.pop(_identity(request.context), None)
        if recorded["end"] == "failed" and not recorded["events"]:
            await self._clock.sleep(recorded["at_ms"] / 1000 * self._pause)
            raise self._failure(recorded)
        yield Opened(events=self._play(recorded), request_id=recorded.get("request_id", ""))

    async def _play(self, recorded: dict[str, Any]) -> AsyncIterator[RawEvent]:
        began = self._clock.monotonic()
        for ms, event in recorded["events"]:
            await self._until(began, ms)
            yield event
        await self._until(began, recorded["at_ms"])
        if recorded["end"] == "failed":
            raise self._failure(recorded)
        if recorded["end"] == "cancelled":
            raise TryFailed(
                RecordingMiss("the recording ends here: the call was cancelled when it was made"), retryable=False
            )

    async def _until(self, began: float, ms: float) -> None:
        wait_s = ms / 1000 * self._pause - (self._clock.monotonic() - began)
        if wait_s > 0:
            await self._clock.sleep(wait_s)

    def _find(self, request: ModelRequest, attempt: int) -> dict[str, Any]:
        context = request.context
        # The tries of one call belong together: only the first looks for a recorded call.
        running = _identity(context)
        if attempt > 1 and running in self._playing:
            return self._playing[running]
        key = _key(context)
        calls = self._calls.get(key, [])
        at = self._played[key]
        while at < len(calls) - 1 and calls[at]["tries"][-1]["end"] == "cancelled":
            at += 1
        if at >= len(calls):
            raise TryFailed(RecordingMiss(self._miss(key, len(calls)), hint=self._nearest(key)), retryable=False)
        call = calls[at]
        asked = stable_digest(request)
        if call["digest"] != asked:
            raise TryFailed(
                RecordingMiss(
                    f"{_name(key)} was recorded with another system prompt or other tools "
                    f"(digest {call['digest']}, now {asked})",
                    hint="play it with the specs it was recorded with",
                ),
                retryable=False,
            )
        self._played[key] = at + 1
        self._playing[running] = call
        return call

    def _miss(self, key: Key, recorded: int) -> str:
        if recorded:
            return f"{self._path.name} holds {_name(key)} {recorded} times, and it is asked once more"
        return f"{self._path.name} does not hold {_name(key)}"

    def _nearest(self, key: Key) -> str:
        if not self._calls:
            return "the recording is empty"
        agent, *place = key

        def distance(other: Key) -> tuple[bool, list[int]]:
            return other[0] != agent, [abs(a - b) for a, b in zip(other[1:], place, strict=True)]

        return f"the nearest that it holds is {_name(min(self._calls, key=distance))}"

    def _failure(self, recorded: dict[str, Any]) -> TryFailed:
        kind = _ERRORS.get(recorded.get("code", ""), ModelUnavailable)
        delay_s = recorded.get("delay_s")
        return TryFailed(
            kind(str(recorded.get("message", "")), hint=str(recorded.get("hint", ""))),
            retryable=delay_s is not None,
            fixed_delay_s=None if delay_s is None else delay_s * self._pause,
        )


def _read(path: Path) -> dict[Key, list[dict[str, Any]]]:
    calls: dict[Key, list[dict[str, Any]]] = {}
    number = 0
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                entry: dict[str, Any] = json.loads(line)
                if number == 1:
                    if entry.get("toka_recording") != VERSION:
                        raise RecordingBroken(
                            f"{path} is not a recording of version {VERSION}", hint="make one with --record FILE"
                        )
                    continue
                key = (str(entry["agent"]), int(entry["task"]), int(entry["attempt"]), int(entry["turn"]))
                for recorded in entry["tries"]:
                    _check(recorded)
                if not entry["tries"]:
                    raise ValueError("a call without a try")
                calls.setdefault(key, []).append(entry)
    except OSError as error:
        raise RecordingBroken(f"recording {path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordingBroken(f"recording {path} is damaged in line {number}: {error}") from None
    if number == 0:
        raise RecordingBroken(f"recording {path} is empty", hint="make one with --record FILE")
    return calls


def _check(recorded: dict[str, Any]) -> None:
    float(recorded["at_ms"])
    if recorded["end"] not in ("whole", "failed", "cancelled"):
        raise ValueError(f"unknown end {recorded['end']!r}")
    for ms, event in recorded["events"]:
        float(ms)
        event.get("type")


def _key(context: CallContext) -> Key:
    return (str(context.agent), context.task, context.attempt, context.turn)


def _identity(context: CallContext) -> tuple[str, str]:
    return (str(context.run), str(context.call))


def _name(key: Key) -> str:
    agent, task, attempt, turn = key
    return f"agent {agent}, task {task + 1}, attempt {attempt}, turn {turn}"


_ERRORS = error_tree(ModelError)
