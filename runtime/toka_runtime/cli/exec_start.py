"""The part of an `exec` that takes its time by itself: begun first, so that all else is loaded meanwhile."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from toka_runtime.limits.enforcer import Enforcer
from toka_runtime.sandbox.zygote_start import Beginning, begin_zygote

WORKER_MAIN = "toka_runtime.sandbox.exec_child:idle"
TOOL_FUNCTION = "toka_runtime.sandbox.exec_child:execute"


@dataclass(slots=True)
class Start:
    enforcer: Enforcer
    _beginning: Beginning | None

    def take(self) -> Beginning | None:
        """The fork server, whose end is up to the caller from then on; once."""
        beginning, self._beginning = self._beginning, None
        return beginning


@contextmanager
def begin() -> Generator[Start]:
    """Raises ProcessError."""
    # First: what is started later follows this process into its control group.
    enforcer = Enforcer.open()
    try:
        start = Start(enforcer, begin_zygote(WORKER_MAIN, TOOL_FUNCTION))
        try:
            yield start
        finally:
            if (unused := start.take()) is not None:
                unused.abandon()
    finally:
        enforcer.close()
