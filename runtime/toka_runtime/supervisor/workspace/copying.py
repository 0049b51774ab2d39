"""Copies a plain folder for one agent: measured first, so that a folder that is too large is refused up front."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toka_runtime.aio import spawn
from toka_runtime.errors import WorkspaceError
from toka_runtime.supervisor.workspace.folders import open_regular, remove_tree

_PERMISSIONS = 0o777
_CHUNK = 8 * 1024 * 1024
_NOT_BY_KERNEL = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
"""From `copy_file_range`: these two file systems can't."""


@dataclass(frozen=True, slots=True)
class CopyLimits:
    """Of one agent's copy."""

    bytes: int = 2 * 1024**3
    files: int = 200_000


@dataclass(slots=True)
class CopyReport:
    files: int = 0
    bytes: int = 0
    skipped: int = 0
    """Sockets, pipes, devices, and what could not be read."""
    first_skipped: str = ""


def measure(source: Path, exclude: Path, limits: CopyLimits) -> CopyReport:
    """Size of `source` without `exclude`. Raises WorkspaceError past the limits, without walking on."""
    report = CopyReport()
    for entry in _walk(source, exclude, report):
        _count(entry, report, source, limits)
    return report


async def copy_folder(source: Path, target: Path, exclude: Path, limits: CopyLimits) -> CopyReport:
    """Copy into `target`, which appears only when it is whole. Files share blocks with their originals where the file
    system can. Cancelling stops between two files (or 8 MiB of a large one) and leaves nothing. Raises WorkspaceError.
    """
    stop = threading.Event()
    work = spawn(asyncio.to_thread(_copy_whole, source, target, exclude, limits, stop), name=f"copy {source.name}")
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([work])
        raise


class _Stopped(Exception):
    """The caller was cancelled."""


def _copy_whole(source: Path, target: Path, exclude: Path, limits: CopyLimits, stop: threading.Event) -> CopyReport:
    part = target.with_name(f"{target.name}.part")
    remove_tree(part)
    part.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part.mkdir()
    report = CopyReport()
    try:
        for entry in _walk(source, exclude, report):
            if stop.is_set():
                return report
            _count(entry, report, source, limits)
            _copy_entry(entry, part / os.path.relpath(entry.path, source), report, stop)
        part.chmod(stat.S_IMODE(source.stat().st_mode) & _PERMISSIONS | stat.S_IRWXU)
        part.rename(target)
    except _Stopped:
        return report
    except OSError as error:
        hint = "free some space, or use --in-place" if error.errno in {errno.ENOSPC, errno.EDQUOT} else ""
        raise WorkspaceError(f"{source} could not be copied: {error}", hint=hint) from error
    finally:
        remove_tree(part)
    return report


def _walk(source: Path, exclude: Path, report: CopyReport) -> Iterator[os.DirEntry[str]]:
    """Every entry below `source`, a folder before what it holds; links are not followed."""
    waiting: list[str] = [str(source)]
    unwanted = str(exclude)
    while waiting:
        folder = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except PermissionError:
            _skip(report, folder)
            continue
        except FileNotFoundError:
            continue
        for entry in entries:
            if entry.path == unwanted:
                continue
            yield entry
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)


def _count(entry: os.DirEntry[str], report: CopyReport, source: Path, limits: CopyLimits) -> None:
    try:
        size = 0 if entry.is_dir(follow_symlinks=False) else entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return
    report.files += 1
    report.bytes += size
    if report.files > limits.files or report.bytes > limits.bytes:
        raise WorkspaceError(
            f"{source} is too large to be copied for each agent: more than {limits.files:,} files or "
            f"{limits.bytes / 1024**3:.1f} GiB",
            hint="make it a git repository (each agent then gets a worktree), name a smaller folder, or use --in-place",
        )


def _copy_entry(entry: os.DirEntry[str], target: Path, report: CopyReport, stop: threading.Event) -> None:
    try:
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            target.symlink_to(os.readlink(entry.path))  # noqa: PTH115  # as it stands, not made a Path
        elif stat.S_ISDIR(status.st_mode):
            # Rights of folders that take writing away are not kept: the copy has to be filled.
            target.mkdir(mode=stat.S_IMODE(status.st_mode) & _PERMISSIONS | stat.S_IRWXU)
        elif stat.S_ISREG(status.st_mode):
            _copy_file(entry.path, target, status, stop)
        else:
            _skip(report, entry.path)
    except PermissionError:
        _skip(report, entry.path)
    except FileNotFoundError:
        # Gone since it was listed: the operator works there.
        return


def _copy_file(source: str, target: Path, status: os.stat_result, stop: threading.Event) -> None:
    with open_regular(Path(source)) as read, target.open("xb") as write:
        while True:
            if stop.is_set():
                raise _Stopped
            try:
                copied = os.copy_file_range(read.fileno(), write.fileno(), _CHUNK)
            except OSError as error:
                if error.errno not in _NOT_BY_KERNEL:
                    raise
                # Both go on from where the kernel stopped: their offsets have moved along.
                shutil.copyfileobj(read, write, _CHUNK)
                break
            if copied == 0:
                break
        write.flush()
        os.fchmod(write.fileno(), stat.S_IMODE(status.st_mode) & _PERMISSIONS)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _skip(report: CopyReport, path: str) -> None:
    report.skipped += 1
    report.first_skipped = report.first_skipped or path
