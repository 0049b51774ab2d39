"""What was typed after `:` and `/`: shared by all screens, kept from one session to the next."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Literal, cast

LineKind = Literal["command", "filter"]
MAX_LINES, MAX_LENGTH, MAX_BYTES = 200, 500, 1 << 20


class Typed:
    """Lines of each kind, the oldest first. `file` None: for this session only."""

    def __init__(self, file: Path | None = None) -> None:
        self.lines: dict[LineKind, list[str]] = {"command": [], "filter": []}
        self._file = file
        self._writing = asyncio.Lock()

    def add(self, kind: LineKind, text: str) -> bool:
        """Remember a line, once. False when there is nothing new to keep."""
        if not text or len(text) > MAX_LENGTH or text in self.lines[kind][-1:]:
            return False
        kept = [line for line in self.lines[kind] if line != text]
        self.lines[kind] = [*kept, text][-MAX_LINES:]
        return True

    async def load(self) -> str:
        """Put what was typed in earlier sessions before what is there. What is wrong with the file; "" nothing."""
        if self._file is None:
            return ""
        try:
            earlier = await asyncio.to_thread(_read, self._file)
        except FileNotFoundError:
            return ""
        except (OSError, ValueError, RecursionError) as error:
            return f"{self._file} is ignored: {error}"
        for kind, lines in earlier.items():
            since = self.lines[kind]
            self.lines[kind] = [*(line for line in lines if line not in since), *since][-MAX_LINES:]
        return ""

    async def save(self) -> str:
        """Write all lines, readable by nobody else. Why it could not; "" when it could."""
        if self._file is None:
            return ""
        from toka_runtime.whole_file import replace_file

        async with self._writing:
            try:
                await asyncio.to_thread(replace_file, self._file, json.dumps(self.lines, indent=1).encode())
            except OSError as error:
                return f"{self._file} cannot be written: {error}"
        return ""


def _read(file: Path) -> dict[LineKind, list[str]]:
    with file.open("rb") as opened:
        data = opened.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError("it is too large")
    raw: Any = json.loads(data)
    found: dict[LineKind, list[str]] = {"command": [], "filter": []}
    entries = cast("dict[str, Any]", raw) if isinstance(raw, dict) else {"command": raw}
    for kind, lines in found.items():
        listed: Any = entries.get(kind, [])
        if not isinstance(listed, list):
            raise ValueError("it is no history")
        for line in cast("list[Any]", listed):
            if not isinstance(line, str) or not line.isprintable():
                raise ValueError("it holds what nobody typed")
            lines.append(line[:MAX_LENGTH])
    return found
