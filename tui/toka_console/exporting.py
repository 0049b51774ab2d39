"""Writing what is shown to a file of the operator's: whole or not at all, and always said how it went."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from toka_console.app import ConsoleApp


class Exported(NamedTuple):
    records: int
    bytes: int
    digest: str
    """SHA-256 of the file, in hex."""


async def write_pages(path: Path, pages: AsyncGenerator[list[bytes]]) -> Exported:
    """Write records page by page to a new file. Raises OSError, and what `pages` raises: then there is no file."""
    from toka_runtime.whole_file import new_file

    digest, written, count = hashlib.sha256(), 0, 0
    with new_file(path) as file:
        async for page in pages:
            data = b"".join(page)
            await asyncio.to_thread(file.write, data)
            digest.update(data)
            written, count = written + len(data), count + len(page)
    return Exported(count, written, digest.hexdigest())


async def told(app: ConsoleApp, path: Path, work: Awaitable[tuple[str, str]]) -> None:
    """Do `work`, which writes `path`, and say what it says of it (text and role), or why nothing was written."""
    try:
        text, role = await work
    except FileExistsError:
        app.say(f"{path} is there already; nothing was written", "bad")
    except OSError as error:
        app.say(f"{path} cannot be written: {error.strerror or error}", "bad")
    else:
        app.say(text, role)
