"""Whether a bundle is as it was sealed: asked of nothing but the bundle."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from toka_runtime.client.evidence.archive import (
    CHUNK,
    DIGEST_AT,
    FORMAT,
    HEADER_BYTES,
    MANIFEST,
    VERSION,
    Entry,
    header,
)

MANIFEST_BYTES = 16 * 1024 * 1024
_PROOF = "proof.json"


@dataclass(slots=True)
class Verdict:
    digest: str = ""
    """SHA-256 of the whole file, in hex."""
    bytes: int = 0
    files: int = 0
    about: dict[str, Any] = field(default_factory=dict[str, Any])
    """The manifest, but its list of files."""
    problems: list[str] = field(default_factory=list[str])
    """What is wrong, the seal first. Empty: nothing is."""
    proof: str = "unavailable"
    """Of the audit log: what came of checking it."""


def verify_bundle(path: Path) -> Verdict:
    """Every problem found. Raises OSError when the file cannot be read."""
    verdict = Verdict()
    with path.open("rb") as file:
        _check_seal(file, verdict)
        file.seek(0)
        try:
            _check_entries(file, verdict)
        except (tarfile.TarError, zlib.error, EOFError, ValueError, RecursionError) as error:
            verdict.problems.append(f"the archive cannot be read: {error}")
        except OSError as error:
            # Of gzip: the disk's own errors have a number.
            if error.errno is not None:
                raise
            verdict.problems.append(f"the archive cannot be read: {error}")
    return verdict


def _check_seal(file: BinaryIO, verdict: Verdict) -> None:
    first = file.read(HEADER_BYTES)
    whole, body = hashlib.sha256(first), hashlib.sha256()
    verdict.bytes = len(first)
    while chunk := file.read(CHUNK):
        whole.update(chunk)
        body.update(chunk)
        verdict.bytes += len(chunk)
    verdict.digest = whole.hexdigest()
    said = first[DIGEST_AT : HEADER_BYTES - 1]
    if len(first) < HEADER_BYTES or first != header(said.decode(errors="replace")):
        verdict.problems.append("this is no evidence bundle, or its header was changed")
    elif said != body.hexdigest().encode():
        verdict.problems.append("the file is not as it was sealed: its content does not have the digest in its header")


def _check_entries(file: BinaryIO, verdict: Verdict) -> None:
    found: dict[str, Entry] = {}
    manifest = b""
    # The stream that tarfile makes by itself fails on a damaged header with errors of any kind.
    with gzip.GzipFile(fileobj=file) as plain, tarfile.open(mode="r|", fileobj=plain) as tar:
        for member in tar:
            name = member.name
            if not member.isreg() or not _is_plain(name):
                verdict.problems.append(f"an entry that no bundle has: {name!r}")
                continue
            if name in found:
                verdict.problems.append(f"{name!r} is there twice")
            content = tar.extractfile(member)
            if content is None:
                verdict.problems.append(f"{name!r} has no content")
                continue
            digest, size = hashlib.sha256(), 0
            while chunk := content.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
                if name == MANIFEST and size <= MANIFEST_BYTES:
                    manifest += chunk
            found[name] = Entry(name, size, digest.hexdigest())
    found.pop(MANIFEST, None)
    verdict.files = len(found)
    _compare(found, manifest, verdict)


def _is_plain(name: str) -> bool:
    path = PurePosixPath(name)
    return name.isprintable() and not path.is_absolute() and ".." not in path.parts


def _compare(found: dict[str, Entry], manifest: bytes, verdict: Verdict) -> None:
    """Raises ValueError for a manifest that is none."""
    about = _manifest(manifest)
    said = {entry.path: entry for entry in _listed(about.pop("files", None))}
    verdict.about = about
    for name in said.keys() - found.keys():
        verdict.problems.append(f"{name!r} is missing")
    for name in found.keys() - said.keys():
        verdict.problems.append(f"{name!r} was added: the manifest does not have it")
    for name in said.keys() & found.keys():
        if said[name] != found[name]:
            verdict.problems.append(f"{name!r} is not what the manifest says it is")


def _manifest(data: bytes) -> dict[str, Any]:
    if not data:
        raise ValueError(f"there is no {MANIFEST}")
    about: Any = json.loads(data)
    if not isinstance(about, dict):
        raise ValueError(f"{MANIFEST} is no object")
    about = cast(dict[str, Any], about)
    if about.get("format") != FORMAT:
        raise ValueError(f"{MANIFEST} is of another format")
    if about.get("version") != VERSION:
        raise ValueError(f"version {about.get('version')} of the format is not known here; {VERSION} is")
    return about


def _listed(files: Any) -> list[Entry]:
    if not isinstance(files, list):
        raise ValueError(f"{MANIFEST} has no list of files")
    entries: list[Entry] = []
    for each in cast(list[Any], files):
        match each:
            case {"path": str(path), "bytes": int(size), "sha256": str(digest)}:
                entries.append(Entry(path, size, digest))
            case _:
                raise ValueError(f"{MANIFEST} lists something that is no file")
    return entries
