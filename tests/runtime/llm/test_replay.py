"""What was recorded is played again: text, tool calls, timing, outages and cancellations; nothing is ever made up."""

from __future__ import annotations

import asyncio
import json
import os
import random
import stat
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.clock import FakeClock
from fakes.engines import collect, retries
from fakes.model_requests import hello_turn, model_request, text_block, tool_block, tool_turn, turn
from fakes.providers import HANG, ScriptedProvider
from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.errors import ModelRefused, RecordingBroken, RecordingMiss
from toka_runtime.llm.base import Delta, Finished, GatewaySettings
from toka_runtime.llm.engine import Engine
from toka_runtime.llm.failures import failure_of_status
from toka_runtime.llm.recording import Recording, create_recording, redact_events
from toka_runtime.llm.redact import Redactor
from toka_runtime.llm.replay import ReplayProvider

SECRET = "the-secret-value-0123456789"
SETTINGS = GatewaySettings(provider="replay", max_retry_delay_s=2.0)


class Slow:
    """A clock on which every look costs a millisecond, so that recorded times are not all the same."""

    def __init__(self) -> None:
        self._clock = FakeClock()
        self._looks = 0

    def now(self) -> Any:
        return self._clock.now()

    def monotonic(self) -> float:
        self._looks += 1
        return self._looks / 1000

    async def sleep(self, seconds: float) -> None:
        self._looks += int(seconds * 1000)


def recorder(path: Path, *tries: Any) -> Engine:
    if not path.exists():
        create_recording(path)
    redactor = Redactor({"SECRET": SECRET})
    clock = Slow()
    recording = Recording(path, "scripted", clock, redactor)
    provider = ScriptedProvider(*tries)
    return Engine(provider, SETTINGS, clock, redactor, default_model="m", recording=recording, rng=random.Random(1))


def player(path: Path, speed: float = 0.0, clock: Any = None) -> Engine:
    clock = clock or FakeClock()
    return Engine(ReplayProvider(path, clock, speed=speed), SETTINGS, clock, Redactor({}), default_model="m")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session.jsonl"


async def test_a_session_is_played_again(path: Path) -> None:
    engine = recorder(path, hello_turn("First answer"), tool_turn(path="."))
    recorded = [await collect(engine, model_request(turn=number)) for number in (1, 2)]
    await engine.aclose()
    replay = player(path)
    for number, before in zip((1, 2), recorded, strict=True):
        after = await collect(replay, model_request(turn=number))
        assert [event for event in after if isinstance(event, Delta)] == [
            event for event in before if isinstance(event, Delta)
        ]
        assert after[-1].content == before[-1].content
        assert after[-1].usage == before[-1].usage
        assert after[-1].request_id == before[-1].request_id
        assert after[-1].cost_usd == 0.0


async def test_timing_is_kept_and_can_be_sped_up(path: Path) -> None:
    engine = recorder(path, hello_turn("One two three four"))
    await collect(engine)
    await engine.aclose()
    times = [ms for ms, _ in json.loads(path.read_text().splitlines()[1])["tries"][0]["events"]]
    assert times == sorted(times)
    assert times[-1] > 5
    for speed, expected in ((1.0, times[-1] / 1000), (2.0, times[-1] / 2000), (0.0, 0.0)):
        clock = FakeClock()
        task = spawn(collect(player(path, speed, clock)), name="play")
        while not task.done():
            sleeping = spawn(clock.until_sleeping(), name="sleeping")
            await asyncio.wait({task, sleeping}, return_when=asyncio.FIRST_COMPLETED)
            await cancel_and_wait(sleeping)
            await clock.advance(0.0005 if not task.done() else 0)
        assert clock.monotonic() == pytest.approx(expected, abs=0.002)


