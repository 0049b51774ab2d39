"""What comes from outside cannot act on the terminal: the boundary, on any text and any model."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from toka_console.clean import clean, clean_text, one_line
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.ids import AgentName, CallId, HostId
from toka_runtime.protocol.usage import Usage

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
ANY = st.text(st.characters())  # surrogates and controls included


def acts(text: str) -> list[str]:
    return [character for character in text if unicodedata.category(character) in ACTING and character not in "\n\t"]


@given(ANY)
@example("\x1b]52;c;aGk=\x07")
@example("\x9b31m\x85\u2028\u202e\u200d\ufeff\U000e0041\ud800\xad\x7f")
def test_nothing_that_acts_or_hides_is_left(text: str) -> None:
    assert acts(clean_text(text)) == []


def test_every_acting_character_of_unicode_is_marked() -> None:
    every = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in ACTING]
    assert acts(clean_text("".join(every))) == []


@given(ANY)
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    once = clean_text(text)
    assert clean_text(once) == once


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs"))))
def test_plain_text_passes_unchanged(text: str) -> None:
    assert clean_text(text) is text


def test_marks_can_be_read() -> None:
    assert clean_text("a\x1b[31mb\x07\x7f\u202ec\x9bd") == "a␛[31mb␇␡⟨RLO⟩c⟨U+009B⟩d"


def test_line_ends_stay_text() -> None:
    assert clean_text("one\r\ntwo\tthree\n") == "one\ntwo\tthree\n"
    assert one_line("one\r\ntwo\tthree") == "one⏎two three"


@given(ANY)
def test_one_line_is_one_line(text: str) -> None:
    assert "\n" not in one_line(text)
    assert "\t" not in one_line(text)


def envelope(event: object) -> ev.Envelope:
    return ev.Envelope(seq=1, at=NOW, host=HostId("h"), agent=AgentName("a"), event=event)  # type: ignore[arg-type] # any kind


def test_a_clean_envelope_is_passed_as_it_is() -> None:
    sampled = envelope(ev.AgentSampled(usage=Usage(cpu_fraction=0.5)))
    said = envelope(ev.OutputAppended(stream=ev.Stream.MODEL, text="fine\n\ttext"))
    assert clean(sampled) is sampled
    assert clean(said) is said


@given(st.recursive(ANY, lambda inner: st.lists(inner) | st.dictionaries(ANY, inner), max_leaves=8))
def test_arguments_are_clean_however_deep(value: object) -> None:
    cleaned = clean(envelope(ev.ToolCallStarted(call=CallId("c"), task=0, turn=0, tool="t", arguments={"x": value})))
    assert isinstance(cleaned.event, ev.ToolCallStarted)
    assert not [text for text in strings(cleaned.event.arguments) if acts(text)]


def test_keys_of_maps_are_clean_too() -> None:
    cleaned = clean(envelope(ev.UnknownEvent(kind="x\x1b", body={"k\x9b": ["\u202e"]})))
    assert isinstance(cleaned.event, ev.UnknownEvent)
    assert cleaned.event.kind == "x␛"
    assert cleaned.event.body == {"k⟨U+009B⟩": ["⟨RLO⟩"]}


@pytest.mark.parametrize("value", [3, 2.5, True, None, NOW, ev.Level.ERROR, b"\x1b"])
def test_what_is_no_text_passes(value: object) -> None:
    assert clean(value) is value


def strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in (*strings(key), *strings(item))]
    if isinstance(value, list | tuple):
        return [text for item in value for text in strings(item)]
    return []
