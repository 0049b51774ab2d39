"""The first picture, drawn before Textual is imported, and the terminal's state around the whole run."""

from __future__ import annotations

import os
import sys
import termios

TYPE_CHECKING = False  # importing `typing` takes a third of the time to the first picture
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

_ENTER = "\x1b[?1049h\x1b[?25l"
_LEAVE = "\x1b[?1049l\x1b[?25h"


before: list[Any] | None = None
"""Settings of the terminal before the first picture; None while it is not ours."""


class Terminal:
    """Context: the alternate screen with a first picture and no echo; what was, when it ends, however it ends."""

    def __init__(self) -> None:
        self._ours = False

    def __enter__(self) -> Terminal:
        global before
        try:
            before = termios.tcgetattr(0)
            quiet = termios.tcgetattr(0)
            # Keys that are typed meanwhile wait for the app instead of showing up on the picture. ISIG stays: until
            # the app reads keys, ctrl-c ends the program.
            quiet[3] &= ~(termios.ECHO | termios.ICANON)
            termios.tcsetattr(0, termios.TCSANOW, quiet)
        except termios.error:
            before = None
        self._ours = True
        size = os.get_terminal_size()
        sys.stdout.write(_ENTER + picture(size.columns, size.lines, _true_colour()))
        sys.stdout.flush()
        return self

    def give_back(self) -> None:
        """The app has left the alternate screen itself."""
        self._ours = False

    def leave(self) -> None:
        """Back to the ordinary screen."""
        if self._ours:
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()
            self._ours = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
        if before is not None:
            termios.tcsetattr(0, termios.TCSANOW, before)


def _true_colour() -> bool:
    return "NO_COLOR" not in os.environ and os.environ.get("COLORTERM") in ("truecolor", "24bit")


def picture(width: int, height: int, colour: bool = True) -> str:
    """The Fleet's outline: header, empty table, footer. `colour`: in true colour."""
    if width < 20 or height < 5:
        return ""
    bar, ground, faint, name = (
        ("\x1b[48;2;28;35;48m", "\x1b[48;2;17;21;28m", "\x1b[38;2;51;61;77m", "\x1b[1;38;2;92;207;230m")
        if colour
        else ("\x1b[7m", "", "\x1b[2m", "\x1b[1m")
    )
    reset = "\x1b[0m"
    text = "starting …" if width >= 30 else ""
    title = " toka  1 Fleet"
    rows = [f"{bar}{name}{title}{reset}{bar}{text.rjust(width - len(title) - 2)}  {reset}"]
    rows.append(f"{ground}{faint}╭─ Agents {'─' * (width - 11)}╮{reset}")
    rows += [f"{ground}{faint}│{' ' * (width - 2)}│{reset}"] * (height - 4)
    rows.append(f"{ground}{faint}╰{'─' * (width - 2)}╯{reset}")
    rows.append(f"{bar}{' ' * width}{reset}")
    return "".join(f"\x1b[{number};1H{row}" for number, row in enumerate(rows, 1))
