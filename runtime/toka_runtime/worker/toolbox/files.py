"""read_file, write_file, edit_file."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat

from toka_runtime.worker.toolbox.beneath import kind_name, open_file, open_parent
from toka_runtime.worker.toolbox.context import ToolContext, ToolResult
from toka_runtime.worker.toolbox.failure import ToolFailure
from toka_runtime.worker.toolbox.text import CHUNK_BYTES, count, looks_binary, read_lines

DEFAULT_LINES = 2000
EDIT_MAX_BYTES = 16 << 20
_SNIPPET_CONTEXT = 3
_SNIPPET_LINES = 40


def read_file(context: ToolContext) -> ToolResult:
    """Numbered lines (`     1\\ttext`) from `offset` (from 1), at most `limit`, within the cap; says how to go on."""
    path: str = context.arguments["path"]
    first: int = context.arguments.get("offset", 1)
    limit: int = context.arguments.get("limit", DEFAULT_LINES)
    with open_file(context.root_fd, path) as fd:
        size = os.fstat(fd).st_size
        start = os.read(fd, CHUNK_BYTES)
        if looks_binary(start):
            raise ToolFailure(
                "tool.binary", f"{path}: it is a binary file ({count(size, 'byte')}) and has no text to show"
            )
        if not start:
            return ToolResult("(the file is empty)")
        shown: list[str] = []
        room = context.cap_bytes - 200
        last, broken, more = 0, False, False
        for line in read_lines(fd, first, start):
            text = f"{line.number:>6}\t{line.text}"
            room -= len(text.encode()) + 1
            if len(shown) == limit or (room < 0 and shown):
                more = True
                break
            shown.append(text)
            last = line.number
            broken = broken or not line.valid
    if not shown:
        raise ToolFailure("tool.invalid", f"{path}: line {first:,} lies past the end of the file")
    if broken:
        shown.append("(bytes that are not UTF-8 are shown as �)")
    if more:
        shown.append(f"(lines {first:,} to {last:,} of a longer file; go on with offset={last + 1})")
    return ToolResult("\n".join(shown))


def write_file(context: ToolContext) -> ToolResult:
    """The whole file at once: another reader sees the old or the new content, never a part."""
    path: str = context.arguments["path"]
    data: bytes = context.arguments["content"].encode()
    with open_parent(context.root_fd, path, create=True) as (folder_fd, name):
        existed = replace(folder_fd, name, path, data)
    lines = data.count(b"\n") + (0 if data.endswith(b"\n") or not data else 1)
    what = "replaced" if existed else "created"
    return ToolResult(f"{what} {path} ({count(lines, 'line')}, {count(len(data), 'byte')})")


def edit_file(context: ToolContext) -> ToolResult:
    """Replace one exact occurrence (or all). Works on bytes: what is not UTF-8 elsewhere in the file stays as it is."""
    arguments = context.arguments
    path: str = arguments["path"]
    old: bytes = arguments["old_string"].encode()
    new: bytes = arguments["new_string"].encode()
    with open_file(context.root_fd, path) as fd:
        size = os.fstat(fd).st_size
        if size > EDIT_MAX_BYTES:
            raise ToolFailure("tool.too_large", f"{path}: {count(size, 'byte')} are too many to edit; use run_command")
        before = _read_all(fd)
    if looks_binary(before):
        raise ToolFailure("tool.binary", f"{path}: it is a binary file; nothing was changed")
    if old == new:
        raise ToolFailure("tool.invalid", "old_string and new_string are equal; nothing was changed")
    if not old:
        raise ToolFailure("tool.invalid", "old_string is empty; use write_file to write a whole file")
    if old not in before and b"\n" in old and b"\r\n" in before and b"\r" not in old:
        # What read_file shows has no carriage returns: match the file's own line ends and keep them.
        old, new = old.replace(b"\n", b"\r\n"), new.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    found = before.count(old)
    if not found:
        raise ToolFailure(
            "tool.no_match", f"{path}: old_string does not occur; nothing was changed{_near(before, old)}"
        )
    if found > 1 and not arguments.get("replace_all", False):
        places = ", ".join(str(number) for number in _line_numbers(before, old)[:10])
        raise ToolFailure(
            "tool.ambiguous",
            f"{path}: old_string occurs {found:,} times (lines {places}); nothing was changed. Give more of the text "
            "around it, or set replace_all",
        )
    at = before.index(old)
    after = before.replace(old, new)
    with open_parent(context.root_fd, path, create=False) as (folder_fd, name):
        replace(folder_fd, name, path, after)
    return ToolResult(f"replaced {count(found, 'occurrence')} in {path}\n{_snippet(after, at, at + len(new))}")


def replace(folder_fd: int, name: str, path: str, data: bytes) -> bool:
    """Write `data` beside the file and rename it over it; mode and owner are kept. Returns whether it existed."""
    existing = _existing(folder_fd, name, path)
    temporary = f".toka-{secrets.token_hex(6)}.tmp"
    fd = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=folder_fd
    )
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if existing is not None:
                # Changing the owner needs privilege, and clears set-id bits: so it comes first, and may fail.
                if (existing.st_uid, existing.st_gid) != (os.geteuid(), os.getegid()):
                    with contextlib.suppress(PermissionError):
                        os.fchown(fd, existing.st_uid, existing.st_gid)
                # Without set-uid and set-gid: whoever may write a program does not get its owner's rights for it.
                os.fchmod(fd, existing.st_mode & 0o1777)
        finally:
            os.close(fd)
        os.rename(temporary, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder_fd)
        raise
    return existing is not None


def _existing(folder_fd: int, name: str, path: str) -> os.stat_result | None:
    try:
        found = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
    if not stat.S_ISREG(found.st_mode):
        raise ToolFailure("tool.invalid", f"{path}: it is {kind_name(found.st_mode)}, not a file; nothing was changed")
    # A rename needs only the folder's permission; a file that its owner made read-only is to stay.
    if not found.st_mode & 0o222:
        raise ToolFailure("tool.refused", f"{path}: the file is read-only; nothing was changed", refused_target=path)
    return found


def _read_all(fd: int) -> bytes:
    pieces: list[bytes] = []
    while piece := os.read(fd, CHUNK_BYTES):
        pieces.append(piece)
    return b"".join(pieces)


def _line_numbers(data: bytes, needle: bytes) -> list[int]:
    numbers: list[int] = []
    at = data.find(needle)
    while at >= 0 and len(numbers) < 10:
        numbers.append(data.count(b"\n", 0, at) + 1)
        at = data.find(needle, at + len(needle))
    return numbers


def _near(data: bytes, needle: bytes) -> str:
    """A hint for the commonest mistake: the text is there with other white space."""
    wanted = needle.split()
    if not wanted:
        return ""
    lines = data.split(b"\n")
    first = next((line.split() for line in needle.split(b"\n") if line.split()), list[bytes]())
    span = needle.strip(b"\n").count(b"\n") + 1
    for index, line in enumerate(lines):
        if line.split() == first and b" ".join(lines[index : index + span]).split() == wanted:
            return f". With other white space it is at line {index + 1}: read those lines again and copy them exactly"
    return ". Read the file again and copy the text exactly, without the line numbers"


def _snippet(data: bytes, start: int, end: int) -> str:
    """The changed lines with a few around them, numbered as read_file does."""
    first = data.count(b"\n", 0, start)
    last = data.count(b"\n", 0, end)
    lines = data.split(b"\n")
    low = max(first - _SNIPPET_CONTEXT, 0)
    high = min(last + _SNIPPET_CONTEXT + 1, len(lines), low + _SNIPPET_LINES)
    return "\n".join(
        f"{index + 1:>6}\t{lines[index][:400].decode('utf-8', 'replace').rstrip(chr(13))}" for index in range(low, high)
    )
