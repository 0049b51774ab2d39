"""Text of files: what is binary, lines by range without reading the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from toka_runtime.worker.toolbox.capped import cut_utf8

CHUNK_BYTES = 1 << 20
LINE_BYTES = 2000
"""A longer line is cut for show, with what is left out said."""
_SNIFF_BYTES = 8192


def looks_binary(start: bytes) -> bool:
    """By the rule that git uses: a NUL in the first bytes."""
    return b"\0" in start[:_SNIFF_BYTES]


@dataclass(frozen=True)
class Line:
    number: int
    """From 1."""
    text: str
    valid: bool
    """False: bytes that are no UTF-8 are shown as `�`."""


def read_lines(fd: int, first: int, start: bytes, line_bytes: int = LINE_BYTES) -> Iterator[Line]:
    """Lines from number `first` on. `start` is what has been read already. Memory stays bounded: of a line longer than
    `line_bytes` only the beginning is kept."""
    number = 1
    kept = bytearray()
    size = 0
    chunk = start or os.read(fd, CHUNK_BYTES)
    open_line = False
    while chunk:
        position = 0
        if number < first:
            newlines = chunk.count(b"\n")
            if number + newlines < first:
                number += newlines
                open_line = not chunk.endswith(b"\n")
                chunk = os.read(fd, CHUNK_BYTES)
                continue
        while position < len(chunk):
            end = chunk.find(b"\n", position)
            piece = chunk[position : end if end >= 0 else len(chunk)]
            if number >= first:
                kept += piece[: max(line_bytes + 1 - len(kept), 0)]
                size += len(piece)
            open_line = end < 0
            if end < 0:
                break
            if number >= first:
                yield _line(number, kept, size, line_bytes)
            kept.clear()
            size = 0
            number += 1
            position = end + 1
        chunk = os.read(fd, CHUNK_BYTES)
    if open_line and number >= first:
        yield _line(number, kept, size, line_bytes)


def _line(number: int, kept: bytearray, size: int, line_bytes: int) -> Line:
    data = bytes(kept)
    suffix = ""
    if size > line_bytes:
        data = cut_utf8(data[:line_bytes])
        suffix = f"… +{size - len(data):,} B"
    elif data.endswith(b"\r"):
        data = data[:-1]
    if number == 1:
        data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return Line(number, data.decode() + suffix, True)
    except UnicodeDecodeError:
        return Line(number, data.decode("utf-8", "replace") + suffix, False)


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
