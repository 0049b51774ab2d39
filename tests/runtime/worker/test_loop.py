"""The agent loop against a scripted runtime. `LoopRuntime` checks the whole conversation at every frame."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.loop_runtime import LoopRuntime, finish_call, results, said, text, use
from toka_runtime.worker import loop
from toka_runtime.worker.frames import encode


@pytest.fixture
def runtime() -> Iterator[LoopRuntime]:
    runtime = LoopRuntime()
    yield runtime
    assert runtime.end() in {0, 3}


def begun(runtime: LoopRuntime, prompt: str = "Do it.", **limits: int) -> LoopRuntime:
    runtime.hello(**limits)
    runtime.task(prompt)
    runtime.expect_model()
    return runtime


def test_a_task_from_prompt_to_finish(runtime: LoopRuntime) -> None:
    begun(runtime, "Sort the list.")
    assert runtime.mirror == [{"role": "user", "content": "Sort the list."}]
    assert (runtime.pending["task"], runtime.pending["turn"]) == (0, 1)
    runtime.answer(text("I look."), use("c1", "read_file", path="a"), stop="tool_use")
    call = runtime.expect_tool()
    assert call["call"] == {"id": "c1", "name": "read_file", "input": {"path": "a"}}
    runtime.result("3 1 2")
    asked = runtime.expect_model()
    assert (asked["base"], asked["turn"]) == (1, 2), "only what is new travels"
    assert results(runtime.mirror[-1]) == {"c1": "3 1 2"}
    runtime.answer(finish_call("c2"), stop="tool_use")
    runtime.expect_tool()
    runtime.result("accepted", finish=True)
    done = runtime.expect_done()
    assert done["outcome"] == "finished"
    assert done["finish"] == {"status": "done", "summary": "did it", "evidence": ["x"]}
    assert results(runtime.mirror[-1]) == {"c2": "accepted"}


def test_several_calls_in_one_turn_run_in_order_and_are_answered_together(runtime: LoopRuntime) -> None:
    begun(runtime)
    runtime.answer(use("a"), use("b"), use("c"), stop="tool_use")
    for call_id, content, is_error in (("a", "A", False), ("b", "no such file", True), ("c", "C", False)):
        assert runtime.expect_tool()["call"]["id"] == call_id
        runtime.result(content, is_error=is_error)
    runtime.expect_model()
    blocks = runtime.mirror[-1]["content"]
    assert [(b["tool_use_id"], b["content"], b.get("is_error", False)) for b in blocks] == [
        ("a", "A", False),
        ("b", "no such file", True),
        ("c", "C", False),
    ]


def test_calls_after_finish_in_the_same_turn_are_skipped(runtime: LoopRuntime) -> None:
    begun(runtime)
    runtime.answer(use("a"), finish_call("f"), use("late", "write_file"), stop="tool_use")
    assert runtime.expect_tool()["call"]["id"] == "a"
    runtime.result("A")
    assert runtime.expect_tool()["call"]["id"] == "f"
    runtime.result("accepted", finish=True)
    assert runtime.expect_done()["outcome"] == "finished"
    assert results(runtime.mirror[-1])["late"] == loop.SKIPPED


def test_a_finish_that_is_refused_does_not_finish(runtime: LoopRuntime) -> None:
    begun(runtime)
    runtime.answer(finish_call("f", status="maybe"), stop="tool_use")
    runtime.expect_tool()
    runtime.result("status must be one of …", is_error=True)
    runtime.expect_model()


def test_an_empty_result_is_said_to_be_empty(runtime: LoopRuntime) -> None:
    begun(runtime)
    runtime.answer(use("a"), stop="tool_use")
    runtime.expect_tool()
    runtime.result("")
    runtime.expect_model()
    assert results(runtime.mirror[-1]) == {"a": "(no output)"}


def test_a_call_in_an_answer_that_was_cut_never_runs(runtime: LoopRuntime) -> None:
    begun(runtime)
    runtime.answer(text("I write"), use("c", "write_file", path="a"), stop="max_tokens")
    assert runtime.expect_model()["turn"] == 2
    assert results(runtime.mirror[-1]) == {"c": loop.CUT_CALL}


def test_a_text_that_was_cut_is_continued_and_that_is_bounded(runtime: LoopRuntime) -> None:
    begun(runtime)
    for _ in range(loop.MAX_CUT_ANSWERS):
        runtime.answer(text("words and "), stop="max_tokens")
        runtime.expect_model()
        assert said(runtime.mirror[-1]) == loop.CUT_TEXT
    runtime.answer(text("words"), stop="max_tokens")
    done = runtime.expect_done()
    assert (done["outcome"], done["code"]) == ("failed", "worker.output_limit")


def test_only_cut_answers_in_a_row_count(runtime: LoopRuntime) -> None:
    begun(runtime)
    for number in range(loop.MAX_CUT_ANSWERS * 2):
        runtime.answer(text("cut"), stop="max_tokens")
        runtime.expect_model()
        runtime.answer(use(f"c{number}"), stop="tool_use")
        runtime.expect_tool()
        runtime.result()
        runtime.expect_model()


def test_a_refusal_fails_the_task_and_leaves_no_answer_behind(runtime: LoopRuntime) -> None:
    begun(runtime)
    runtime.answer(text("I won't."), use("c"), stop="refusal")
    done = runtime.expect_done()
    assert (done["outcome"], done["code"], done["message"]) == ("failed", "model.refused_task", "I won't.")
    assert len(runtime.mirror) == 1


def test_a_paused_turn_is_sent_again_and_grows_one_answer(runtime: LoopRuntime) -> None:
    begun(runtime)
    runtime.answer(text("searching"), {"type": "server_tool_use", "id": "s"}, stop="pause_turn")
    runtime.expect_model()
    assert [m["role"] for m in runtime.mirror] == ["user", "assistant"]
    runtime.answer(text("found"), use("c"), stop="tool_use")
    runtime.expect_tool()
    runtime.result()
    runtime.expect_model()
    assert [m["role"] for m in runtime.mirror] == ["user", "assistant", "user"]
    assert [b["type"] for b in runtime.mirror[1]["content"]] == ["text", "server_tool_use", "text", "tool_use"]


def test_pauses_are_bounded(runtime: LoopRuntime) -> None:
    begun(runtime)
    for _ in range(loop.MAX_PAUSES):
        runtime.answer(text("wait"), stop="pause_turn")
        runtime.expect_model()
    runtime.answer(text("wait"), stop="pause_turn")
    assert runtime.expect_done()["code"] == "worker.pause_limit"


def test_stopping_without_finish_is_nudged_and_then_unfinished(runtime: LoopRuntime) -> None:
    begun(runtime)
    for _ in range(loop.MAX_NUDGES):
        runtime.answer(text("I am done, I think."))
        runtime.expect_model()
        assert said(runtime.mirror[-1]) == loop.NUDGE
    runtime.answer(text("Really done."))
    done = runtime.expect_done()
    assert (done["outcome"], done["code"], done["message"]) == ("unfinished", "worker.no_finish", "Really done.")
    assert said(runtime.mirror[-1]) == "Really done.", "the last answer is part of the record"


def test_a_call_without_the_stop_reason_for_it_does_not_run(runtime: LoopRuntime) -> None:
    begun(runtime)
    runtime.answer(use("c", "write_file"), stop="end_turn")
    runtime.expect_model()
    assert "Not run" in results(runtime.mirror[-1])["c"]


@pytest.mark.parametrize("content", [[], [text("")], [text(" \n")], ["junk", None, 7]], ids=repr)
def test_an_empty_answer_is_met_with_a_word_and_never_sent_back(runtime: LoopRuntime, content: list[object]) -> None:
    begun(runtime)
    runtime.answer(*content)
    assert runtime.expect_model()["base"] == 0, "the last user message was replaced"
    assert said(runtime.mirror[-1]).endswith(loop.EMPTY)
    assert len(runtime.mirror) == 1


def test_unknown_blocks_are_kept_and_thinking_is_untouched(runtime: LoopRuntime) -> None:
    begun(runtime)
    thinking = {"type": "thinking", "thinking": "", "signature": "s"}
    runtime.answer(thinking, {"type": "novelty", "x": [1]}, text(""), use("c"), stop="tool_use")
    runtime.expect_tool()
    runtime.result()
    runtime.expect_model()
    assert runtime.mirror[1]["content"] == [thinking, {"type": "novelty", "x": [1]}, use("c")]


def test_calls_that_are_not_well_formed_are_answered_not_run(runtime: LoopRuntime) -> None:
    begun(runtime)
    runtime.answer(
        {"type": "tool_use", "id": "c", "name": "read_file", "input": [1]},
        {"type": "tool_use", "id": "d", "name": None, "input": {}},
        {"type": "tool_use", "name": "read_file", "input": {"path": "x"}},
        use("c", "read_file", path="y"),
        stop="tool_use",
    )
    third = runtime.expect_tool()["call"]
    assert third["input"] == {"path": "x"}
    runtime.result("x")
    fourth = runtime.expect_tool()["call"]
    assert fourth["input"] == {"path": "y"}
    assert len({"c", "d", third["id"], fourth["id"]}) == 4, "a missing or repeated id gets a new one"
    runtime.result("y")
    runtime.expect_model()
    answers = results(runtime.mirror[-1])
    assert "not a JSON object but list" in answers["c"]
    assert "no tool name" in answers["d"]


def test_a_model_error_fails_the_task_with_its_code(runtime: LoopRuntime) -> None:
    begun(runtime)
    runtime.fail("model.unavailable", "529 five times")
    done = runtime.expect_done()
    assert (done["outcome"], done["code"], done["message"]) == ("failed", "model.unavailable", "529 five times")


def test_the_turn_limit_is_announced_and_then_enforced(runtime: LoopRuntime) -> None:
    begun(runtime, max_turns=5)
    warned: list[int] = []
    for turn in range(1, 6):
        assert runtime.pending["turn"] == turn
        runtime.answer(use(f"c{turn}"), stop="tool_use")
        runtime.expect_tool()
        runtime.result()
        if runtime.receive()["t"] == "task.done":
            break
        if "turns are left" in said(runtime.mirror[-1]):
            warned.append(turn)
    assert warned == [2]
    assert (runtime.pending["outcome"], runtime.pending["code"]) == ("failed", "worker.turn_limit")


# -- cancel -----------------------------------------------------------------------------------------------------------


def test_cancel_while_the_model_thinks(runtime: LoopRuntime) -> None:
    begun(runtime)
    late = runtime.pending["id"]
    runtime.send(t="cancel")
    done = runtime.expect_done()
    assert (done["outcome"], done["messages"]) == ("cancelled", [])
    runtime.send(t="model.result", id=late, ok=True, content=[use("c")], stop_reason="tool_use", usage={})
    runtime.task("Another.", task=1)
    asked = runtime.expect_model()
    assert (asked["task"], said(runtime.mirror[-1])) == (1, "Another."), "an answer that comes too late is dropped"


def test_cancel_during_tool_calls_leaves_a_valid_history(runtime: LoopRuntime) -> None:
    begun(runtime)
    runtime.answer(use("a"), use("b"), use("c"), stop="tool_use")
    runtime.expect_tool()
    runtime.result("A")
    runtime.expect_tool()
    runtime.send(t="cancel")
    assert runtime.expect_done()["outcome"] == "cancelled"
    answers = results(runtime.mirror[-1])
    assert answers == {"a": "A", "b": loop.CANCELLED_CALL, "c": loop.CANCELLED_LATER}


def test_cancel_between_two_calls_starts_no_other(runtime: LoopRuntime) -> None:
    begun(runtime)
    runtime.answer(use("a"), use("b"), stop="tool_use")
    runtime.expect_tool()
    # Both are in the socket before the loop looks: the result is taken, the next call is not begun.
    data = b"".join(
        encode(frame)
        for frame in (
            {"t": "tool.result", "id": runtime.pending["id"], "content": "A", "is_error": False, "finish": False},
            {"t": "cancel"},
        )
    )
    runtime.sock.sendall(data)
    assert runtime.expect_done()["outcome"] == "cancelled"
    assert results(runtime.mirror[-1]) == {"a": "A", "b": loop.CANCELLED_LATER}


def test_a_cancel_that_comes_after_the_task_touches_nothing(runtime: LoopRuntime) -> None:
    begun(runtime)
    runtime.fail("model.refused")
    runtime.expect_done()
    runtime.send(t="cancel")
    runtime.task(task=1)
    assert runtime.expect_model()["task"] == 1


# -- resuming ---------------------------------------------------------------------------------------------------------


def test_an_interrupted_call_is_answered_with_an_unknown_outcome(runtime: LoopRuntime) -> None:
    history = [
        {"role": "user", "content": "Do it."},
        {"role": "assistant", "content": [use("a"), use("b")]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "A"}]},
        {"role": "assistant", "content": [use("c", "write_file")]},
    ]
    runtime.hello()
    runtime.task(history=history)
    asked = runtime.expect_model()
    assert (asked["base"], asked["turn"]) == (2, 3)
    assert set(results(runtime.mirror[2])) == {"a", "b"}
    assert "outcome is unknown" in results(runtime.mirror[-1])["c"]
    assert runtime.mirror[:2] == history[:2]


@pytest.mark.parametrize(
    ("history", "last"),
    [
        ([{"role": "user", "content": "P"}], "P"),
        ([{"role": "user", "content": "P"}, {"role": "assistant", "content": [text("hm")]}], "goes on now"),
        ([{"role": "assistant", "content": [text("hm")]}], "goes on now"),
        ([{"role": "user", "content": "P"}, {"role": "user", "content": "more"}], "P\nmore"),
        ([{"role": "user", "content": "P"}, {"role": "assistant", "content": []}], "P"),
        (
            [
                {"role": "user", "content": "P"},
                {"role": "assistant", "content": [text("hm")]},
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "stray", "content": "?"}, text("go")],
                },
            ],
            "go",
        ),
    ],
)
def test_a_history_is_made_valid(runtime: LoopRuntime, history: list[dict[str, object]], last: str) -> None:
    runtime.hello()
    runtime.task("P", history=history)
    runtime.expect_model()
    assert said(runtime.mirror[-1]).endswith(last) or last in said(runtime.mirror[-1])


def test_the_turns_of_the_history_count(runtime: LoopRuntime) -> None:
    history: list[dict[str, object]] = [{"role": "user", "content": "P"}]
    for number in range(3):
        history += [
            {"role": "assistant", "content": [use(f"c{number}")]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": f"c{number}", "content": "x"}]},
        ]
    runtime.hello(max_turns=3)
    runtime.task(history=history)
    assert runtime.expect_done()["code"] == "worker.turn_limit"


# -- the process ------------------------------------------------------------------------------------------------------


def test_goodbye_and_end_of_file_end_it_cleanly(runtime: LoopRuntime) -> None:
    runtime.hello()
    runtime.send(t="bye")
    assert runtime.frames.read() is None
    assert runtime.end() == 0

    other = begun(LoopRuntime())
    assert other.end() == 0, "also in the middle of a task"


@pytest.mark.parametrize("junk", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x02[]", b"\x00\x00\x00\x05{"])
def test_broken_frames_end_it_with_code_3(runtime: LoopRuntime, junk: bytes) -> None:
    runtime.hello()
    runtime.sock.sendall(junk)
    assert runtime.end() == 3


def test_frames_out_of_place_end_it_with_code_3() -> None:
    early = LoopRuntime()
    assert early.receive()["t"] == "ready"
    early.task()
    assert early.frames.read() is None
    assert early.end() == 3

    twice = begun(LoopRuntime())
    twice.task(task=1)
    assert twice.frames.read() is None
    assert twice.end() == 3


def test_it_runs_alone_on_an_inherited_socket(repo_root: Path) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", RUN_WORKER, str(repo_root / "runtime"), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
        )
    runtime = begun(LoopRuntime(ours))
    runtime.answer(finish_call(), stop="tool_use")
    runtime.expect_tool()
    runtime.result(finish=True)
    assert runtime.expect_done()["outcome"] == "finished"
    runtime.send(t="bye")
    assert process.wait(10) == 0


RUN_WORKER = """
import runpy, sys
sys.path.append(sys.argv.pop(1))
runpy.run_module("toka_runtime.worker", run_name="__main__", alter_sys=True)
"""