async def test_outages_and_broken_streams_are_played_with_their_waits(path: Path) -> None:
    down = failure_of_status(529, {}, "overloaded_error", "busy")
    engine = recorder(path, down, hello_turn("Half of it")[:4], hello_turn("All of it"))
    before = await collect(engine)
    await engine.aclose()
    after = await collect(player(path, speed=0))
    shape = [(retry.attempt, retry.code, retry.message, retry.discard) for retry in retries(before) if retry.attempt]
    played = [(retry.attempt, retry.code, retry.message, retry.discard) for retry in retries(after)]
    assert played == [one for one in shape if one[1] != "model.cooling_down"]
    assert {retry.delay_s for retry in retries(after)} == {0.0}
    assert after[-1].content == before[-1].content
    assert after[-1].usage == before[-1].usage


async def test_more_tries_than_are_allowed_now_are_played_all_the_same(path: Path) -> None:
    engine = recorder(path, *[failure_of_status(500, {}, "", "down")] * 4, hello_turn())
    await collect(engine)
    await engine.aclose()
    strict = GatewaySettings(provider="replay", max_attempts=1)
    clock = FakeClock()
    replay = Engine(ReplayProvider(path, clock, speed=0), strict, clock, Redactor({}), default_model="m")
    assert isinstance((await collect(replay))[-1], Finished)


async def test_a_refusal_is_played(path: Path) -> None:
    engine = recorder(path, failure_of_status(401, {}, "authentication_error", "bad key"))
    with pytest.raises(ModelRefused):
        await collect(engine)
    await engine.aclose()
    with pytest.raises(ModelRefused, match="bad key"):
        await collect(player(path))


async def test_a_cancelled_call_is_recorded_and_passed_over_when_it_was_asked_again(path: Path) -> None:
    engine = recorder(path, [*hello_turn("Some text")[:3], HANG], hello_turn("After the pause"))
    async with aclosing(engine.stream(model_request())) as events:
        async for event in events:
            if isinstance(event, Delta):
                break
    assert json.loads(path.read_text().splitlines()[1])["tries"][0]["end"] == "cancelled"
    with pytest.raises(RecordingMiss, match="cancelled"):
        await collect(player(path))
    await collect(engine, model_request(call="m2"))
    await engine.aclose()
    assert (await collect(player(path)))[-1].content[0]["text"] == "After the pause "


async def test_the_same_turn_asked_twice_is_played_in_order(path: Path) -> None:
    engine = recorder(path, hello_turn("One"), hello_turn("Two"))
    await collect(engine, model_request(run="r1"))
    await collect(engine, model_request(run="r2"))
    await engine.aclose()
    replay = player(path)
    texts = [(await collect(replay, model_request(run=run)))[-1].content[0]["text"] for run in ("a", "b")]
    assert texts == ["One ", "Two "]
    with pytest.raises(RecordingMiss, match="2 times"):
        await collect(replay)


async def test_a_miss_names_what_was_asked_and_the_nearest_there_is(path: Path) -> None:
    engine = recorder(path, hello_turn())
    await collect(engine, model_request(agent="builder", task=1, turn=3))
    await engine.aclose()
    with pytest.raises(RecordingMiss) as missed:
        await collect(player(path), model_request(agent="builder", task=1, turn=4))
    assert "agent builder, task 2, attempt 1, turn 4" in missed.value.message
    assert "agent builder, task 2, attempt 1, turn 3" in missed.value.hint


async def test_another_prompt_is_a_miss(path: Path) -> None:
    engine = recorder(path, hello_turn())
    await collect(engine)
    await engine.aclose()
    with pytest.raises(RecordingMiss, match="another system prompt"):
        await collect(player(path), model_request(system=("You are another agent.",)))
    assert isinstance(
        (await collect(player(path), model_request(messages=({"role": "user", "content": "?"},))))[-1], Finished
    )


# -- the file -----------------------------------------------------------------------------------------------------


