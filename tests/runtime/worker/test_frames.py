from __future__ import annotations

import json
import socket
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toka_runtime.worker import frames
from toka_runtime.worker.frames import MAX_FRAME_BYTES, FrameDecoder, FrameError, FrameSocket, decode, encode

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FRAMES = st.lists(st.dictionaries(st.text(), JSON, max_size=4), min_size=1, max_size=5)


@given(FRAMES, st.lists(st.integers(min_value=1, max_value=9), min_size=1))
def test_frames_come_out_as_they_went_in_however_the_bytes_are_cut(sent: list[dict[str, Any]], cuts: list[int]) -> None:
    data = b"".join(encode(frame) for frame in sent)
    decoder = FrameDecoder()
    received: list[dict[str, Any]] = []
    position = number = 0
    while position < len(data):
        step = cuts[number % len(cuts)]
        decoder.feed(data[position : position + step])
        position, number = position + step, number + 1
        while (frame := decoder.pop()) is not None:
            received.append(frame)
        assert decoder.missing_bytes > 0 or position >= len(data)
    assert received == sent
    assert len(decoder) == 0


@given(st.binary(max_size=200))
def test_any_bytes_give_frames_an_error_or_a_wish_for_more(data: bytes) -> None:
    decoder = FrameDecoder(max_bytes=1000)
    decoder.feed(data)
    try:
        while decoder.pop() is not None:
            pass
        assert decoder.missing_bytes > 0
    except FrameError:
        assert decoder.missing_bytes == 0, "whoever waits for more would never be asked to look"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"text"',
        b"null",
        b"{",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b'{"a": "\\uDFFF tail"}',
        b'{"\\ud800": 1}',
        b"{}{}",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' + b"9" * 10_000 + b"}",
    ],
    ids=lambda body: body[:16].decode(errors="replace"),
)
def test_a_body_that_is_not_one_json_object_of_valid_text_is_refused(body: bytes) -> None:
    with pytest.raises(FrameError):
        decode(body)


def test_a_pair_of_surrogate_escapes_is_valid_text() -> None:
    assert decode(b'{"a": "\\ud83d\\ude00"}') == {"a": "😀"}


def test_a_length_beyond_the_cap_is_refused_before_anything_is_stored() -> None:
    decoder = FrameDecoder()
    decoder.feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
    assert decoder.missing_bytes == 0
    with pytest.raises(FrameError, match="announces 16777217 bytes"):
        decoder.pop()


def test_good_frames_before_a_broken_one_are_delivered() -> None:
    decoder = FrameDecoder()
    decoder.feed(encode({"n": 1}) + (3).to_bytes(4, "big") + b"???")
    assert decoder.pop() == {"n": 1}
    with pytest.raises(FrameError):
        decoder.pop()


def test_what_cannot_be_sent_is_an_error_and_broken_names_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FrameError):
        encode({"a": float("nan")})
    with pytest.raises(FrameError):
        encode({"a": object()})
    assert decode(encode({"name": "broken \udcff name"})[4:]) == {"name": "broken ? name"}
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", 100)
    with pytest.raises(FrameError, match="longer than 100"):
        encode({"a": "x" * 100})


def test_the_blocking_side_reads_frames_and_tells_a_clean_end_from_a_cut() -> None:
    ours, theirs = socket.socketpair()
    peer = FrameSocket(theirs)
    assert not peer.waiting()
    ours.sendall(encode({"n": 1}) + encode({"n": 2}))
    assert peer.waiting()
    assert [peer.read(), peer.read()] == [{"n": 1}, {"n": 2}]
    ours.sendall(encode({"n": 3})[:-1])
    ours.close()
    with pytest.raises(FrameError, match="inside a frame"):
        peer.read()

    ours, theirs = socket.socketpair()
    ours.close()
    assert FrameSocket(theirs).waiting()
    assert FrameSocket(theirs).read() is None


def test_a_large_frame_travels_whole() -> None:
    ours, theirs = socket.socketpair()
    big = {"text": "ä" * 2_000_000}
    writer = threading.Thread(target=FrameSocket(ours).write, args=[big])
    writer.start()
    assert FrameSocket(theirs).read() == big
    writer.join()
    assert len(json.dumps(big)) > 4_000_000
