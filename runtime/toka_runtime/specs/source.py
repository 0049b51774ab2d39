"""Bytes of a file to text: bounded in size, UTF-8, free of characters that could drive a terminal."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from toka_runtime.specs.findings import Findings

MAX_FILE_BYTES = 1_000_000
_REPORTED = 5

# C0 but tab, line feed, carriage return; DEL; C1 but NEL; bidirectional embeddings, overrides and isolates; half pairs.
FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_BREAKS = re.compile("\r\n|[\n\r\x85\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Source:
    text: str
    digest: str
    """SHA-256 of the bytes, hexadecimal."""


@dataclass(frozen=True, slots=True)
class Place:
    line: int
    column: int


def place_of(text: str, offset: int) -> Place:
    """Line and column (from 1) of a character offset, line ends as YAML counts them."""
    line, start = 1, 0
    for match in _BREAKS.finditer(text, 0, offset):
        line, start = line + 1, match.end()
    return Place(line, max(1, offset - start + 1))


def display(path: Path | str) -> str:
    """A path as text that is always valid Unicode: bytes of a name that are not UTF-8 are shown as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def read_source(path: Path, findings: Findings) -> Source | None:
    """None, and the reason in `findings`, when the file cannot be read as text. Never blocks on a pipe or a device."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            findings.error(None, "spec.unreadable", "is not a regular file", "give a file, or a folder of files")
            return None
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        findings.error(None, "spec.missing_file", "does not exist")
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        findings.error(None, "spec.unreadable", f"cannot be read: {reason}")
        return None
    return source_of(data, findings)


def source_of(data: bytes, findings: Findings) -> Source | None:
    if len(data) > MAX_FILE_BYTES:
        findings.error(None, "spec.too_large", "is larger than 1 MB", "split it: one agent a file")
        return None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        hint = "save it as UTF-8" + (" (it looks like UTF-16)" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "")
        message = f"is not UTF-8: byte 0x{data[error.start]:02x}"
        findings.error(place_of(before, len(before)), "spec.not_utf8", message, hint)
        return None
    text = text.removeprefix("\ufeff")
    if not text.strip():
        findings.error(None, "spec.empty", "is empty", "a spec has at least metadata with a name, and tasks")
        return None
    bad = False
    for count, match in enumerate(FORBIDDEN.finditer(text)):
        if count == _REPORTED:
            break
        bad = True
        message = f"holds the control character U+{ord(match[0]):04X}"
        findings.error(place_of(text, match.start()), "spec.control_character", message, "remove it")
    return None if bad else Source(text, hashlib.sha256(data).hexdigest())
