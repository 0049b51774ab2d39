"""list_files and search_text."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from toka_runtime.worker.toolbox.beneath import open_file
from toka_runtime.worker.toolbox.context import ToolContext, ToolResult
from toka_runtime.worker.toolbox.failure import ToolFailure
from toka_runtime.worker.toolbox.globs import compile_glob
from toka_runtime.worker.toolbox.text import CHUNK_BYTES, count, looks_binary, read_lines
from toka_runtime.worker.toolbox.walk import Walk, printable

LIST_LIMIT = 1000
MATCH_LIMIT = 200
_FILE_BYTES = 32 << 20
_LINE_BYTES = 1 << 20
_SHOWN_CHARS = 300


def list_files(context: ToolContext) -> ToolResult:
    """Paths relative to the agent's folder, sorted, one a line; folders end in `/`, links in `@`."""
    arguments = context.arguments
    base = _base(arguments["path"])
    pattern: str = arguments.get("pattern", "*")
    limit: int = arguments.get("limit", LIST_LIMIT)
    wanted = compile_glob(pattern)
    walk = Walk(context.root_fd, base, "/" in pattern or "**" in pattern, tuple(arguments.get("exclude", ())))
    cut = len(base) + 1 if base else 0
    found: list[str] = []
    total, room = 0, context.cap_bytes - 300
    for path, kind in walk.entries():
        if wanted.fullmatch(path[cut:]) is None:
            continue
        total += 1
        text = printable(path) + {"folder": "/", "link": "@", "other": "="}.get(kind, "")
        room -= len(text.encode()) + 1
        if len(found) < limit and room > 0:
            found.append(text)
    notes = _notes(walk)
    if total > len(found):
        notes.insert(0, f"{total - len(found):,} more: narrow path or pattern")
    if not found:
        found.append("(nothing matches)" if total == 0 else "")
    return ToolResult("\n".join(found + [f"({note})" for note in notes]))


def search_text(context: ToolContext) -> ToolResult:
    """`path:line: text` for each line that the regular expression finds."""
    arguments = context.arguments
    try:
        pattern = re.compile(arguments["pattern"], re.IGNORECASE if arguments.get("ignore_case", False) else 0)
    except (re.error, OverflowError, RecursionError) as error:
        raise ToolFailure("tool.invalid", f"pattern: not a regular expression: {error}") from None
    limit: int = arguments.get("limit", MATCH_LIMIT)
    skipped: list[str] = []
    walk, paths = _candidates(context)
    found: list[str] = []
    room = context.cap_bytes - 300
    files = 0
    more = False
    for path in paths:
        matches = _in_file(context, path, pattern, skipped)
        first = True
        for number, text in matches:
            line = f"{printable(path)}:{number}: {text}"
            room -= len(line.encode()) + 1
            if len(found) == limit or room < 0:
                more = True
                break
            found.append(line)
            files += first
            first = False
        if more:
            break
    notes = _notes(walk) if walk is not None else []
    if more:
        notes.insert(0, f"stopped after {count(len(found), 'match').replace('matchs', 'matches')}: narrow the search")
    if skipped:
        names = ", ".join(skipped[:3])
        notes.append(f"{count(len(skipped), 'file')} over {_FILE_BYTES >> 20} MiB or unreadable left out: {names}")
    if not found:
        found.append("(no match)")
    return ToolResult("\n".join(found + [f"({note})" for note in notes]))


def _candidates(context: ToolContext) -> tuple[Walk | None, Iterator[str]]:
    arguments = context.arguments
    path: str = arguments["path"]
    if not path.endswith("/"):
        return None, iter([path])
    base = _base(path)
    cut = len(base) + 1 if base else 0
    glob: str = arguments.get("glob", "")
    # As in other search tools, a glob without a slash is about the file's name, wherever it lies.
    wanted = compile_glob(glob if "/" in glob or not glob else f"**/{glob}") if glob else None
    walk = Walk(context.root_fd, base, True, tuple(arguments.get("exclude", ())))
    paths = (
        entry
        for entry, kind in walk.entries()
        if kind == "file" and (wanted is None or wanted.fullmatch(entry[cut:]) is not None)
    )
    return walk, paths


def _in_file(
    context: ToolContext, path: str, pattern: re.Pattern[str], skipped: list[str]
) -> Iterator[tuple[int, str]]:
    alone = not context.arguments["path"].endswith("/")
    try:
        with open_file(context.root_fd, path) as fd:
            if os.fstat(fd).st_size > _FILE_BYTES:
                skipped.append(printable(path))
                return
            start = os.read(fd, CHUNK_BYTES)
            if looks_binary(start):
                if alone:
                    raise ToolFailure("tool.binary", f"{path}: it is a binary file and has no text to search")
                return
            for line in read_lines(fd, 1, start, _LINE_BYTES):
                match = pattern.search(line.text)
                if match is not None:
                    yield line.number, _around(line.text, match.start())
    except ToolFailure:
        if alone:
            raise
        skipped.append(printable(path))


def _around(text: str, at: int) -> str:
    if len(text) <= _SHOWN_CHARS:
        return text
    start = max(at - _SHOWN_CHARS // 3, 0)
    return (
        ("…" if start else "") + text[start : start + _SHOWN_CHARS] + ("…" if start + _SHOWN_CHARS < len(text) else "")
    )


def _base(path: str) -> str:
    path = path.rstrip("/")
    return "" if path in (".", "") else path


def _notes(walk: Walk) -> list[str]:
    notes: list[str] = []
    if not walk.complete:
        notes.append("the folder is too large to go through whole; narrow the path")
    if walk.unreadable:
        names = ", ".join(printable(path) for path in walk.unreadable[:3])
        notes.append(f"{count(len(walk.unreadable), 'folder')} could not be opened: {names}")
    return notes
