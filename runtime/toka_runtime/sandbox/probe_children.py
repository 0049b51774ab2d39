"""Throw-away processes: whatever is tried in one is undone by its end, and a stuck one is killed."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Callable

from toka_runtime.sandbox import kernel
from toka_runtime.sandbox.probe_model import Check
from toka_runtime.sandbox.probe_seen import Seen, read_all, refused

DEADLINE_S = 5.0
"""For one try: a loaded machine is waited for."""


def attempt(name: str, act: Callable[[], Seen]) -> Check:
    """`act` in a child of its own; an OSError there is a refusal."""
    return attempts(name, lambda: {name: act()})[0]


def attempts(name: str, act: Callable[[], dict[str, Seen]], deadline_s: float = DEADLINE_S) -> tuple[Check, ...]:
    """As `attempt`, for an act that tries several things: one check for each. Only `name` when it fails as a whole."""
    began = time.perf_counter()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(writing, name, act)
    os.close(writing)
    try:
        text = read_all(reading, deadline_s)
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    took = (time.perf_counter() - began) * 1000
    if text is None:
        return (Check(name=name, ok=False, detail=f"no answer within {deadline_s:g} s", duration_ms=took),)
    if not text:
        code = os.waitstatus_to_exitcode(status)
        return (Check(name=name, ok=False, detail=f"the throw-away process ended with {code}", duration_ms=took),)
    seen = {key: Seen(*value) for key, value in json.loads(text).items()}
    share = took / max(1, len(seen))
    return tuple(
        Check(name=key, ok=one.ok, detail=one.detail, errno=error_name(one.number), duration_ms=round(share, 2))
        for key, one in seen.items()
    )


def _child(writing: int, name: str, act: Callable[[], dict[str, Seen]]) -> None:
    try:
        kernel.adopt_orphans()
        try:
            seen = act()
        except OSError as error:
            seen = {name: refused(error)}
        os.write(writing, json.dumps(seen).encode())
    finally:
        os._exit(0)


def error_name(number: int) -> str:
    return errno.errorcode.get(number, str(number)) if number else ""
