"""Recordings of model calls: JSON lines, a header and then one line a call, for provider `replay`.

They are made at the level of raw stream events, not of HTTP: so a rehearsal can be recorded too, a recording holds no
header and no credential, and a replay needs no server to play it. What HTTP would add (chunk borders, TLS) is below
what the runtime can see. Kept are each try of each call with the time of every event, refusals and outages with the
wait that followed, and where a call was cancelled.

A call is written when it ends, because a secret can lie across the border of two events: only the joined text can be
searched. The file is readable by its owner only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from toka_runtime import __version__
from toka_runtime.clock import Clock
from toka_runtime.errors import RecordingBroken
from toka_runtime.llm.base import ModelRequest
from toka_runtime.llm.failures import TryFailed
from toka_runtime.llm.json_value import as_object
from toka_runtime.llm.provider import RawEvent
from toka_runtime.llm.redact import Redactor
from toka_runtime.llm.request import digest_of

VERSION = 1

_STREAMED = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


def stable_digest(request: ModelRequest) -> str:
    """Of what does not change from run to run: system prompt and tool names. The agent's folder counts as the same, so
    that what was recorded on one copy of a workspace can be played on another."""
    folder = request.context.folder
    system = [block.replace(folder, "FOLDER") if folder else block for block in request.system]
    return digest_of([system, sorted(str(tool.get("name")) for tool in request.tools)])[:16]


def create_recording(path: Path) -> None:
    """Make the file, empty, readable by its owner only. Raises RecordingBroken, also when it exists already: no
    recording is overwritten."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise RecordingBroken(f"recording {path} exists already", hint="choose another file name") from None
    except OSError as error:
        raise RecordingBroken(f"recording {path} cannot be written: {error.strerror}") from None


class Recording:
    """The file, open for writing at its end."""

    def __init__(self, path: Path, provider: str, clock: Clock, redactor: Redactor) -> None:
        """Of a file that `create_recording` has made, in this process or one before. Raises RecordingBroken."""
        self._path = path
        self._clock = clock
        self._redactor = redactor
        self._broken: RecordingBroken | None = None
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
            empty = os.fstat(self._fd).st_size == 0
        except OSError as error:
            raise RecordingBroken(f"recording {path} cannot be written: {error.strerror}") from None
        if empty:
            at = clock.now().isoformat()
            self._write({"toka_recording": VERSION, "made_by": __version__, "provider": provider, "at": at})

    def tape(self, request: ModelRequest) -> Tape:
        """One call begins. Raises RecordingBroken when something could not be written before: a recording with holes is
        worse than none."""
        if self._broken is not None:
            raise self._broken
        context = request.context
        return Tape(
            {
                "agent": context.agent,
                "task": context.task,
                "attempt": context.attempt,
                "turn": context.turn,
                "digest": stable_digest(request),
                "model": request.model,
            },
            self._clock,
            self._redactor,
            self._write,
        )

    def _write(self, line: dict[str, Any]) -> None:
        data = (json.dumps(line, ensure_ascii=True, separators=(",", ":")) + "\n").encode()
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            self._broken = RecordingBroken(f"recording {self._path} cannot be written: {error.strerror}")
            raise self._broken from None

    def close(self) -> None:
        os.close(self._fd)


class Tape:
    """One call while it is recorded."""

    def __init__(
        self, head: dict[str, Any], clock: Clock, redactor: Redactor, write: Callable[[dict[str, Any]], None]
    ) -> None:
        self._head = head
        self._clock = clock
        self._redactor = redactor
        self._write = write
        self._tries: list[dict[str, Any]] = []
        self._events: list[tuple[float, RawEvent]] = []
        self._began = 0.0
        self._request_id = ""
        self._open = False

    def begin_try(self) -> None:
        self._events = []
        self._request_id = ""
        self._began = self._clock.monotonic()
        self._open = True

    def opened(self, request_id: str) -> None:
        self._request_id = request_id

    def event(self, event: RawEvent) -> None:
        self._events.append((self._now_ms(), event))

    def failed(self, failure: TryFailed, delay_s: float | None) -> None:
        """`delay_s`: the wait before the next try; None: there is none."""
        error = failure.error
        self._end_try(
            "failed", code=error.code, message=error.message, hint=error.hint, delay_s=delay_s, shared=failure.shared
        )

    def cancelled(self) -> None:
        """In the middle of a try, or between two. The call is over."""
        if not self._open:
            self.begin_try()
        self._end_try("cancelled")
        with suppress(RecordingBroken):
            # Nothing may stand in the way of a cancellation: the next call reports it.
            self.close()

    def whole(self) -> None:
        self._end_try("whole")

    def close(self) -> None:
        """The call is over: write it. Raises RecordingBroken."""
        self._write({**self._head, "tries": self._tries})

    def _end_try(self, end: str, **more: Any) -> None:
        self._open = False
        clean, _ = self._redactor.redact_value([end, more])
        self._tries.append(
            {
                "request_id": self._request_id,
                "events": redact_events(self._events, self._redactor),
                "end": clean[0],
                "at_ms": self._now_ms(),
                **clean[1],
            }
        )

    def _now_ms(self) -> float:
        return round((self._clock.monotonic() - self._began) * 1000, 1)


def redact_events(events: list[tuple[float, RawEvent]], redactor: Redactor) -> list[tuple[float, RawEvent]]:
    """The same events without secrets, also those that lie across several deltas: where the joined text of a block
    holds one, the clean text is dealt out again over the block's deltas."""
    groups: dict[tuple[Any, str], list[int]] = {}
    for at, (_, event) in enumerate(events):
        kind = as_object(event.get("delta")).get("type")
        if event.get("type") == "content_block_delta" and kind in _STREAMED:
            groups.setdefault((event.get("index"), str(kind)), []).append(at)
    result = [(ms, redactor.redact_value(event)[0]) for ms, event in events]
    for (_, kind), places in groups.items():
        name = _STREAMED[kind]
        pieces = [str(events[at][1]["delta"].get(name, "")) for at in places]
        clean, count = redactor.redact("".join(pieces))
        if not count:
            continue
        for at, piece in zip(places, _deal(clean, [len(piece) for piece in pieces]), strict=True):
            ms, event = events[at]
            result[at] = (ms, {**event, "delta": {**event["delta"], name: piece}})
    return result


def _deal(text: str, sizes: list[int]) -> list[str]:
    """Cut into pieces of these sizes; the last takes what is left."""
    pieces: list[str] = []
    for size in sizes[:-1]:
        pieces.append(text[:size])
        text = text[size:]
    return [*pieces, text]
