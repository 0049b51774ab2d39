"""Context that grows too large, and arbitrary models: the conversation stays valid, the task stays in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.loop_runtime import LoopRuntime, check_conversation, results, said, text, use
from toka_runtime.worker.compaction import NOTE_OPENING, compact
from toka_runtime.worker.conversation import Conversation, Message, resumable, size_tokens, tool_result


@pytest.fixture
def runtime() -> Iterator[LoopRuntime]:
    runtime = LoopRuntime()
    yield runtime
    assert runtime.end() == 0


def work(runtime: LoopRuntime, turns: int, result: str, **usage: int) -> None:
    """Turns with one call each, until before the next model request is received."""
    for number in range(turns):
        runtime.answer(use(f"c{id(usage)}-{number}", path=f"file{number}"), stop="tool_use", usage=usage)
        runtime.expect_tool()
        runtime.result(result)
        runtime.expect_model()


def test_old_results_are_shortened_first_and_only_what_changed_travels(runtime: LoopRuntime) -> None:
    runtime.hello(context_tokens=20_000, max_tokens=1000)
    runtime.task("The task itself.")
    runtime.expect_model()
    work(runtime, 9, "x" * 8000)
    assert len(runtime.notes) == 1
    assert "texts shortened, 0 turns left out" in runtime.notes[0]
    assert runtime.mirror[0] == {"role": "user", "content": "The task itself."}
    shortened = [next(iter(results(m).values())) for m in runtime.mirror[2::2]]
    assert shortened[0].startswith("[shortened: 8000 characters, SHA-256 ")
    assert shortened[-1] == "x" * 8000, "the last turns stay whole"
    assert size_tokens(runtime.mirror) < 16_000


def test_long_work_never_outgrows_the_context_and_keeps_the_task(runtime: LoopRuntime) -> None:
    runtime.hello(context_tokens=6_000, max_tokens=500, max_turns=500)
    runtime.task("The task itself.")
    runtime.expect_model()
    sizes: list[float] = []
    for number in range(120):
        # Every eighth turn is long in itself; inputs are long as well.
        runtime.answer(
            text("thinking aloud " * 10), use(f"c{number}", "write_file", content="y" * 900), stop="tool_use"
        )
        runtime.expect_tool()
        runtime.result("z" * (6000 if number % 8 == 0 else 600))
        runtime.expect_model()
        sizes.append(size_tokens(runtime.mirror))
        assert said(runtime.mirror[0]).startswith("The task itself.")
    assert max(sizes) <= 0.8 * 6_000
    note = said(runtime.mirror[0])
    assert note.count(NOTE_OPENING) == 1, "one note, brought up to date"
    assert "- write_file(content=" in note
    assert len(runtime.notes) < 40, "each compaction makes room for several turns"


def test_what_the_provider_counts_is_believed(runtime: LoopRuntime) -> None:
    """A tokenizer that needs three times as many tokens as estimated: compaction comes three times as early."""
    runtime.hello(context_tokens=20_000, max_tokens=1000)
    runtime.task()
    runtime.expect_model()
    turns = 0
    while not runtime.notes:
        tokens = int(size_tokens(runtime.mirror) * 3)
        assert tokens < 20_000, "the context would have overflowed"
        runtime.answer(
            use(f"c{turns}"), stop="tool_use", usage={"input_tokens": 10, "cache_read_tokens": max(0, tokens - 10)}
        )
        runtime.expect_tool()
        runtime.result("x" * 4000)
        runtime.expect_model()
        turns += 1
    assert turns < 8


def test_an_estimated_count_is_not_believed(runtime: LoopRuntime) -> None:
    runtime.hello(context_tokens=20_000, max_tokens=1000)
    runtime.task()
    runtime.expect_model()
    for number in range(4):
        runtime.answer(use(f"c{number}"), stop="tool_use", usage={"input_tokens": 900_000, "estimated": True})
        runtime.expect_tool()
        runtime.result("x" * 4000)
        runtime.expect_model()
    assert not runtime.notes


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("model.refused", "400 invalid_request_error: prompt is too long: 210000 tokens > 200000 maximum"),
        ("model.prompt_too_long", ""),
        ("model.refused", "this model's maximum context length is 8192 tokens"),
    ],
)
def test_a_prompt_that_is_too_long_is_compacted_once_and_sent_again(
    runtime: LoopRuntime, code: str, message: str
) -> None:
    runtime.hello()
    runtime.task()
    runtime.expect_model()
    work(runtime, 8, "x" * 5000)
    before = size_tokens(runtime.mirror)
    turn = runtime.pending["turn"]
    runtime.fail(code, message)
    again = runtime.expect_model()
    assert again["turn"] == turn
    assert size_tokens(runtime.mirror) < 0.7 * before
    runtime.fail(code, message)
    done = runtime.expect_done()
    assert (done["outcome"], done["code"]) == ("failed", code)


def test_when_nothing_can_be_left_out_the_error_stands(runtime: LoopRuntime) -> None:
    runtime.hello()
    runtime.task()
    runtime.expect_model()
    runtime.fail("model.prompt_too_long", "prompt is too long")
    assert runtime.expect_done()["code"] == "model.prompt_too_long"


def test_a_task_that_does_not_fit_at_all_fails_before_a_request(runtime: LoopRuntime) -> None:
    runtime.hello(context_tokens=2_000)
    runtime.task("word " * 5_000)
    done = runtime.expect_done()
    assert (done["outcome"], done["code"]) == ("failed", "worker.context_full")


def test_one_huge_result_is_cut_to_head_and_tail(runtime: LoopRuntime) -> None:
    runtime.hello(context_tokens=10_000, max_tokens=500)
    runtime.task()
    runtime.expect_model()
    work(runtime, 1, "HEAD" + "x" * 60_000 + "TAIL")
    (content,) = results(runtime.mirror[-1]).values()
    assert content.startswith("HEAD")
    assert content.endswith("TAIL")
    assert "characters left out" in content


# -- properties -------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["read_file", "write_file", "finish", "", None])
BLOCKS = st.one_of(
    st.builds(text, st.sampled_from(["", " ", "word", "w" * 3000])),
    st.fixed_dictionaries(
        {
            "type": st.just("tool_use"),
            "id": st.sampled_from(["a", "b", "c", "", None]),
            "name": NAMES,
            "input": st.sampled_from([{}, {"path": "x"}, {"content": "y" * 3000}, [], None, "s"]),
        }
    ),
    st.just({"type": "thinking", "thinking": "t" * 2000, "signature": "s"}),
    st.just({"type": "novelty"}),
)
ANSWERS = st.tuples(
    st.lists(BLOCKS, max_size=4),
    st.sampled_from(["tool_use", "tool_use", "tool_use", "end_turn", "max_tokens", "pause_turn", "stop_sequence", "?"]),
    st.sampled_from(["", "ok", "r" * 4000]),
    st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ANSWERS, min_size=1, max_size=25), st.integers(min_value=2_000, max_value=30_000), st.booleans())
def test_whatever_a_model_says_the_conversation_is_valid_and_the_task_ends(
    answers: list[tuple[list[Message], str, str, bool]], context: int, cancel: bool
) -> None:
    runtime = LoopRuntime()
    runtime.hello(context_tokens=context, max_turns=30)
    runtime.task("The task itself.")
    script = iter(answers)
    frame = runtime.receive()
    while frame["t"] != "task.done":
        assert said(runtime.mirror[0]).startswith("The task itself.")
        if frame["t"] == "tool":
            assert isinstance(frame["call"]["input"], dict)
            runtime.result(answer[2], is_error=answer[3])  # noqa: F821  # set by the model request before
        elif (answer := next(script, None)) is not None:
            runtime.answer(*answer[0], stop=answer[1])
        elif cancel:
            runtime.send(t="cancel")
        else:
            runtime.fail("model.unavailable")
        frame = runtime.receive()
    assert frame["outcome"] in {"failed", "unfinished", "cancelled"}
    assert runtime.end() == 0


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    talk = Conversation([])
    talk.append("user", "The task itself.")
    for number in range(draw(st.integers(min_value=0, max_value=12))):
        calls = [use(f"{number}.{n}", content="y" * draw(st.sampled_from([1, 2000]))) for n in range(draw(SMALL))]
        talk.append("assistant", [text("words"), *calls])
        answers = [tool_result(call["id"], "r" * draw(st.sampled_from([1, 500, 20_000]))) for call in calls]
        talk.append("user", [*answers, text("go on")])
    return talk.messages


SMALL = st.integers(min_value=0, max_value=3)


def tokens(messages: list[Message]) -> int:
    return int(size_tokens(messages))


@settings(max_examples=60, deadline=None)
@given(conversations(), st.integers(min_value=100, max_value=20_000))
def test_compaction_keeps_pairing_task_and_last_turn_and_is_deterministic(messages: list[Message], target: int) -> None:
    before = tokens(messages)
    done = compact(messages, target, tokens)
    check_conversation(done.messages)
    assert said(done.messages[0]).startswith("The task itself.")
    assert done.fits == (tokens(done.messages) <= target)
    if before <= target:
        assert done.messages == messages
        assert not done.shortened
    if len(messages) > 1:
        assert said(done.messages[-1]) == said(messages[-1])
    assert compact(messages, target, tokens) == done
    again = compact(done.messages, target, tokens)
    assert tokens(again.messages) <= tokens(done.messages) + 1


HISTORIES: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "assistant"]),
            "content": st.one_of(
                st.sampled_from(["", "words"]),
                st.lists(
                    st.one_of(
                        BLOCKS,
                        st.builds(tool_result, st.sampled_from(["a", "b", "zz"]), st.just("r")),
                    ),
                    max_size=4,
                ),
            ),
        }
    ),
    max_size=8,
)


@settings(max_examples=200, deadline=None)
@given(HISTORIES)
def test_any_history_becomes_a_valid_request(history: list[dict[str, Any]]) -> None:
    messages = resumable(history, "The task itself.")
    check_conversation(messages)
    assert messages[-1]["role"] == "user"


def test_deltas_add_up_to_the_conversation() -> None:
    talk = Conversation([{"role": "user", "content": "P"}])
    assert talk.delta() == (1, [])
    talk.append("assistant", [use("a")])
    talk.append("user", [tool_result("a", "x")])
    base, tail = talk.delta()
    assert (base, len(tail)) == (1, 2)
    talk.append("user", [text("more")])
    base, tail = talk.delta()
    assert (base, len(tail)) == (2, 1), "a message that was added to is sent again"
