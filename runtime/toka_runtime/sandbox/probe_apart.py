"""The probe of the host for a runtime: in a process of its own, because it forks and takes half a second."""

from __future__ import annotations

import asyncio
import os
import sys

from pydantic import ValidationError

from toka_runtime.aio import to_the_end
from toka_runtime.errors import ProcessError
from toka_runtime.protocol.protections import HostProtections

_DEADLINE_S = 20.0
_NICENESS = 10
"""Agents that start meanwhile go first."""
_PROGRAM = (
    f"import os; os.nice({_NICENESS}); from toka_runtime.sandbox.probe import probe_host; "
    "print(probe_host().model_dump_json())"
)
_found: HostProtections | None = None


async def probe_apart() -> HostProtections:
    """What a host offers does not change while a process lives: it is tried once. Raises ProcessError. Cancelled, it is
    still seen through, so that nothing of it stays behind."""
    return _found if _found is not None else await to_the_end(_probe(), name="probe the host")


async def _probe() -> HostProtections:
    global _found
    try:
        # -P and /: nothing in the folder that the runtime was started in can pose as one of our modules.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-c", _PROGRAM),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd="/",
            env={name: os.environ[name] for name in ("PATH", "PYTHONPATH", "TMPDIR") if name in os.environ},
            # Ctrl-C in the terminal is for the runtime.
            start_new_session=True,
        )
    except OSError as error:
        raise ProcessError(f"the host could not be probed: {error.strerror}") from None
    try:
        async with asyncio.timeout(_DEADLINE_S):
            out, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise ProcessError(f"the host could not be probed within {_DEADLINE_S:g} s") from None
    try:
        _found = HostProtections.model_validate_json(out)
    except ValidationError:
        said = errors.decode(errors="replace").strip().splitlines()
        raise ProcessError(f"the host could not be probed: {said[-1] if said else 'no answer'}") from None
    return _found
