"""Turns a stream of small pieces of text into few events: merged over 50 ms, bounded per agent, no character halved."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Callable
from dataclasses import dataclass, field

from toka_runtime.aio import TaskOwner
from toka_runtime.clock import Clock, SystemClock
from toka_runtime.protocol.events import OutputAppended, Stream
from toka_runtime.protocol.ids import AgentName, CallId, RunId
from toka_runtime.store.rows import clean_text

INTERVAL_S = 0.05
SEGMENT_BYTES = 32 * 1024
RATE_BYTES_PER_S = 64 * 1024
"""Per agent, sustained. What is above is left out and counted; `BURST_BYTES` are free."""
BURST_BYTES = 1024 * 1024
SEGMENT_COST = 200
"""What a segment costs beside its text: bounds streams that alternate byte by byte."""

Post = Callable[[OutputAppended, AgentName, RunId], None]
_Place = tuple[RunId, Stream, int, int, CallId]
"""Run, stream, task, turn, call: text of one place is merged."""


@dataclass(slots=True)
class _Agent:
    """What one agent has said since its last segment, and how much more it may."""

    allowance: float
    refilled_at: float
    place: _Place | None = None
    parts: list[str] = field(default_factory=list[str])
    size: int = 0
    dropped: dict[_Place, int] = field(default_factory=dict[_Place, int])
    """Bytes left out. A place in here is mute until it is flushed: a segment that is cut ends with its cut."""
    decoders: dict[_Place, codecs.IncrementalDecoder] = field(default_factory=dict[_Place, codecs.IncrementalDecoder])
    """Of places whose bytes ended in the middle of a character."""
    torn: set[_Place] = field(default_factory=set[_Place])
    """Places where bytes were dropped unread, so that the rest of a character may come next."""
    halves: dict[_Place, int] = field(default_factory=dict[_Place, int])
    """Bytes of characters that a drop has cut in two: counted with the next segment."""


class OutputMerger:
    """`append` as text arrives; segments go to `post` after 50 ms, at 32 KiB, when stream or call change, and at
    `flush`. Text beyond an agent's rate is left out: `dropped_bytes` of a segment says how much followed its text.
    Used on one event loop; costs a few microseconds a piece, next to nothing for pieces that are dropped."""

    def __init__(
        self,
        post: Post,
        *,
        clock: Clock | None = None,
        interval_s: float = INTERVAL_S,
        rate_bytes_per_s: float = RATE_BYTES_PER_S,
        burst_bytes: int = BURST_BYTES,
    ) -> None:
        """`post` must not wait (`EventStore.post`). If it raises, `append` and `flush` do; from the timer the error
        goes to the loop's exception handler."""
        self._post = post
        self._clock: Clock = clock or SystemClock()
        self._interval_s = interval_s
        self._rate, self._burst = rate_bytes_per_s, burst_bytes
        self._agents: dict[AgentName, _Agent] = {}
        self._waiting: dict[AgentName, None] = {}
        """Agents with something to flush, in order of arrival."""
        self._owner = TaskOwner(_report)
        self._timer: asyncio.Task[None] | None = None
        self._closed = False

    def append(
        self,
        agent: AgentName,
        run: RunId,
        stream: Stream,
        text: str | bytes,
        *,
        task: int = -1,
        turn: int = 0,
        call: CallId = CallId(""),  # noqa: B008 a str
    ) -> None:
        """Text, or bytes of UTF-8 that may be cut anywhere (what is no UTF-8 becomes U+FFFD)."""
        if not text or self._closed:
            return
        place = (run, stream, task, turn, call)
        said = self._agents.get(agent)
        if said is None:
            said = self._agents[agent] = _Agent(self._burst, self._clock.monotonic())
        if place in said.dropped:
            said.dropped[place] += len(text) if isinstance(text, bytes) else _size(text)
            said.torn.add(place)
            if (decoder := said.decoders.pop(place, None)) is not None:
                said.dropped[place] += len(decoder.getstate()[0])
            return
        if said.place != place:
            self._post_text(agent, said)
            said.place = place
        self._refill(said)
        if isinstance(text, bytes):
            text = _decoded(said, place, text)
        elif not text.isascii():
            text = clean_text(text)
        self._take(agent, said, place, text)
        if said.parts or said.dropped or said.halves:
            self._waiting[agent] = None
            if self._timer is None:
                self._timer = self._owner.spawn(self._flush_later(), name="output-flush")

    def flush(self, agent: AgentName) -> None:
        """Post what waits for this agent, so that an event posted now comes behind its text."""
        self._waiting.pop(agent, None)
        if (said := self._agents.get(agent)) is not None:
            self._post_text(agent, said)
            while left_out := said.dropped or said.halves:
                self._post_segment(agent, said, next(iter(left_out)), "")

    def forget(self, agent: AgentName) -> None:
        """Flush, with what is left of a character cut in two, and drop the agent's accounts: its run is over."""
        if (said := self._agents.get(agent)) is not None:
            self.flush(agent)
            for place, decoder in said.decoders.items():
                if rest := decoder.decode(b"", final=True):
                    self._post_segment(agent, said, place, rest)
            del self._agents[agent]

    def close(self) -> None:
        """Flush everything; text that comes later is ignored. Safe to call twice."""
        if not self._closed:
            for agent in list(self._agents):
                self.forget(agent)
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()

    async def aclose(self) -> None:
        """`close`, and wait for the end of the timer."""
        self.close()
        await self._owner.aclose()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _refill(self, said: _Agent) -> None:
        now = self._clock.monotonic()
        said.allowance = min(self._burst, said.allowance + (now - said.refilled_at) * self._rate)
        said.refilled_at = now

    def _take(self, agent: AgentName, said: _Agent, place: _Place, text: str) -> None:
        """As much as the agent may say now; segments that are full go out."""
        while text:
            if not said.parts:
                if said.allowance < SEGMENT_COST + _WIDEST:
                    said.dropped[place] = _size(text)
                    return
                said.allowance -= SEGMENT_COST
            piece, text = _split(text, min(SEGMENT_BYTES - said.size, int(said.allowance)))
            size = _size(piece)
            said.parts.append(piece)
            said.size += size
            said.allowance -= size
            if text and said.allowance < _WIDEST:
                said.dropped[place] = _size(text)
                return
            if text:
                self._post_text(agent, said)
                said.place = place

    def _post_text(self, agent: AgentName, said: _Agent) -> None:
        if said.place is not None and said.parts:
            text = "".join(said.parts)
            said.parts, said.size = [], 0
            self._post_segment(agent, said, said.place, text)
        said.place = None

    def _post_segment(self, agent: AgentName, said: _Agent, place: _Place, text: str) -> None:
        run, stream, task, turn, call = place
        dropped = said.dropped.pop(place, 0) + said.halves.pop(place, 0)
        event = OutputAppended(stream=stream, text=text, task=task, turn=turn, call=call, dropped_bytes=dropped)
        self._post(event, agent, run)

    async def _flush_later(self) -> None:
        await self._clock.sleep(self._interval_s)
        self._timer = None
        for agent in list(self._waiting):
            self.flush(agent)


_CONTINUATION = bytes(range(0x80, 0xC0))
_WIDEST = 4
"""Bytes of one character."""


def _report(name: str, error: BaseException) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": f"{name} failed", "exception": error})


def _decoded(said: _Agent, place: _Place, data: bytes) -> str:
    if place in said.torn:
        whole = data.lstrip(_CONTINUATION)
        if half := len(data) - len(whole):
            said.halves[place] = said.halves.get(place, 0) + half
        if not whole:
            return ""
        said.torn.discard(place)
        data = whole
    decoder = said.decoders.pop(place, None)
    if decoder is None:
        if data.isascii():
            return data.decode("ascii")
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data)
    if decoder.getstate()[0]:
        said.decoders[place] = decoder
    return text


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def _split(text: str, room: int) -> tuple[str, str]:
    """What fits into `room` bytes of UTF-8, and the rest."""
    if text.isascii():
        return text[:room], text[room:]
    raw = text[: room + 1].encode()
    if len(raw) <= room:
        return text, ""
    piece = raw[:room].decode(errors="ignore")
    return piece, text[len(piece) :]
