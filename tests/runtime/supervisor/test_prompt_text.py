"""Foreign text made fit for names, messages and prompts."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from toka_runtime.supervisor.text import cut, one_line, printable, safe_component


@given(st.text(st.characters(), max_size=300))
def test_printable_text_can_do_nothing_to_a_terminal(text: str) -> None:
    clean = printable(text)
    for c in clean:
        assert c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
    clean.encode("utf-8")
    assert printable(clean) == clean


@given(st.text(max_size=300), st.integers(40, 100))
def test_cut_text_fits(text: str, limit: int) -> None:
    assert len(cut(text, limit)) <= limit
    assert len(one_line(text, limit)) <= limit
    assert "\n" not in one_line(text, limit)


def test_what_is_cut_is_counted() -> None:
    assert cut("x" * 100, 50).endswith(" … (+50 characters)")
    assert one_line(" a \n\t b  ", 10) == "a b"
    assert one_line("abcdef", 4) == "abc…"


@given(st.text(st.characters(), max_size=200))
def test_a_component_stays_where_it_is_put(name: str) -> None:
    safe = safe_component(name)
    assert safe not in ("", ".", "..")
    assert not set(safe) & set("/\\\0\n ")
    assert safe[0] != "."
    assert safe[0] != "-"
    assert len(safe.encode()) <= 100


@given(st.text(st.characters(), max_size=50), st.text(st.characters(), max_size=50))
def test_two_names_never_share_a_component(one: str, other: str) -> None:
    if one != other:
        assert safe_component(one) != safe_component(other)


def test_plain_names_are_kept() -> None:
    assert safe_component("build-system-stabilization") == "build-system-stabilization"
    assert safe_component("../../etc/passwd").startswith("etc-passwd-")
