"""Run a piece of a test in a forked child, for what cannot be undone in this process."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable


def in_child(act: Callable[[], str]) -> str:
    """The text that `act` returned in a forked child; an exception there fails the test here."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            text = "=" + act()
            code = 0
        except BaseException:  # noqa: BLE001  # a forked child must end here, whatever happens
            text = "!" + traceback.format_exc()
        finally:
            os.write(writing, text.encode()[:60000])
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert text.startswith("="), f"child ended with {os.waitstatus_to_exitcode(status)}: {text[1:]}"
    return text[1:]