async def test_only_its_owner_may_read_it_and_nothing_is_overwritten(path: Path) -> None:
    before = os.umask(0)
    try:
        create_recording(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(RecordingBroken, match="exists already"):
        create_recording(path)
    with pytest.raises(RecordingBroken, match="cannot be written"):
        create_recording(path / "below" / "a file")


async def test_a_restarted_gateway_goes_on_with_its_recording(path: Path) -> None:
    for number in (1, 2):
        engine = recorder(path, hello_turn(f"Answer {number}"))
        await collect(engine, model_request(turn=number))
        await engine.aclose()
    assert len(path.read_text().splitlines()) == 3
    assert (await collect(player(path), model_request(turn=2)))[-1].content[0]["text"] == "Answer 2 "


async def test_a_recording_with_a_hole_is_refused_loudly(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    with pytest.raises(RecordingBroken, match="cannot be written"):
        Recording(full, "x", FakeClock(), Redactor({}))
    engine = recorder(tmp_path / "session.jsonl", hello_turn())
    assert engine.recording is not None
    writable, engine.recording._fd = engine.recording._fd, os.open("/dev/full", os.O_WRONLY)
    os.close(writable)
    for _ in range(2):
        with pytest.raises(RecordingBroken):
            await collect(engine)
    await engine.aclose()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json\n",
        '{"toka_recording": 99}\n',
        '{"toka_recording": 1}\n{"agent": "a"}\n',
        '{"toka_recording": 1}\n[]\n',
        '{"toka_recording": 1}\n{"agent":"a","task":0,"attempt":1,"turn":1,"digest":"","tries":[]}\n',
        '{"toka_recording": 1}\n{"agent":"a","task":0,"attempt":1,"turn":1,"tries":[{"at_ms":0,"end":"?"}]}\n',
    ],
)
def test_a_damaged_recording_says_where(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(RecordingBroken) as broken:
        ReplayProvider(path, FakeClock())
    assert str(path) in str(broken.value)


def test_a_recording_that_is_not_there(path: Path) -> None:
    with pytest.raises(RecordingBroken, match="No such file"):
        ReplayProvider(path, FakeClock())


# -- secrets ------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 200), max_size=12), st.text(max_size=20), st.sampled_from(["text", "tool"]))
def test_no_secret_lies_across_recorded_pieces(places: list[int], around: str, kind: str) -> None:
    text = (
        json.dumps({"a": around + SECRET + around}, ensure_ascii=False) if kind == "tool" else around + SECRET + around
    )
    edges = [0, *sorted({place % (len(text) + 1) for place in places}), len(text)]
    pieces = [text[a:b] for a, b in pairwise(edges)]
    block = text_block(0, *pieces) if kind == "text" else tool_block(0, "x", *pieces)
    events = [(float(at), event) for at, event in enumerate(turn(block, stop="tool_use"))]
    clean = redact_events(events, Redactor({"SECRET": SECRET}))
    name = "text" if kind == "text" else "partial_json"
    joined = "".join(str(event["delta"].get(name, "")) for _, event in clean if event["type"] == "content_block_delta")
    assert SECRET not in joined
    assert [ms for ms, _ in clean] == [ms for ms, _ in events]
    if kind == "tool":
        assert json.loads(joined) == {"a": f"{around}[redacted:SECRET]{around}"}


async def test_the_file_never_holds_a_secret(path: Path) -> None:
    pieces = [SECRET[:9], SECRET[9:20], SECRET[20:]]
    down = failure_of_status(500, {}, "api_error", f"your key {SECRET} is fine")
    engine = recorder(path, down, turn(text_block(0, "It is ", *pieces, ".")))
    finished = (await collect(engine, model_request(messages=({"role": "user", "content": SECRET},))))[-1]
    await engine.aclose()
    text = path.read_text()
    assert SECRET not in text
    assert not any(piece in text for piece in pieces)
    assert finished.redactions == 1
    played = (await collect(player(path)))[-1]
    assert played.content[0]["text"] == "It is [redacted:SECRET]."
