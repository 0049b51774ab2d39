"""What happens to the terminal: other sizes, other character sets, few colours, stopped and continued, gone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fakes.terminal import PATIENCE_S, Terminal

ROOT = Path(__file__).parents[2]
LINK_DOWN = rb"RUNNING\?"
"""By then every event has been shown."""
MODES = {
    b"alternate screen": b"1049",
    b"mouse": b"1000",
    b"all of the mouse": b"1003",
    b"paste": b"2004",
    b"focus": b"1004",
}


def started(*arguments: str, size: tuple[int, int] = (120, 40), **env: str) -> Terminal:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), **env}
    return Terminal([sys.executable, "-m", "fakes.hostile", *arguments], size, environment)


def left_on(output: bytes) -> list[bytes]:
    """Modes of the terminal that were switched on and not off again."""
    found = [name for name, number in MODES.items() if _last(output, number) == b"h"]
    return [*found, *([b"hidden cursor"] if _last(output, b"25") == b"l" else [])]


def _last(output: bytes, number: bytes) -> bytes:
    switches = re.findall(rb"\x1b\[\?" + number + rb"([hl])", output)
    return switches[-1] if switches else b""


def quit_of(terminal: Terminal) -> int:
    terminal.type("\x11")
    terminal.expect(rb"Quit|1049l")
    terminal.type("\t\r")
    return terminal.wait()


def wait_until_stopped(terminal: Terminal) -> None:
    """Reading meanwhile: what it still writes has to go somewhere."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        pid, status = os.waitpid(terminal.process.pid, os.WUNTRACED | os.WNOHANG)
        if pid:
            assert os.WIFSTOPPED(status)
            return
        assert time.monotonic() < deadline, "it does not stop"
        terminal.read(0.05)


def test_stopped_it_gives_the_terminal_back_and_continued_it_draws_everything_again() -> None:
    with started() as terminal:
        terminal.expect(LINK_DOWN, since_typed=False)
        for _ in range(2):
            terminal.process.send_signal(signal.SIGTSTP)
            wait_until_stopped(terminal)
            terminal.settle()
            assert left_on(terminal.output) == []
            assert terminal.restored, "a shell finds its terminal as it was"
            terminal.forget()
            terminal.process.send_signal(signal.SIGCONT)
            terminal.expect(rb"Agents(.|\n)*RUNNING(.|\n)*quit")
            assert b"\x1b[?1049h" in terminal.output
            assert not terminal.restored
        assert quit_of(terminal) == 0
        assert left_on(terminal.output) == []
        assert terminal.restored


def test_any_size_is_lived_through() -> None:
    with started(size=(80, 24)) as terminal:
        terminal.expect(LINK_DOWN, since_typed=False)
        for size in ((1, 1), (1, 50), (300, 2), (59, 14)):
            terminal.resize(*size)
            terminal.settle()
        terminal.type("")
        terminal.resize(80, 24)
        terminal.expect(rb"Agents(.|\n)*RUNNING(.|\n)*freeze all")
        assert quit_of(terminal) == 0
        assert left_on(terminal.output) == []
        assert terminal.restored


def test_a_character_set_without_glyphs_gets_ascii() -> None:
    with started(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="") as terminal:
        terminal.expect(LINK_DOWN, since_typed=False)
        terminal.type("?")
        terminal.expect(rb"Contain")
        assert quit_of(terminal) == 0
        assert terminal.output.isascii()
        assert b"+- Agents -" in terminal.output
        assert terminal.restored


def test_the_plain_locale_is_taken_for_utf_8() -> None:
    with started(LC_ALL="C") as terminal:
        terminal.expect(LINK_DOWN, since_typed=False)
        assert "╭─ Agents".encode() in terminal.output
        assert quit_of(terminal) == 0


def test_sixteen_colours_are_all_that_such_a_terminal_is_sent() -> None:
    with started(TERM="xterm", COLORTERM="") as terminal:
        terminal.expect(LINK_DOWN, since_typed=False)
        for keys in ("jjj", "2", "5", "?", "1", "K"):
            terminal.type(keys)
            terminal.settle(0.2)
        terminal.type("\x1b[27u")
        terminal.settle(0.2)
        assert quit_of(terminal) == 0
        assert re.findall(rb"\x1b\[[0-9;]*[34]8[;:][25][;:0-9]*m", terminal.output) == []
        assert len(set(re.findall(rb"\x1b\[[0-9;]*m", terminal.output))) > 8, "yet there are colours"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_every_signal_that_ends_it_leaves_the_terminal_clean(number: signal.Signals) -> None:
    with started() as terminal:
        terminal.expect(LINK_DOWN, since_typed=False)
        terminal.process.send_signal(number)
        assert terminal.wait() == 0
        assert left_on(terminal.output) == []
        assert terminal.restored


def test_an_error_leaves_the_terminal_clean() -> None:
    with started("fail") as terminal:
        assert terminal.wait() == 1
        assert left_on(terminal.output) == []
        assert terminal.restored


@pytest.mark.parametrize("closed", [0, 1])
def test_a_closed_descriptor_is_no_terminal(closed: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "toka_console.cli"], stderr=subprocess.PIPE, timeout=60,
        preexec_fn=lambda: os.close(closed),
    )  # fmt: skip
    assert done.returncode == 2
    assert b"needs a terminal" in done.stderr


def test_the_input_has_no_echo_while_it_runs() -> None:
    with started() as terminal:
        terminal.expect(LINK_DOWN, since_typed=False)
        assert not terminal.echoes
        assert quit_of(terminal) == 0
