"""A stream is believed only as far as it goes."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.model_requests import LIST_FILES, hello_turn, text_block, tool_block, turn
from toka_runtime.errors import ModelRefused, ModelStreamBroken, ModelUnavailable, PromptTooLong
from toka_runtime.llm.assembly import Assembly
from toka_runtime.llm.base import Delta, Finished
from toka_runtime.llm.failures import TryFailed

WRITE = {
    "name": "write_file",
    "description": "Write.",
    "input_schema": {
        "type": "object",
        "properties": {"path": {"type": "string"}, "content": {"type": "string"}},
        "required": ["path", "content"],
    },
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=8), JSON, max_size=4)


def assemble(events: list[dict[str, Any]], tools: tuple[dict[str, Any], ...] = (LIST_FILES, WRITE)) -> Finished:
    assembly = Assembly(tools)
    for event in events:
        assembly.feed(event)
    return assembly.end()


def cut(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted({place % (len(text) + 1) for place in places}), len(text)]
    return [text[a:b] for a, b in pairwise(edges)]


def test_a_text_turn_and_its_deltas() -> None:
    assembly = Assembly()
    deltas = [delta for event in hello_turn("Hello there") if (delta := assembly.feed(event))]
    assert deltas == [Delta(kind="text", text="Hello "), Delta(kind="text", text="there ")]
    finished = assembly.end()
    assert finished.content == ({"type": "text", "text": "Hello there "},)
    assert (finished.stop_reason, finished.model) == ("end_turn", "claude-test")
    assert (finished.usage.input_tokens, finished.usage.output_tokens, finished.usage.estimated) == (100, 20, False)


def test_a_tool_call_is_parsed_when_its_block_is_closed() -> None:
    finished = assemble(turn(tool_block(0, "list_files", '{"pa', 'th": "."}'), stop="tool_use"))
    assert finished.content == ({"type": "tool_use", "id": "toolu_1", "name": "list_files", "input": {"path": "."}},)
    assert finished.rejected_tools == ()


@given(OBJECTS, st.lists(st.integers(0, 10_000), max_size=12))
def test_json_assembles_the_same_however_it_is_cut(value: dict[str, Any], places: list[int]) -> None:
    pieces = cut(json.dumps(value), places)
    finished = assemble(turn(tool_block(0, "unknown_tool", *pieces), stop="tool_use"))
    assert finished.content[0]["input"] == value


@given(
    st.lists(st.text(min_size=1, max_size=20), max_size=4),
    OBJECTS,
    st.lists(st.integers(0, 1000), max_size=5),
    st.data(),
)
def test_no_cut_of_a_stream_is_a_result(
    texts: list[str], value: dict[str, Any], places: list[int], data: st.DataObject
) -> None:
    pieces = cut(json.dumps(value), places)
    whole = turn(text_block(0, *texts), tool_block(1, "list_files", *pieces), stop="tool_use")
    kept = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ModelStreamBroken):
        assemble(whole[:kept])


@given(st.lists(st.sampled_from(turn(text_block(0, "a"), tool_block(1, "x", "{}"), stop="tool_use")), max_size=14))
def test_events_in_any_order_give_a_result_or_the_one_error(events: list[dict[str, Any]]) -> None:
    try:
        finished = assemble(events)
    except ModelStreamBroken:
        return
    # Whatever came through is whole: a call has its object, text is not empty.
    assert all(block["type"] != "tool_use" or isinstance(block["input"], dict) for block in finished.content)
    assert finished.stop_reason == "tool_use"


@given(
    st.lists(
        st.one_of(
            JSON,
            st.fixed_dictionaries(
                {
                    "type": st.sampled_from(
                        [
                            "message_start",
                            "message_delta",
                            "message_stop",
                            "content_block_start",
                            "content_block_delta",
                            "content_block_stop",
                        ]
                    )
                },
                optional={"index": JSON, "delta": JSON, "message": JSON, "content_block": JSON, "usage": JSON},
            ),
        ),
        max_size=6,
    )
)
def test_garbage_never_crashes(events: list[Any]) -> None:
    assembly = Assembly()
    try:
        for event in events:
            if isinstance(event, dict):
                assembly.feed(event)
        assembly.end()
    except (ModelStreamBroken, TryFailed):
        pass


@pytest.mark.parametrize("reason", ["max_tokens", "refusal", "model_context_window_exceeded"])
def test_a_turn_that_was_cut_keeps_its_text_and_none_of_its_calls(reason: str) -> None:
    whole_call = tool_block(1, "list_files", '{"path": "."}')
    open_call = tool_block(2, "write_file", '{"path": "a", "con', call_id="toolu_2")[:-1]
    finished = assemble(turn(text_block(0, "Some text"), whole_call, open_call, stop=reason))
    assert finished.content == ({"type": "text", "text": "Some text"},)
    assert finished.cut_tools == ("list_files", "write_file")
    assert finished.stop_reason == reason


def test_a_cut_turn_that_was_nothing_but_a_call_says_so() -> None:
    finished = assemble(turn(tool_block(0, "write_file", '{"pa')[:-1], stop="max_tokens"))
    (block,) = finished.content
    assert block["type"] == "text"
    assert "write_file" in block["text"]


def test_calls_beside_another_stop_reason_do_not_come_through() -> None:
    finished = assemble(turn(tool_block(0, "list_files", '{"path": "."}'), stop="end_turn"))
    assert all(block["type"] != "tool_use" for block in finished.content)
    assert finished.cut_tools == ("list_files",)


@pytest.mark.parametrize("text", ['{"path": ', "[1]", '"x"', "nonsense", '{"a": NaN}', "[" * 100_000])
def test_an_input_that_is_no_json_object_breaks_the_stream(text: str) -> None:
    with pytest.raises(ModelStreamBroken, match="write_file"):
        assemble(turn(tool_block(0, "write_file", text), stop="tool_use"))


def test_an_input_that_does_not_fit_its_schema_stays_but_is_rejected() -> None:
    finished = assemble(turn(tool_block(0, "write_file", '{"path": 3}'), stop="tool_use"))
    assert finished.content[0]["input"] == {"path": 3}
    (rejected,) = finished.rejected_tools
    assert (rejected.id, rejected.name) == ("toolu_1", "write_file")
    assert "content" in rejected.reason


def test_a_call_without_any_input_is_an_empty_object() -> None:
    finished = assemble(turn(tool_block(0, "anything"), stop="tool_use"))
    assert finished.content[0]["input"] == {}


def test_tool_use_without_a_call_is_broken() -> None:
    with pytest.raises(ModelStreamBroken, match="calls none"):
        assemble(turn(text_block(0, "x"), stop="tool_use"))


def test_thinking_keeps_its_signature_and_is_dropped_without_one() -> None:
    def thinking(index: int, *deltas: dict[str, Any]) -> list[dict[str, Any]]:
        start = {"type": "thinking", "thinking": "", "signature": ""}
        return [
            {"type": "content_block_start", "index": index, "content_block": start},
            *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
            {"type": "content_block_stop", "index": index},
        ]

    said = {"type": "thinking_delta", "thinking": "Hm."}
    signed = thinking(0, said, {"type": "signature_delta", "signature": "c2ln"})
    finished = assemble(turn(signed, thinking(1, said), text_block(2, "Done.")))
    assert finished.content == (
        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
        {"type": "text", "text": "Done."},
    )


def test_empty_text_is_left_out_because_the_api_refuses_it_back() -> None:
    finished = assemble(turn(text_block(0), tool_block(1, "list_files", '{"path": "."}'), stop="tool_use"))
    assert [block["type"] for block in finished.content] == ["tool_use"]


def test_unknown_events_and_later_ones_are_ignored() -> None:
    events = hello_turn()
    finished = assemble([events[0], {"type": "brand_new"}, *events[1:], {"type": "error", "error": {}}])
    assert finished.stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("kind", "error", "retryable"),
    [
        ("overloaded_error", ModelUnavailable, True),
        ("api_error", ModelUnavailable, True),
        ("rate_limit_error", ModelUnavailable, True),
        ("", ModelUnavailable, True),
        ("something_else", ModelUnavailable, True),
        ("authentication_error", ModelRefused, False),
        ("invalid_request_error", ModelRefused, False),
    ],
)
def test_an_error_event_is_judged_by_its_type(kind: str, error: type[Exception], retryable: bool) -> None:
    assembly = Assembly()
    assembly.feed(hello_turn()[0])
    with pytest.raises(TryFailed) as failed:
        assembly.feed({"type": "error", "error": {"type": kind, "message": "no"}})
    assert type(failed.value.error) is error
    assert failed.value.retryable is retryable


def test_an_error_event_about_length_asks_for_compaction() -> None:
    event = {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}}
    with pytest.raises(TryFailed) as failed:
        Assembly().feed(event)
    assert isinstance(failed.value.error, PromptTooLong)


def test_usage_of_a_broken_stream_is_estimated_from_its_text() -> None:
    assembly = Assembly()
    for event in turn(text_block(0, "x" * 350), cache_read_input_tokens=7, cache_creation_input_tokens=9)[:3]:
        assembly.feed(event)
    usage = assembly.usage
    assert (usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens) == (100, 7, 9)
    assert (usage.output_tokens, usage.estimated) == (100, True)


def test_usage_of_a_server_that_counts_late_or_not_at_all() -> None:
    events = hello_turn()
    events[0]["message"]["usage"] = None
    events[-2]["usage"] = {
        "input_tokens": 50,
        "output_tokens": 5,
        "cache_read_input_tokens": None,
        "server_tool_use": {},
    }
    usage = assemble(events).usage
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (50, 5, False)


def test_an_emoji_that_a_server_cut_in_two_is_whole_again() -> None:
    assembly = Assembly()
    shown = [assembly.feed(event) for event in turn(text_block(0, "a\ud83d", "\ude00b", "\ud800"))]
    "".join(delta.text for delta in shown if delta).encode()
    assert assembly.end().content[0]["text"] == "a😀b\ufffd"
