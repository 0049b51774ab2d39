"""What is typed: filters, `:` commands, the editor, keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toka_console import colon, completion, filters, keymap
from toka_console.actions import ACTIONS, BY_FORM, SCREENS
from toka_console.handlers import HANDLERS
from toka_console.lineedit import LineEdit
from toka_console.typed import Typed

AGENTS = ["build-system", "build-tools", "docs"]


def words(takes: str) -> list[str]:
    return {"agent": AGENTS, "theme": ["dark", "light"]}.get(takes, [])


# -- filters ------------------------------------------------------------------------------------------------------


@given(st.text())
def test_any_filter_is_parsed_or_refused(source: str) -> None:
    try:
        parsed = filters.parse(source, ("name", "state"))
    except filters.FilterError:
        return
    assert isinstance(parsed.matches({"name": "x", "text": source}), bool)


@given(st.text(st.characters(categories=("L", "N")), min_size=1))
def test_a_word_finds_itself(word: str) -> None:
    assert filters.parse(word, ()).matches({"text": f"before {word} after"})
    assert not filters.parse(f"!{word}", ()).matches({"text": f"before {word} after"})


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(filters.FilterError, match="did you mean state:"):
        filters.parse("stat:running", ("state", "name"))


def test_quotes_keep_spaces_and_colons() -> None:
    assert filters.parse("'a b'", ()).matches({"text": "xx A B yy"})
    assert filters.parse('"odd:text"', ()).matches({"text": "an odd:text"})
    assert filters.parse('name:"a b"', ("name",)).matches({"name": "a b"})


@pytest.mark.parametrize(
    ("source", "figure", "found"),
    [
        ("age:>10m", 601, True),
        ("age:>10m", 600, False),
        ("age:<=1.5h", 5400, True),
        ("age:>1d", 90_000, True),
        ("age:30", 30, True),
        ("mem:>200M", 201 * 2**20, True),
        ("mem:>200MiB", 200 * 2**20, False),
        ("mem:<1g", 2**30 - 1, True),
        ("cpu:>50%", 0.51, True),
        ("cpu:>.5", 0.01, True),
        ("n:>10k", 10_001, True),
        ("n:1,3", 3, True),
        ("n:1,3", 2, False),
        ("!n:>1", 1, True),
        ("cost:>$1", 1.01, True),
    ],
)
def test_figures_are_compared(source: str, figure: float, found: bool) -> None:
    key = source.removeprefix("!").partition(":")[0]
    numbers: filters.NumberKeys = {"age": "time", "mem": "size", "cpu": "percent", "n": "count", "cost": "money"}
    assert filters.parse(source, (), numbers).matches({key: figure}) is found


@pytest.mark.parametrize("source", ["cpu:>many", "mem:>1x", "mem:>>1", "age:>", "n:1h", "n:>1 mem:high"])
def test_what_cannot_be_compared_is_refused_with_an_example(source: str) -> None:
    with pytest.raises(filters.FilterError, match=r"cannot be compared; write it as \w+:>\d"):
        filters.parse(source, (), {"cpu": "percent", "mem": "size", "age": "time", "n": "count"})


def test_what_is_unknown_is_neither_more_nor_less() -> None:
    numbers: filters.NumberKeys = {"n": "count"}
    for source in ("n:>0", "n:<=0", "n:0"):
        assert not filters.parse(source, (), numbers).matches({"n": ""})


def test_an_unknown_key_is_held_against_figures_too() -> None:
    with pytest.raises(filters.FilterError, match="did you mean mem:"):
        filters.parse("men:>1", ("name",), {"mem": "size"})


def test_several_values_and_exact_ones() -> None:
    keys = ("state", "host")
    assert filters.parse("state:failed,killed", keys).matches({"state": "killed"})
    assert not filters.parse("!state:failed,killed", keys).matches({"state": "killed"})
    assert filters.parse("host:a", keys).matches({"host": "beta"})
    assert not filters.parse("host:=a", keys).matches({"host": "beta"})
    assert filters.parse("host:=a,b", keys).matches({"host": "B"})


def test_times_and_paths_are_words_not_keys() -> None:
    assert filters.parse("12:30", ()).matches({"text": "at 12:30"})


# -- the `:` line -------------------------------------------------------------------------------------------------


def test_a_command_with_its_agent() -> None:
    parsed = colon.parse("kill docs", words)
    assert (parsed.action.id, parsed.argument) == ("agent.kill", "docs")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("kil docs", "no command :kil; did you mean kill?"),
        ("kill dosc", "no agent dosc; did you mean docs?"),
        ("quit now", ":quit takes no argument"),
        ("xyzzy", "no command :xyzzy; nothing was done"),
        ("KILL docs", "no command :KILL"),
        ("kill build", "no agent build"),
        ("theme lihgt", "no theme lihgt; did you mean light?"),
    ],
)
def test_what_is_not_exact_is_refused_with_the_nearest(line: str, message: str) -> None:
    with pytest.raises(colon.ColonError, match=message.replace("?", r"\?")):
        colon.parse(line, words)


@pytest.mark.parametrize(
    ("line", "text", "candidates"),
    [
        ("ki", "kill ", ["kill"]),
        ("kill b", "kill build-", ["build-system", "build-tools"]),
        ("kill d", "kill docs", ["docs"]),
        ("kill z", "kill z", []),
        ("resta", "restart ", ["restart"]),
        ("quit x", "quit x", []),
        ("theme l", "theme light", ["light"]),
        ("filter x", "filter x", []),
        ("zzz", "zzz", []),
    ],
)
def test_completion_goes_as_far_as_it_is_certain(line: str, text: str, candidates: list[str]) -> None:
    assert colon.complete(line, words) == (text, candidates)


@given(st.text())
def test_any_line_is_parsed_or_refused(line: str) -> None:
    colon.complete(line, words)
    try:
        parsed = colon.parse(line, words)
    except colon.ColonError:
        return
    assert line.strip().split(" ")[0] in BY_FORM
    assert parsed.action in ACTIONS


def test_completion_never_changes_what_was_typed() -> None:
    for form in BY_FORM:
        for length in range(1, len(form) + 1):
            assert colon.complete(form[:length], words)[0].startswith(form[:length])


# -- completion of filters ----------------------------------------------------------------------------------------


def values(key: str) -> list[str]:
    return {"state": ["paused", "pending", "running"], "host": ["a b"]}.get(key, [])


@pytest.mark.parametrize(
    ("line", "text", "candidates"),
    [
        ("sta", "state:", ["state:"]),
        ("word !st", "word !state:", ["state:"]),
        ("state:pa", "state:paused", ["paused"]),
        ("x state:p", "x state:p", ["paused", "pending"]),
        ("state:running,pa", "state:running,paused", ["paused"]),
        ("!state:=pe", "!state:=pending", ["pending"]),
        ("state:RU", "state:running", ["running"]),
        ("host:", 'host:"a b"', ['"a b"']),
        ("stat:pa", "stat:pa", []),
        ("", "", []),
        ("x ", "x ", []),
    ],
)
def test_a_filter_is_completed_by_key_and_value(line: str, text: str, candidates: list[str]) -> None:
    assert completion.filter_word(line, ["state", "host"], values) == (text, candidates)


@given(st.text())
def test_completing_a_filter_never_fails(line: str) -> None:
    completion.filter_word(line, ["state", "host"], values)


# -- what was typed before ----------------------------------------------------------------------------------------


async def test_lines_are_kept_from_one_session_to_the_next(tmp_path: Path) -> None:
    file = tmp_path / "state" / "typed.json"
    first = Typed(file)
    assert await first.load() == ""
    assert [first.add("command", text) for text in ("kill a", "kill b", "kill b", "kill a", "")] == [True] * 2 + [
        False, True, False,
    ]  # fmt: skip
    first.add("filter", "state:paused")
    assert await first.save() == ""
    assert file.stat().st_mode & 0o777 == 0o600
    second = Typed(file)
    second.add("command", "quick")
    assert await second.load() == ""
    assert second.lines == {"command": ["kill b", "kill a", "quick"], "filter": ["state:paused"]}


async def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    lines = Typed(tmp_path / "typed.json")
    for number in range(500):
        lines.add("filter", f"word{number}")
    assert not lines.add("filter", "x" * 1000)
    assert lines.lines["filter"][-1] == "word499"
    assert len(lines.lines["filter"]) == 200


@pytest.mark.parametrize(
    "data", [b"{", b"\xff", b"[[]]", b'{"filter": 5}', b'{"command": [1]}', b'{"command": ["a\\u001b"]}', b" " * 2**21]
)
async def test_a_damaged_history_is_ignored_with_a_note(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "typed.json"
    file.write_bytes(data)
    lines = Typed(file)
    assert "is ignored" in await lines.load()
    assert lines.lines == {"command": [], "filter": []}


async def test_a_history_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lines = Typed(tmp_path / "file" / "typed.json")
    assert "cannot be written" in await lines.save()


# -- the editor ---------------------------------------------------------------------------------------------------


EDITS = ["left", "right", "home", "end", "backspace", "delete", "ctrl+u", "ctrl+k", "ctrl+w", "x", "é"]


@given(st.lists(st.sampled_from(EDITS)))
def test_the_cursor_stays_in_the_text(keys: list[str]) -> None:
    edit = LineEdit()
    edit.set("pause build")
    for key in keys:
        if len(key) == 1:
            edit.insert(key)
        else:
            assert edit.key(key)
        assert 0 <= edit.cursor <= len(edit.text)


def test_editing() -> None:
    edit = LineEdit()
    edit.insert("kill a\x1bb")
    assert edit.text == "kill ab", "controls are no text"
    edit.key("ctrl+w")
    assert edit.text == "kill "
    edit.key("home")
    edit.insert("x")
    assert edit.text == "xkill "


# -- the registry and its keys ------------------------------------------------------------------------------------


def test_every_action_has_a_handler_a_help_line_and_a_form() -> None:
    assert set(HANDLERS) == {action.id for action in ACTIONS}
    for action in ACTIONS:
        assert action.help
        assert action.form
    assert len(BY_FORM) == sum(1 + len(action.aliases) for action in ACTIONS), "no form means two things"


def test_the_default_keys_have_no_conflict() -> None:
    assert keymap.build()[1] == []


def test_a_key_that_changes_state_means_nothing_else_anywhere() -> None:
    table = keymap.build()[0].table
    changing = {action.id for action in ACTIONS if action.changes_state}
    for key in {key for (_, key), action in table.items() if action in changing}:
        assert len({action for (_, other), action in table.items() if other == key}) == 1, key


def test_destruction_is_a_capital_letter_and_no_chord_destroys() -> None:
    for action in ACTIONS:
        if action.dangerous:
            assert all(len(key) == 1 and key.isupper() for key in action.keys)
        if action.group == "Contain":
            assert all(not key.isupper() for key in action.keys)


def test_keys_can_be_changed_and_taken_away() -> None:
    made, problems = keymap.build({"agent.toggle": ("P", "ctrl-p"), "view.palette": ()})
    assert problems == []
    assert made.action("fleet", "P").id == "agent.toggle"  # type: ignore[union-attr] # it is there
    assert made.action("fleet", "ctrl+p").id == "agent.toggle"  # type: ignore[union-attr] # it is there
    assert made.action("fleet", "p") is None


@pytest.mark.parametrize(
    ("custom", "message"),
    [
        ({"agent.kil": ("x",)}, "no action agent.kil; did you mean agent.kill?"),
        ({"view.theme": ("j",)}, "key j on every screen: both view.theme and cursor.down"),
    ],
)
def test_a_conflict_is_reported_and_the_defaults_stay(custom: dict[str, tuple[str, ...]], message: str) -> None:
    made, problems = keymap.build(custom)
    assert [problem.message for problem in problems if message in problem.message]
    assert made.action("fleet", "K").id == "agent.kill"  # type: ignore[union-attr] # it is there


def test_every_screen_can_be_left_and_has_help() -> None:
    made = keymap.build()[0]
    for screen in SCREENS:
        assert made.action(screen, "?") is not None
        assert made.action(screen, "q") is not None
        assert made.action(screen, "escape") is not None
