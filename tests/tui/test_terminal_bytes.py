"""Nothing an agent, a model, a spec or a peer says reaches the terminal as more than text: the bytes are read."""

from __future__ import annotations

import os
import re
import signal
import sys
import unicodedata
from pathlib import Path

import pytest

from fakes.terminal import Terminal

ROOT = Path(__file__).parents[2]
# What Textual itself writes: CSI with these final characters, nothing else.
OURS = re.compile(rb"\x1b\[[0-9;:<=>?]*(?:[mHhluKJ]|\$p)|\x1b\]22;default\x07")
ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def started(*arguments: str, size: tuple[int, int] = (120, 40), **env: str) -> Terminal:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), **env}
    return Terminal([sys.executable, "-m", "fakes.hostile", *arguments], size, environment)


def acting(output: bytes) -> list[str]:
    """Everything in the output that acts and is not ours."""
    rest = OURS.sub(b"", output)
    text = rest.decode("utf-8", "replace")
    return sorted({f"U+{ord(c):04X}" for c in text if unicodedata.category(c) in ACTING and c not in "\r\n"})


def foreign(output: bytes) -> list[bytes]:
    """Parts of the payload that were written as they came."""
    parts = (
        b"\x1b]52",
        b"\x1b]0",
        b"\x1b]8",
        b"\x1bc",
        b"\x1bP",
        b"\x1b_",
        b"\x1b[2J",
        b"\x1b[6n",
        b"\x1b[777m",
        b"\xc2\x9b",
    )
    return [part for part in parts if part in output]


ESCAPE = "\x1b[27u"
"""As terminals with the extended protocol write it: no key that follows can be taken for its end."""
SCREENS = {
    "fleet": "gjjjjjjj",
    "agent": "2",
    "output": "o",
    "denials": "5",
    "call": "\r",
    "specs": ":specs\r",
    "help": "?",
    "diagnostics": "\x1b[24~",
}
LINK_DOWN = rb"RUNNING\?"
"""In a row whose host is not reachable: by then every event has been shown."""
VISIBLE = "␛]52;c;aGFja2Vk␇".encode()


@pytest.mark.parametrize("size", [(200, 50), (80, 24), (40, 5)])
def test_no_screen_lets_anything_through(size: tuple[int, int]) -> None:
    with started(size=size) as terminal:
        if size[0] > 60:
            terminal.expect(LINK_DOWN, since_typed=False)
        else:
            terminal.settle(3)
        for keys in SCREENS.values():
            terminal.type(keys)
            terminal.settle()
        for dialog in ("K", "!", "p", "R", "/x\r", ":kill x\r", "\x10pause"):
            terminal.type("1")
            terminal.settle(0.1)
            terminal.type(dialog)
            terminal.settle()
            terminal.type(ESCAPE)
            terminal.settle(0.1)
        terminal.type("\x11")
        terminal.settle()
        terminal.type("\t\r")
        assert terminal.wait() == 0
        if size[0] > 60:
            assert VISIBLE in terminal.output, "the hostile text was shown, as text"
        assert foreign(terminal.output) == []
        assert acting(terminal.output) == []
        assert terminal.restored


def test_an_error_at_start_is_clean_and_leaves_the_terminal_as_it_was() -> None:
    with started("fail") as terminal:
        assert terminal.wait() == 1
        shown = terminal.output[terminal.output.rindex(b"\x1b[?1049l") :]
        assert b"no runtime [toka.error]" in shown
        assert b"a hint" in shown
        assert acting(terminal.output) == []
        assert terminal.restored


def test_no_colour_means_no_colour() -> None:
    with started(NO_COLOR="1") as terminal:
        terminal.expect(LINK_DOWN, since_typed=False)
        for keys in ("jjjj", "2", "o", "5", "?", "1", "K"):
            terminal.type(keys)
            terminal.settle(0.2)
        for keys in (ESCAPE, "\x11"):
            terminal.type(keys)
            terminal.settle()
        terminal.type("\t\r")
        assert terminal.wait() == 0
        colours = re.findall(
            rb"\x1b\[[0-9;]*?(?<![0-9])(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[0-9;]*)?m", terminal.output
        )
        assert colours == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ended_from_outside_it_leaves_in_order(number: signal.Signals) -> None:
    with started() as terminal:
        terminal.expect(LINK_DOWN, since_typed=False)
        terminal.process.send_signal(number)
        assert terminal.wait() == 0
        assert b"\x1b[?1049l" in terminal.output
        assert terminal.restored


def test_a_terminal_that_goes_away_ends_the_console() -> None:
    with started() as terminal:
        terminal.expect(LINK_DOWN, since_typed=False)
        terminal.hang_up()
        assert terminal.process.wait(20) in (0, 1, -signal.SIGHUP)
