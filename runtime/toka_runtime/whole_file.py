"""Files of the operator's that are there whole or not at all, for their owner's eyes only."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def new_file(path: Path) -> Generator[BinaryIO]:
    """Write and read a new file, mode 0600, that bears its name once the block has ended and its bytes are on the disk;
    when the block raises there is no file. Never over another one: raises FileExistsError, before anything is written
    where it is there already. Raises OSError."""
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    # Unlike a rename, a link fails where there is a file already.
    with _draft(path, os.link) as file:
        yield file


def write_new(path: Path, data: bytes) -> None:
    """`new_file` for bytes that are at hand. Raises OSError."""
    with new_file(path) as file:
        file.write(data)


def replace_file(path: Path, data: bytes) -> None:
    """Put a file, mode 0600, in the place of the one of that name, if any: whoever reads sees one or the other whole.
    Its folder is made when missing. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _draft(path, os.replace) as file:
        file.write(data)


@contextmanager
def _draft(path: Path, put: Callable[[Path, Path], None]) -> Generator[BinaryIO]:
    """A file beside `path`, which `put` gives that name once it is written."""
    beside = path.with_name(f".{secrets.token_hex(8)}.part")
    descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        put(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """The name outlives a power cut, too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
