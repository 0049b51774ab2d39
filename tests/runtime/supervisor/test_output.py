"""Merging output: few segments, in order, no byte unaccounted for, no character halved, no agent that fills the log."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.clock import FakeClock
from toka_runtime.protocol.events import OutputAppended, Stream
from toka_runtime.supervisor.output import (
    BURST_BYTES,
    INTERVAL_S,
    RATE_BYTES_PER_S,
    SEGMENT_BYTES,
    SEGMENT_COST,
    OutputMerger,
)

OUT, ERR, MODEL = Stream.STDOUT, Stream.STDERR, Stream.MODEL


class Sink:
    def __init__(self) -> None:
        self.posted: list[tuple[str, str, OutputAppended]] = []

    def __call__(self, event: OutputAppended, agent: str, run: str) -> None:
        self.posted.append((agent, run, event))

    def texts(self, agent: str = "a") -> list[str]:
        return [event.text for name, _, event in self.posted if name == agent]

    def text(self, agent: str = "a") -> str:
        return "".join(self.texts(agent))

    def dropped(self) -> int:
        return sum(event.dropped_bytes for _, _, event in self.posted)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def merger(sink: Sink, clock: FakeClock) -> OutputMerger:
    return OutputMerger(sink, clock=clock)


async def test_pieces_become_one_segment_after_the_interval(merger: OutputMerger, sink: Sink, clock: FakeClock) -> None:
    for word in ("to", "ke", "ns"):
        merger.append("a", "r", MODEL, word, task=2, turn=3, call="m1")
    await clock.until_sleeping()
    await clock.advance(INTERVAL_S * 0.9)
    assert sink.posted == []
    await clock.advance(INTERVAL_S * 0.2)
    expected = OutputAppended(stream=MODEL, text="tokens", task=2, turn=3, call="m1")
    assert sink.posted == [("a", "r", expected)]
    assert clock.sleepers() == 0, "nothing ticks while nothing is said"


async def test_a_stream_of_tokens_is_at_most_one_event_an_interval(
    merger: OutputMerger, sink: Sink, clock: FakeClock
) -> None:
    for _ in range(1000):
        merger.append("a", "r", MODEL, "x")
        await clock.advance(0.001)
    assert 15 <= len(sink.posted) <= 21
    merger.close()
    assert sink.text() == "x" * 1000


async def test_streams_and_calls_keep_their_order(merger: OutputMerger, sink: Sink) -> None:
    merger.append("a", "r", OUT, "1", call="t1")
    merger.append("a", "r", ERR, "2", call="t1")
    merger.append("a", "r", ERR, "3", call="t1")
    merger.append("b", "r", OUT, "b", call="t1")
    merger.append("a", "r", OUT, "4", call="t1")
    merger.append("a", "r", OUT, "5", call="t2")
    merger.close()
    assert [(event.stream, event.text, event.call) for name, _, event in sink.posted if name == "a"] == [
        (OUT, "1", "t1"),
        (ERR, "23", "t1"),
        (OUT, "4", "t1"),
        (OUT, "5", "t2"),
    ]
    assert sink.texts("b") == ["b"]


async def test_flush_posts_now_what_waits_for_one_agent(merger: OutputMerger, sink: Sink, clock: FakeClock) -> None:
    merger.append("a", "r", OUT, "mine")
    merger.append("b", "r", OUT, "other")
    merger.flush("a")
    merger.flush("a")
    merger.flush("nobody")
    assert [name for name, _, _ in sink.posted] == ["a"]
    await clock.until_sleeping()
    await clock.advance(INTERVAL_S)
    assert [name for name, _, _ in sink.posted] == ["a", "b"]


async def test_a_long_text_is_cut_into_segments(merger: OutputMerger, sink: Sink) -> None:
    text = "0123456789é" * 9000
    merger.append("a", "r", OUT, text)
    merger.close()
    assert sink.text() == text
    assert max(len(piece.encode()) for piece in sink.texts()) <= SEGMENT_BYTES
    assert len(sink.posted) == 4


async def test_characters_cut_between_pieces_are_put_together(merger: OutputMerger, sink: Sink) -> None:
    for byte in "aü日😀z".encode():
        merger.append("a", "r", OUT, bytes([byte]))
    merger.flush("a")
    assert sink.text() == "aü日😀z"


async def test_interleaved_streams_each_keep_their_half_character(merger: OutputMerger, sink: Sink) -> None:
    euro = "€".encode()
    merger.append("a", "r", OUT, euro[:1])
    merger.append("a", "r", ERR, euro[:2])
    merger.append("a", "r", OUT, euro[1:])
    merger.append("a", "r", ERR, euro[2:])
    merger.close()
    assert [(event.stream, event.text) for _, _, event in sink.posted] == [(OUT, "€"), (ERR, "€")]


async def test_what_is_no_utf8_is_replaced_and_an_end_in_mid_character_shows(merger: OutputMerger, sink: Sink) -> None:
    merger.append("a", "r", OUT, b"ok \xff\xfe \xc3")
    merger.append("a", "r", OUT, "torn \ud800 pair \ud83d\ude00")
    merger.append("a", "r", ERR, "€".encode()[:2])
    merger.close()
    assert sink.text() == "ok \ufffd\ufffd torn \ufffd pair 😀" + "\ufffd\ufffd"
    sink.text().encode()


async def test_a_flood_is_bounded_and_every_byte_counted(merger: OutputMerger, sink: Sink, clock: FakeClock) -> None:
    """A gigabyte in ten seconds."""
    chunk, seconds, per_tick = b"x" * 65536, 10, 82
    total = 0
    for _ in range(seconds * 20):
        for _ in range(per_tick):
            merger.append("flood", "r", OUT, chunk)
            total += len(chunk)
        await clock.advance(INTERVAL_S)
    merger.append("quiet", "r", OUT, "still heard")
    merger.close()
    kept = len(sink.text("flood"))
    assert total > 2**30
    assert kept + sink.dropped() == total
    assert kept <= BURST_BYTES + RATE_BYTES_PER_S * seconds
    assert kept > BURST_BYTES
    assert len([1 for name, _, _ in sink.posted if name == "flood"]) < 20 * seconds + BURST_BYTES // SEGMENT_BYTES + 5
    assert sink.texts("quiet") == ["still heard"]


async def test_the_allowance_comes_back(sink: Sink, clock: FakeClock) -> None:
    merger = OutputMerger(sink, clock=clock, rate_bytes_per_s=1000, burst_bytes=2000)
    merger.append("a", "r", OUT, "x" * 5000)
    await clock.until_sleeping()
    await clock.advance(INTERVAL_S)
    assert (len(sink.text()), sink.dropped()) == (2000 - SEGMENT_COST, 5000 - 2000 + SEGMENT_COST)
    await clock.advance(10)
    merger.append("a", "r", OUT, "y" * 1000)
    merger.flush("a")
    assert sink.texts()[-1] == "y" * 1000
    await clock.advance(10_000)
    merger.append("a", "r", OUT, "z" * 5000)
    merger.close()
    assert sink.texts()[-1] == "z" * (2000 - SEGMENT_COST), "but it is not saved up"


async def test_a_cut_segment_ends_with_its_cut(sink: Sink, clock: FakeClock) -> None:
    """What is dropped follows the text of its segment, whatever is said afterwards."""
    merger = OutputMerger(sink, clock=clock, rate_bytes_per_s=1e9, burst_bytes=1000)
    merger.append("a", "r", OUT, "x" * 2000)
    await clock.advance(INTERVAL_S / 2)
    merger.append("a", "r", OUT, "more")
    await clock.advance(INTERVAL_S)
    merger.append("a", "r", OUT, "again")
    merger.close()
    assert [(len(event.text), event.dropped_bytes) for _, _, event in sink.posted] == [(800, 1204), (5, 0)]


async def test_streams_that_alternate_are_bounded_in_events(merger: OutputMerger, sink: Sink, clock: FakeClock) -> None:
    for n in range(50_000):
        merger.append("a", "r", OUT if n % 2 else ERR, "x")
    await clock.until_sleeping()
    await clock.advance(INTERVAL_S)
    assert len(sink.posted) < BURST_BYTES // SEGMENT_COST + 10
    merger.close()
    assert len(sink.text()) + sink.dropped() == 50_000


async def test_a_drop_in_mid_character_leaves_no_garbage_and_counts_its_bytes(sink: Sink, clock: FakeClock) -> None:
    euro = "€".encode()
    merger = OutputMerger(sink, clock=clock, rate_bytes_per_s=1e6, burst_bytes=1000)
    # 800 bytes fit; the euro sign begun behind them is cut by the drop, and its end comes after the flush.
    merger.append("a", "r", OUT, b"x" * 800 + b"yy" + euro[:1])
    merger.append("a", "r", OUT, euro[1:2])
    merger.flush("a")
    assert (len(sink.text()), sink.dropped()) == (800, 4)
    await clock.advance(INTERVAL_S)
    merger.append("a", "r", OUT, euro[2:])
    merger.append("a", "r", OUT, b"ok" + euro[:2])
    merger.append("a", "r", OUT, euro[2:])
    merger.close()
    assert sink.text() == "x" * 800 + "ok€"
    assert sink.dropped() == len("yy€".encode())


@pytest.mark.parametrize("room", range(1, 9))
async def test_a_cut_never_halves_a_character(sink: Sink, clock: FakeClock, room: int) -> None:
    text = "😀é€a" * 10
    merger = OutputMerger(sink, clock=clock, rate_bytes_per_s=0, burst_bytes=SEGMENT_COST + 20 + room)
    merger.append("a", "r", OUT, text)
    merger.close()
    assert text.startswith(sink.text())
    assert len(sink.text().encode()) > 16 + room
    assert len(sink.text().encode()) + sink.dropped() == len(text.encode())


async def test_closing_flushes_and_then_ignores(merger: OutputMerger, sink: Sink, clock: FakeClock) -> None:
    merger.append("a", "r", OUT, "last")
    await clock.until_sleeping()
    await merger.aclose()
    await merger.aclose()
    merger.append("a", "r", OUT, "too late")
    merger.flush("a")
    assert sink.texts() == ["last"]
    assert clock.sleepers() == 0


async def test_closing_without_waiting_leaves_no_timer(merger: OutputMerger, sink: Sink, clock: FakeClock) -> None:
    merger.append("a", "r", OUT, "last")
    await clock.until_sleeping()
    merger.close()
    await asyncio.sleep(0)
    assert clock.sleepers() == 0
    assert sink.texts() == ["last"]


async def test_a_forgotten_agent_starts_anew(sink: Sink, clock: FakeClock) -> None:
    merger = OutputMerger(sink, clock=clock, rate_bytes_per_s=0, burst_bytes=1000)
    merger.append("a", "r1", OUT, "x" * 5000)
    merger.forget("a")
    merger.append("a", "r2", OUT, "y" * 100)
    merger.forget("a")
    assert [(run, len(event.text)) for _, run, event in sink.posted] == [("r1", 800), ("r2", 100)]
    merger.close()


async def test_a_failing_sink_is_told_to_the_loop_and_the_next_piece_tries_again(clock: FakeClock) -> None:
    told: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    posted: list[OutputAppended] = []

    def post(event: OutputAppended, agent: str, run: str) -> None:
        if not told:
            raise RuntimeError("closed")
        posted.append(event)

    merger = OutputMerger(post, clock=clock)
    merger.append("a", "r", OUT, "lost")
    await clock.until_sleeping()
    await clock.advance(INTERVAL_S)
    await asyncio.sleep(0)
    assert [str(error) for error in told] == ["closed"]
    merger.append("a", "r", OUT, "heard")
    await clock.until_sleeping()
    await clock.advance(INTERVAL_S)
    assert [event.text for event in posted] == ["heard"]
    merger.close()


pieces = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.sampled_from(["a", "b"]), st.sampled_from([OUT, ERR]), st.text(max_size=40)),
        st.tuples(st.just("wait"), st.floats(0, 0.2), st.none(), st.none()),
        st.tuples(st.just("flush"), st.sampled_from(["a", "b"]), st.none(), st.none()),
    ),
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(steps=pieces, as_bytes=st.booleans(), cut=st.integers(1, 7), burst=st.sampled_from([10**9, 700]))
async def test_any_sequence_keeps_the_text_of_each_stream_or_counts_it(
    steps: list[tuple[str, object, object, object]], as_bytes: bool, cut: int, burst: int
) -> None:
    sink, clock = Sink(), FakeClock()
    merger = OutputMerger(sink, clock=clock, rate_bytes_per_s=500, burst_bytes=burst)
    said: dict[tuple[object, object], str] = {}
    for step, first, stream, text in steps:
        if step == "wait":
            await clock.advance(first)  # type: ignore[arg-type]
        elif step == "flush":
            merger.flush(first)  # type: ignore[arg-type]
        elif as_bytes:
            raw = text.encode()  # type: ignore[union-attr]
            for at in range(0, len(raw), cut):
                merger.append(first, "r", stream, raw[at : at + cut])  # type: ignore[arg-type]
        else:
            merger.append(first, "r", stream, text)  # type: ignore[arg-type]
        if step == "say":
            said[first, stream] = said.get((first, stream), "") + text  # type: ignore[operator]
    merger.close()
    for (agent, stream), whole in said.items():
        events = [event for name, _, event in sink.posted if name == agent and event.stream is stream]
        kept = "".join(event.text for event in events)
        dropped = sum(event.dropped_bytes for event in events)
        if burst == 10**9:
            assert (kept, dropped) == (whole, 0)
        else:
            assert kept.count("\ufffd") <= whole.count("\ufffd")
            assert len(kept.encode()) + dropped == len(whole.encode())
