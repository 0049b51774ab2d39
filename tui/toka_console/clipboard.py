"""Text for the operator's clipboard: by a program of this desktop, else by an escape sequence (OSC 52) of our own."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Mapping

OSC52_BYTES = 55_000
"""Terminals take about 75,000 characters of base64, and drop what is longer without a word."""
PROGRAM_S = 5.0
_PROGRAMS = (
    ("WAYLAND_DISPLAY", ("wl-copy",)),
    ("DISPLAY", ("xclip", "-selection", "clipboard")),
    ("DISPLAY", ("xsel", "--clipboard", "--input")),
)


class NotCopied(Exception):
    """Nothing was copied; the message says why and what to do."""


async def copy(text: str, osc52: Callable[[str], None], environ: Mapping[str, str] = os.environ) -> str:
    """Copy `text`; by what. `osc52` writes the sequence to the terminal. Raises NotCopied.

    Over SSH the clipboard that counts is that of the terminal, not of this machine.
    """
    data = text.encode()
    if not environ.get("SSH_CONNECTION"):
        for variable, command in _PROGRAMS:
            if environ.get(variable) and shutil.which(command[0]) and await _by_program(command, data):
                return command[0]
    if len(data) > OSC52_BYTES:
        raise NotCopied(
            f"{len(data):,} bytes are more than a terminal takes ({OSC52_BYTES:,}): :export FILE writes them"
        )
    osc52(text)
    return "OSC 52"


async def _by_program(command: tuple[str, ...], data: bytes) -> bool:
    """The program may stay in the background to serve what it holds: only its input is waited for."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return False
    try:
        async with asyncio.timeout(PROGRAM_S):
            await process.communicate(data)
    except (TimeoutError, OSError):
        process.kill()
        await process.wait()
        return False
    return process.returncode == 0
