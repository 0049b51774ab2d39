"""Screen 4, Logs: lines by time, filtered, searched, followed, copied, exported; whatever is printed, bounded."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from pathlib import Path

import pytest

from fakes import fleet
from fakes.client import FakeRuntimeClient
from fakes.clock import FakeClock
from fakes.console import Console, console
from toka_console import clipboard, log_window
from toka_console.log_window import KEPT_LINES, MOST_CHARS, MOST_LINES, LogWindow
from toka_console.panes.logs import LogsPane
from toka_console.ring import MAX_LINE
from toka_runtime.protocol import commands as cmd
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.ids import CallId

FIRST, SECOND = fleet.NAMES[0][0], fleet.NAMES[1][0]
SIZES = [(200, 50), (80, 24), (60, 15)]


def printed(text: str, stream: ev.Stream = ev.Stream.STDOUT, call: str = "c") -> ev.OutputAppended:
    return ev.OutputAppended(stream=stream, text=text, task=0, call=CallId(call))


def window(*texts: str) -> tuple[LogWindow, FakeRuntimeClient]:
    client, made = FakeRuntimeClient(), LogWindow()
    for text in texts:
        made.add(client.emit(printed(text), FIRST))
    made.settle()
    return made, client


# -- the window -------------------------------------------------------------------------------------------------------


def test_pieces_become_lines_of_their_own_call_and_stream() -> None:
    made, client = window("one\ntw", "o\nthr")
    made.add(client.emit(printed("other\n", call="d"), SECOND))
    made.add(client.emit(printed("err\n", ev.Stream.STDERR), FIRST))
    made.add(client.emit(printed("ee\n"), FIRST))
    made.settle()
    assert [(line.agent, line.stream, line.text) for line in made.lines] == [
        (FIRST, "stdout", "one"),
        (FIRST, "stdout", "two"),
        (FIRST, "stdout", "three"),
        (SECOND, "stdout", "other"),
        (FIRST, "stderr", "err"),
    ]
    assert [line.is_problem for line in made.lines] == [False, False, False, False, True]


def test_what_a_model_says_is_no_log() -> None:
    made, client = window()
    made.add(client.emit(printed("thought\n", ev.Stream.MODEL), FIRST))
    made.settle()
    assert made.lines == []


@pytest.mark.parametrize("size", [90_000, 5_000_000])
def test_a_long_line_is_cut_here_and_counted(size: int) -> None:
    made, client = window("x" * size + "\nnext\n")
    first, second = made.lines
    assert (len(first.text), first.cut, second.text) == (MAX_LINE, size - MAX_LINE, "next")
    for _ in range(50):
        made.add(client.emit(printed("y" * 10_000), FIRST))
    made.settle()
    assert len(made.lines[-1].text) == MAX_LINE
    assert made.lines[-1].cut == 500_000 - MAX_LINE


def test_lines_without_end_are_bounded_watched_or_not() -> None:
    text = "".join(f"line {number} of many\n" for number in range(1000))
    client = FakeRuntimeClient()
    batch = client.envelope(printed(text), FIRST)
    for watched in (True, False):
        made = LogWindow()
        tracemalloc.start()
        for number in range(100):
            made.add(batch.model_copy(update={"seq": number + 1}))
            if watched:
                made.settle()
        made.settle()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(made.lines) <= MOST_LINES
        assert made.lines[-1].text == "line 999 of many"
        assert made.first > 60, "what went is in the log, from there on"
        assert held < 40 * 2**20


def test_older_pages_come_in_front_once() -> None:
    whole, client = window(*(f"{number}\n" for number in range(30)))
    late = LogWindow()
    late.adopt(20, None)
    for envelope in client.log[20:]:
        late.add(envelope)
    late.settle()
    assert late.first == 20
    late.prepend(client.log[12:22], more=True)
    assert late.first == 12
    late.prepend(client.log[:12], more=False)
    assert late.first == 0
    assert [line.text for line in late.lines] == [line.text for line in whole.lines]


def test_events_are_let_go_whole() -> None:
    """Else the page read in again would bring some of their lines a second time."""
    made, client = window()
    for _ in range(MOST_LINES // 7 + 1):
        made.add(client.emit(printed("\n".join("abcdefg") + "\n"), FIRST))
    made.settle()
    assert KEPT_LINES - 7 <= len(made.lines) <= KEPT_LINES
    assert made.lines[0].text == "a"
    assert made.lines[0].seq == made.first + 1


def test_what_goes_on_in_a_line_that_went_begins_anew() -> None:
    made, client = window("begun and ")
    for _ in range(MOST_LINES + 1):
        made.add(client.emit(printed("x\n", call="other"), FIRST))
    made.settle()
    assert all(line.text == "x" for line in made.lines)
    made.add(client.emit(printed("ended\n"), FIRST))
    made.settle()
    assert made.lines[-1].text == "ended"


def test_what_the_stream_missed_is_a_gap() -> None:
    made, client = window("before\n")
    made.adopt(made.head + 500, client.envelope(printed("")).at)
    assert made.lines[-1].stream == "gap"
    assert "500 events" in made.lines[-1].text


def test_a_flood_that_nobody_watches_is_bounded() -> None:
    client, made = FakeRuntimeClient(), LogWindow()
    for _ in range(40):
        made.add(client.emit(printed("z" * (MOST_CHARS // 20)), FIRST))
    assert made._waiting_chars <= MOST_CHARS  # pyright: ignore[reportPrivateUsage]
    assert made.first > 0


# -- the screen -------------------------------------------------------------------------------------------------------


def pane(made: Console) -> LogsPane:
    return made.app.current.query_one(LogsPane)


async def opened(made: Console, *keys: str) -> LogsPane:
    await made.put_cursor_on(FIRST)
    for number in range(100):
        name = (FIRST, SECOND)[number % 2]
        stream = ev.Stream.STDERR if number == 50 else ev.Stream.STDOUT
        made.client.emit(printed(f"line {number:03} {'wide ' * 60}\n", stream), name)
    await made.drained()
    await made.press(*(keys or ("4",)))
    return pane(made)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_it_follows_and_pauses_while_the_intake_goes_on(size: tuple[int, int]) -> None:
    async with console(size) as made:
        shown = await opened(made)
        assert "line 099" in made.text()
        await made.press("k", "k")
        assert not shown.following
        made.client.emit(printed("the newest\n"), FIRST)
        await made.drained()
        assert "the newest" not in made.text()
        await made.press("s")
        assert "the newest" in made.text()


async def test_one_agent_all_agents_and_back() -> None:
    async with console((120, 40)) as made:
        shown = await opened(made, "l")
        assert shown.scope is not None
        assert f"Logs {FIRST}" in made.text()
        assert "line 099" not in made.text()
        await made.press("asterisk")
        assert "line 099" in made.text()
        await made.press("asterisk")
        assert shown.scope is not None
        assert shown.scope.name == SECOND, "that of the line under the cursor"


async def test_filters_ranges_wrapping_and_times() -> None:
    async with console((120, 40)) as made:
        shown = await opened(made)
        await made.press("slash")
        await made.type("stream:stderr")
        await made.press("enter")
        assert [row.line.text[:8] for row in shown._shown] == ["line 050"]  # pyright: ignore[reportPrivateUsage]
        await made.press("escape")
        assert len(shown._shown) > 99  # pyright: ignore[reportPrivateUsage]
        before = made.text().count("line 0")
        await made.press("w")
        assert made.text().count("line 0") > before, "a row a line"
        await made.press("right", "right", "right")
        assert "line 099" not in made.text()
        await made.press("1")
        assert "last 1m" in made.text(), "here digits are ranges, not screens"
        await made.clock.advance(120)
        made.app.repaint()
        await made.pilot.pause()
        assert "nothing was printed" in made.text()
        await made.press("0")
        assert shown.since == 0


async def test_searching_and_going_from_problem_to_problem() -> None:
    async with console((120, 40)) as made:
        shown = await opened(made)
        await made.press("ctrl+f")
        await made.type("LINE 04")
        await made.press("enter")
        line = shown.selected()
        assert line is not None
        assert line.text.startswith("line 049")
        await made.press("N")
        assert (line := shown.selected()) is not None
        assert line.text.startswith("line 048")
        await made.press("n", "n")
        assert "is not further down" in made.text()
        await made.press("full_stop")
        assert (line := shown.selected()) is not None
        assert line.text.startswith("line 050")
        await made.press("m")
        assert len(shown.marked) == 1
        await made.press("enter")
        assert "stream   stderr" in made.text()


def _nothing(client: FakeRuntimeClient, clock: FakeClock) -> None:
    """The log is as it was made."""


async def test_older_lines_are_read_from_the_log() -> None:
    client = FakeRuntimeClient()
    fleet.load(client)
    for number in range(1500):
        client.emit(printed(f"old {number:04}\n"), FIRST)

    async with console((80, 24), client=client, script=_nothing) as made:
        await made.press("4")
        shown = pane(made)
        await made.until(lambda: shown.selected() is not None, "the first page")
        while not any("old 0000" in row.line.text for row in shown._shown):  # pyright: ignore[reportPrivateUsage]
            first = shown._shown[0]  # pyright: ignore[reportPrivateUsage]
            await made.press("g")
            await made.until(lambda first=first: shown._shown[0] is not first, "an older page")  # pyright: ignore[reportPrivateUsage]
        texts = [row.line.text for row in shown._shown if row.line.text.startswith("old")]  # pyright: ignore[reportPrivateUsage]
        assert texts == [f"old {number:04}" for number in range(1500)]


# -- copy and export --------------------------------------------------------------------------------------------------


async def test_a_line_is_copied_through_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 1 10.0.0.2 22")
    async with console((120, 40)) as made:
        shown = await opened(made)
        await made.press("c")
        await made.until(lambda: "by OSC 52" in made.text(), "the message")
        line = shown.selected()
        assert line is not None
        assert made.app.clipboard == line.text
        await made.press("C")
        await made.until(lambda: "copied" in made.text() and "lines" in made.text(), "the message")
        assert made.app.clipboard.count("\n") == len(shown._shown) - 1  # pyright: ignore[reportPrivateUsage]


async def test_more_than_a_terminal_takes_is_refused() -> None:
    written: list[str] = []
    with pytest.raises(clipboard.NotCopied, match=":export"):
        await clipboard.copy("x" * (clipboard.OSC52_BYTES + 1), written.append, {})
    assert written == []


async def test_a_program_of_the_desktop_is_used_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, held = tmp_path / "wl-copy", tmp_path / "held"
    program.write_text(f"#!/bin/sh\ncat > {held}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    written: list[str] = []
    assert await clipboard.copy("äöü", written.append, {"WAYLAND_DISPLAY": "w"}) == "wl-copy"
    assert (held.read_text(), written) == ("äöü", [])


async def test_complete_records_are_exported(tmp_path: Path) -> None:
    async with console((200, 50)) as made:
        await opened(made)
        made.client.emit(printed("x" * 90_000 + "\n"), FIRST)
        await made.drained()
        events, texts = tmp_path / "log.jsonl", tmp_path / "log.txt"
        for file in (events, texts):
            made.app.perform("logs.export", str(file))
            await made.until(lambda file=file: f"wrote {file}" in made.text(), "the file")
            assert hashlib.sha256(file.read_bytes()).hexdigest()[:40] in made.text()
            assert file.stat().st_mode & 0o777 == 0o600
        lines = [json.loads(line) for line in events.read_text().splitlines()]
        assert [line["seq"] for line in lines] == [each.seq for each in made.client.log]
        assert "x" * 90_000 in texts.read_text()
        made.client.emit(ev.OutputAppended(stream=ev.Stream.STDOUT, text="a", dropped_bytes=5000), FIRST)
        await made.drained()
        made.app.perform("logs.export", str(tmp_path / "less.txt"))
        await made.until(lambda: "too fast and were not kept" in made.text(), "what is missing")
        assert "5,000 bytes came too fast" in (tmp_path / "less.txt").read_text()
        made.app.perform("logs.export", str(events))
        await made.until(lambda: "nothing was written" in made.text(), "the refusal")


async def test_a_log_that_cannot_be_read_leaves_no_half_file(tmp_path: Path) -> None:
    async with console((200, 50)) as made:
        await opened(made)

        def refuse(request: cmd.CommandRequest) -> cmd.CommandResult | None:
            if isinstance(request.command, cmd.ReadEvents) and request.command.after_seq == 0:
                return cmd.CommandResult(id=request.id, ok=False, code="store.corrupt", message="the disk is broken")
            return None

        made.client.answer = refuse
        made.app.perform("logs.export", str(tmp_path / "log"))
        await made.until(lambda: "the disk is broken" in made.text(), "the failure")
        assert list(tmp_path.iterdir()) == []


def test_every_stream_can_be_filtered_for() -> None:
    made, _ = window("a\n")
    assert log_window.fields(made.lines[0], "here")["stream"] in log_window.STREAMS
