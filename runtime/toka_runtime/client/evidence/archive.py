"""The file of a bundle: a gzip'd tar that any tool unpacks, in which no byte can be changed unseen.

Checksums of gzip and tar leave bytes out (header fields, padding). So the gzip header carries, as its comment, the
SHA-256 of all that follows it, and is itself one fixed text but for that. `MANIFEST.json`, the last entry, has size and
SHA-256 of each other entry: what is taken out of a bundle can still be checked against it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from toka_runtime.whole_file import new_file

MANIFEST = "MANIFEST.json"
FORMAT = "toka-evidence"
VERSION = 1
CHUNK = 256 * 1024
# Magic, deflate, "a comment follows", no time, no extra flags, unknown system.
_GZIP_HEAD = b"\x1f\x8b\x08\x10" + bytes(5) + b"\xff"
_LABEL = f"{FORMAT} {VERSION} sha256:".encode()
DIGEST_AT = len(_GZIP_HEAD) + len(_LABEL)
HEADER_BYTES = DIGEST_AT + 64 + 1
_LEVEL = 6
_NAME_MOST = 80


def header(digest: str) -> bytes:
    """The first `HEADER_BYTES` of a bundle. `digest`: of all that follows them, in hex."""
    return _GZIP_HEAD + _LABEL + digest.encode() + b"\0"


def safe_name(text: str) -> str:
    """A part of a path in the archive, from a name that comes from outside."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text)[:_NAME_MOST].lstrip(".") or "_"


class Entry(NamedTuple):
    path: str
    bytes: int
    sha256: str


class Archive:
    """Entries are written one after the other; each is at most once in memory's way, by `CHUNK`."""

    def __init__(self, path: Path, file: BinaryIO, at: datetime) -> None:
        self._folder = path.parent
        self._gzip = _Gzip(file)
        self._tar = tarfile.open(mode="w", fileobj=self._gzip, format=tarfile.PAX_FORMAT)  # noqa: SIM115 closed by `seal`
        self._at = int(at.timestamp())
        self.entries: list[Entry] = []

    def part(self) -> BinaryIO:
        """A file without a name, on the same disk, for an entry that is not complete yet."""
        return tempfile.TemporaryFile(dir=self._folder)

    def add(self, path: str, part: BinaryIO) -> None:
        """Take over a part that is complete, and close it."""
        with part:
            size = part.seek(0, io.SEEK_END)
            part.seek(0)
            digest = hashlib.sha256()
            while chunk := part.read(CHUNK):
                digest.update(chunk)
            part.seek(0)
            info = tarfile.TarInfo(path)
            info.size, info.mtime, info.mode = size, self._at, 0o600
            self._tar.addfile(info, part)
        self.entries.append(Entry(path, size, digest.hexdigest()))

    def add_bytes(self, path: str, data: bytes) -> None:
        self.add(path, io.BytesIO(data))

    def seal(self, about: dict[str, Any]) -> str:
        """Add the manifest and close. Returns the SHA-256 of the whole file, in hex."""
        files = [entry._asdict() for entry in self.entries]
        about = {"format": FORMAT, "version": VERSION, **about, "files": files}
        self.add_bytes(MANIFEST, json.dumps(about, indent=1).encode() + b"\n")
        self._tar.close()
        return self._gzip.finish()


@contextmanager
def new_archive(path: Path, at: datetime) -> Generator[Archive]:
    """An archive whose file is there after the block, if it was sealed in it, and not at all when the block raises.
    Raises FileExistsError, OSError."""
    with new_file(path) as file:
        yield Archive(path, file, at)


class _Gzip(io.RawIOBase):
    """What is written to it is compressed into the file, behind a header that has its digest in the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._crc, self._size = 0, 0
        self._digest = hashlib.sha256()
        file.write(header("0" * 64))

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, data: Any, /) -> int:
        view = memoryview(data)
        self._crc = zlib.crc32(view, self._crc)
        self._size += view.nbytes
        self._put(self._deflate.compress(view))
        return view.nbytes

    def finish(self) -> str:
        """Write the end and the digest. Returns the SHA-256 of the whole file, in hex."""
        self._put(self._deflate.flush() + struct.pack("<II", self._crc, self._size & 0xFFFFFFFF))
        self._file.seek(0)
        self._file.write(header(self._digest.hexdigest()))
        self._file.seek(0)
        whole = hashlib.sha256()
        while chunk := self._file.read(CHUNK):
            whole.update(chunk)
        # Here, off the loop: `new_file` then has nothing to wait for.
        self._file.flush()
        os.fsync(self._file.fileno())
        return whole.hexdigest()

    def _put(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)
