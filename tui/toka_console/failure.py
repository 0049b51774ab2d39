"""Why the console had to leave."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """Printed after the terminal is its own again."""

    code: str
    message: str
    hint: str = ""
    trace: str = ""


def trace_of(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error))
