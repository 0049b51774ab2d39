"""The journal: the latest conversation, what it was before, and which tool calls nobody knows the end of."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes import events as fake
from fakes.clock import FakeClock
from toka_runtime.errors import StoreError
from toka_runtime.store.events import EventStore
from toka_runtime.store.transcripts import MAX_MESSAGE_BYTES, Transcripts

RUN = "r1"


def say(*texts: str) -> list[dict[str, object]]:
    return [{"role": "user", "content": text} for text in texts]


@pytest.fixture
def journal(store: EventStore) -> Transcripts:
    return Transcripts(store)


async def test_a_conversation_grows(journal: Transcripts) -> None:
    assert await journal.conversation(RUN, 0, 1) == []
    await journal.record(RUN, 0, 1, 0, say("a", "b"))
    await journal.record(RUN, 0, 1, 2, [{"role": "assistant", "content": [{"type": "text", "text": "日本 \x00"}]}])
    await journal.record(RUN, 0, 1, 3, [])
    assert await journal.conversation(RUN, 0, 1) == [
        *say("a", "b"),
        {"role": "assistant", "content": [{"type": "text", "text": "日本 \x00"}]},
    ]


async def test_tasks_attempts_and_runs_are_apart(journal: Transcripts) -> None:
    places = [("r1", 0, 1), ("r1", 0, 2), ("r1", 1, 1), ("r2", 0, 1)]
    for place in places:
        await journal.record(*place, 0, say(str(place)))
    for place in places:
        assert await journal.conversation(*place) == say(str(place))


async def test_a_compacted_conversation_keeps_its_earlier_generations(journal: Transcripts) -> None:
    await journal.record(RUN, 0, 1, 0, say("task", "b", "c", "d"))
    await journal.record(RUN, 0, 1, 1, say("summary of b, c, d"))
    await journal.record(RUN, 0, 1, 2, say("e"))
    await journal.record(RUN, 0, 1, 2, say("e again"))
    assert await journal.conversation(RUN, 0, 1) == say("task", "summary of b, c, d", "e again")
    turns = await journal.turns(RUN, 0, 1)
    assert [(turn.message["content"], turn.position, turn.since, turn.until) for turn in turns] == [
        ("task", 0, 0, None),
        ("b", 1, 0, 1),
        ("c", 2, 0, 1),
        ("d", 3, 0, 1),
        ("summary of b, c, d", 1, 1, None),
        ("e", 2, 1, 2),
        ("e again", 2, 2, None),
    ]
    first = await journal.turns(RUN, 0, 1, generation=0)
    assert [turn.message["content"] for turn in first] == ["task", "b", "c", "d"]
    second = await journal.turns(RUN, generation=1)
    assert [turn.message["content"] for turn in second] == ["task", "summary of b, c, d", "e"]


async def test_a_base_beyond_what_is_on_record_is_refused(journal: Transcripts) -> None:
    await journal.record(RUN, 0, 1, 0, say("a"))
    for base in (2, -1):
        with pytest.raises(StoreError, match="1 messages are on record"):
            await journal.record(RUN, 0, 1, base, say("b"))
    assert await journal.conversation(RUN, 0, 1) == say("a")


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3)), max_size=12))
async def test_any_sequence_of_records_is_a_list_cut_and_extended(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[float, int]]
) -> None:
    store = await EventStore.open(tmp_path_factory.mktemp("state"), host=fake.HOST, clock=FakeClock())
    journal = Transcripts(store)
    expected: list[dict[str, object]] = []
    generations: list[list[dict[str, object]]] = [[]]
    for number, (share, count) in enumerate(steps):
        base = round(share * len(expected))
        added = say(*(f"{number}.{n}" for n in range(count)))
        await journal.record(RUN, 0, 1, base, added)
        if base < len(expected):
            generations.append([])
        expected = expected[:base] + added
        generations[-1] = expected
        assert await journal.conversation(RUN, 0, 1) == expected
    for generation, was in enumerate(generations):
        turns = await journal.turns(RUN, 0, 1, generation=generation)
        assert [turn.message for turn in sorted(turns, key=lambda turn: turn.position)] == was
    await store.aclose()


async def test_everything_is_there_after_a_restart(journal: Transcripts, store: EventStore, open_store) -> None:
    await journal.record(RUN, 0, 1, 0, say("a"))
    await journal.record_result(RUN, 0, 1, {"status": "done", "summary": "é"})
    await journal.tool_begun(RUN, "t1", task=0, attempt=1, tool="run", arguments={"command": "make"})
    await store.aclose()
    again = Transcripts(await open_store())
    assert await again.conversation(RUN, 0, 1) == say("a")
    assert (await again.results(RUN))[0].result == {"status": "done", "summary": "é"}
    (call,) = await again.open_calls(RUN)
    assert (call.call, call.task, call.attempt, call.tool, call.arguments, call.outcome) == (
        "t1",
        0,
        1,
        "run",
        {"command": "make"},
        "",
    )


async def test_a_later_attempt_replaces_the_result(journal: Transcripts) -> None:
    await journal.record_result(RUN, 0, 1, {"status": "failed"})
    await journal.record_result(RUN, 1, 1, {"status": "done"})
    await journal.record_result(RUN, 0, 2, {"status": "done"})
    results = await journal.results(RUN)
    assert [(task, result.attempt, result.result["status"]) for task, result in results.items()] == [
        (0, 2, "done"),
        (1, 1, "done"),
    ]


async def test_a_call_is_open_until_it_ends_and_ends_once(journal: Transcripts, clock: FakeClock) -> None:
    for call in ("t2", "t1"):
        await journal.tool_begun(RUN, call, task=0, attempt=1, tool="read", arguments={"path": "a"})
    await clock.advance(1.5)
    await journal.tool_ended(RUN, "t2", "ok", {"content": "text"})
    assert [call.call for call in await journal.open_calls(RUN)] == ["t1"]
    await journal.tool_ended(RUN, "t1", "unknown")
    assert await journal.open_calls(RUN) == []
    calls = await journal.calls(RUN, 0, 1)
    assert [(call.call, call.outcome, call.result) for call in calls] == [
        ("t2", "ok", {"content": "text"}),
        ("t1", "unknown", None),
    ]
    assert calls[0].ended_at is not None
    assert (calls[0].ended_at - calls[0].begun_at).total_seconds() == 1.5
    with pytest.raises(StoreError, match="not open"):
        await journal.tool_ended(RUN, "t2", "ok")
    with pytest.raises(StoreError, match="not open"):
        await journal.tool_ended(RUN, "never begun", "ok")


async def test_the_same_call_is_never_begun_twice(journal: Transcripts) -> None:
    await journal.tool_begun(RUN, "t1", task=0, attempt=1, tool="run", arguments={})
    await journal.tool_begun("r2", "t1", task=0, attempt=1, tool="run", arguments={})
    with pytest.raises(StoreError, match="not repeated"):
        await journal.tool_begun(RUN, "t1", task=0, attempt=1, tool="run", arguments={})
    await journal.tool_ended(RUN, "t1", "ok")
    with pytest.raises(StoreError, match="not repeated"):
        await journal.tool_begun(RUN, "t1", task=0, attempt=1, tool="run", arguments={})


async def test_a_refused_record_takes_nothing_else_down(journal: Transcripts, store: EventStore) -> None:
    """One group commit holds a bad journal entry between good ones."""
    results = await asyncio.gather(
        journal.record(RUN, 0, 1, 0, say("a")),
        journal.record(RUN, 0, 1, 7, say("beyond")),
        store.append(fake.tool_started("c"), agent=fake.AGENTS[0]),
        journal.record(RUN, 0, 1, 1, say("b")),
        return_exceptions=True,
    )
    assert [type(result).__name__ for result in results] == ["NoneType", "StoreError", "Envelope", "NoneType"]
    assert await journal.conversation(RUN, 0, 1) == say("a", "b")


async def test_what_is_no_text_or_too_big_or_no_json(journal: Transcripts) -> None:
    await journal.record(RUN, 0, 1, 0, say("torn \ud800"))
    assert await journal.conversation(RUN, 0, 1) == say("torn \ufffd")
    with pytest.raises(StoreError, match="at most"):
        await journal.record(RUN, 0, 1, 1, say("x" * MAX_MESSAGE_BYTES))
    with pytest.raises(StoreError, match="cannot hold"):
        await journal.record(RUN, 0, 1, 1, [{"content": object()}])
    assert len(await journal.conversation(RUN, 0, 1)) == 1


async def test_nothing_of_it_is_readable_for_others(journal: Transcripts, tmp_path: Path) -> None:
    await journal.record(RUN, 0, 1, 0, say("secret"))
    assert all(file.stat().st_mode & 0o077 == 0 for file in (tmp_path / "state").iterdir())
