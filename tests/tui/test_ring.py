"""The output window: bounded whatever comes, nothing lost silently."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from toka_console.ring import MAX_LINE, Mark, OutputRing, Text, Tool

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PIECES = st.lists(
    st.tuples(st.sampled_from(["model", "stdout"]), st.text("ab \n", max_size=60) | st.just("x" * 3000)), max_size=30
)


def say(ring: OutputRing, text: str, stream: str = "model", call: str = "c") -> None:
    ring.text(NOW, stream, text, 0, 1, call)


def texts(ring: OutputRing) -> list[Text]:
    return [entry for entry in ring.entries if isinstance(entry, Text)]


@given(PIECES)
def test_all_text_is_kept_or_counted(pieces: list[tuple[str, str]]) -> None:
    ring = OutputRing(10**9)
    for stream, text in pieces:
        say(ring, text, stream)
    for stream in ("model", "stdout"):
        fed = "".join(text for name, text in pieces if name == stream)
        kept = [entry for entry in texts(ring) if entry.stream == stream]
        assert sum(len(entry.text) + entry.cut for entry in kept) == len(fed)
        assert sum(entry.text.count("\n") for entry in kept) == fed.count("\n")


@given(PIECES, st.integers(500, 5000))
def test_the_window_is_bounded_and_its_size_is_right(pieces: list[tuple[str, str]], capacity: int) -> None:
    ring = OutputRing(capacity)
    for stream, text in pieces:
        say(ring, text, stream)
        assert ring.size == sum(entry.size for entry in ring.entries)
        assert ring.size <= capacity or len(ring.entries) == 1


@given(PIECES)
def test_serials_are_contiguous(pieces: list[tuple[str, str]]) -> None:
    ring = OutputRing(2000)
    for stream, text in pieces:
        say(ring, text, stream)
    assert [entry.serial for entry in ring.entries] == list(range(ring.first_serial, ring.last_serial + 1))
    assert all(ring.get(entry.serial) is entry for entry in ring.entries)


def test_a_line_without_end_stays_small_and_says_what_was_cut() -> None:
    ring = OutputRing(10**9)
    for _ in range(90):
        say(ring, "y" * 1000)
    say(ring, "\nnext\n")
    long, after = texts(ring)
    assert len(long.text.rstrip("\n")) == MAX_LINE
    assert long.cut == 90_000 - MAX_LINE
    assert after.text == "next\n"


def test_what_falls_off_is_counted_in_lines() -> None:
    ring = OutputRing(3000)
    for number in range(100):
        say(ring, f"line {number}\n", call=str(number))
    shown = sum(entry.lines for entry in ring.entries)
    assert ring.dropped_lines + shown == 100


def test_a_tool_card_is_completed_in_place() -> None:
    ring = OutputRing(10**6)
    ring.tool_started(Tool(NOW, "c1", "read_file", "a.txt", {"path": "a.txt"}, 0, 1))
    say(ring, "meanwhile\n")
    ring.tool_ended("c1", "ok", 1.5, "12 lines", 340)
    card = ring.entries[0]
    assert isinstance(card, Tool)
    assert (card.outcome, card.duration_s, card.summary, card.version) == ("ok", 1.5, "12 lines", 1)


def test_a_tool_that_wrote_live_is_known_by_it() -> None:
    ring = OutputRing(10**6)
    live, silent = (Tool(NOW, call, "run_command", "make", {}, 0, 1) for call in ("c1", "c2"))
    ring.tool_started(live)
    ring.tool_started(silent)
    say(ring, "built\n", "stdout", "c1")
    say(ring, "of nobody\n", "stdout", "c3")
    assert (live.streamed, silent.streamed) == (True, False)


def test_the_end_of_a_call_that_left_the_window_is_harmless() -> None:
    ring = OutputRing(600)
    ring.tool_started(Tool(NOW, "c1", "read_file", "a.txt", {}, 0, 1))
    for _ in range(20):
        say(ring, "x" * 200 + "\n")
    ring.tool_ended("c1", "ok", 1.0, "", 0)
    assert not any(isinstance(entry, Tool) for entry in ring.entries)


def test_history_goes_in_front_as_far_as_there_is_room() -> None:
    ring, older = OutputRing(1000), OutputRing(10**6)
    ring.mark(NOW, "state", "new")
    for number in range(20):
        older.mark(NOW, "state", f"old {number}")
    ring.prepend(older.entries)
    marks = [entry.text for entry in ring.entries if isinstance(entry, Mark)]
    assert marks[-2:] == ["old 19", "new"]
    assert ring.dropped_lines == 20 - (len(marks) - 1)
    assert [entry.serial for entry in ring.entries] == list(range(ring.first_serial, ring.last_serial + 1))
