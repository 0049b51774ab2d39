"""Opening files below one folder, so that no path and no planted link leads out of it.

The broker has resolved every link before policy decided; a symbolic link met here was put there since. So none is
followed, with `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)` where the kernel has it and by
walking the components with `O_NOFOLLOW` where it does not. Both refuse alike.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache

from toka_runtime.worker.toolbox.failure import ToolFailure, fail

_SYS_OPENAT2 = 437  # the same number on every architecture
_RESOLVE = 0x08 | 0x04 | 0x02  # BENEATH | NO_SYMLINKS | NO_MAGICLINKS


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@lru_cache(1)
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _openat2(folder_fd: int, path: str, flags: int) -> int:
    how = _OpenHow(flags, 0, _RESOLVE)
    fd: int = _libc().syscall(
        _SYS_OPENAT2, folder_fd, ctypes.c_char_p(os.fsencode(path)), ctypes.byref(how), ctypes.sizeof(how)
    )
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return fd


@lru_cache(1)
def has_openat2() -> bool:
    """Tried, not guessed from the version: a filter may refuse what the kernel has."""
    try:
        here = os.open("/", os.O_PATH | os.O_CLOEXEC)
        try:
            os.close(_openat2(here, ".", os.O_PATH | os.O_CLOEXEC))
        finally:
            os.close(here)
    except (OSError, AttributeError):
        return False
    return True


def components(path: str) -> list[str]:
    """The parts of a relative path; [] for the folder itself. Refuses what could lead out."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or "\0" in path:
        raise ToolFailure("tool.refused", f"{path}: the path leads out of the agent's folder", refused_target=path)
    return parts


def open_beneath(root_fd: int, parts: list[str], flags: int) -> int:
    """A descriptor of what lies at `parts` (`components`) below the folder; no link on the way is followed. Raises
    OSError."""
    flags |= os.O_CLOEXEC
    if not parts:
        return os.open(".", flags, dir_fd=root_fd)
    if has_openat2():
        try:
            return _openat2(root_fd, "/".join(parts), flags)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            # The filter, which this process got after it was asked, refuses it: ask again.
            has_openat2.cache_clear()
    return _walk(root_fd, parts, flags)


def _walk(root_fd: int, parts: list[str], flags: int) -> int:
    folder = root_fd
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            if folder != root_fd:
                os.close(folder)
            folder = inner
        return os.open(parts[-1], flags | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        # With O_DIRECTORY the kernel says ENOTDIR of a link; only a look tells it from a file.
        if error.errno == errno.ENOTDIR and _is_link(folder, str(error.filename)):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), error.filename) from None
        raise
    finally:
        if folder != root_fd:
            os.close(folder)


def _is_link(folder_fd: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode)
    except OSError:
        return False


@contextmanager
def open_file(root_fd: int, path: str) -> Generator[int]:
    """A regular file for reading. Pipes, devices, sockets and folders are refused without touching them."""
    try:
        # O_NONBLOCK: opening a pipe without a writer would hang.
        fd = open_beneath(root_fd, components(path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        fail(error, path)
    try:
        kind = os.fstat(fd).st_mode
        if stat.S_ISDIR(kind):
            raise ToolFailure("tool.invalid", f"{path}: it is a folder; use list_files")
        if not stat.S_ISREG(kind):
            raise ToolFailure("tool.invalid", f"{path}: it is {kind_name(kind)}, not a file")
        yield fd
    finally:
        os.close(fd)


@contextmanager
def open_folder(root_fd: int, path: str) -> Generator[int]:
    """A folder for listing."""
    try:
        fd = open_beneath(root_fd, components(path), os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)
    except OSError as error:
        fail(error, path)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def open_parent(root_fd: int, path: str, *, create: bool) -> Generator[tuple[int, str]]:
    """The folder that holds `path`, and the last name. Missing folders are made when asked to."""
    parts = components(path)
    if not parts:
        raise ToolFailure("tool.invalid", f"{path}: it is the agent's folder itself, not a file")
    folder = os.dup(root_fd)
    try:
        for part in parts[:-1]:
            inner = _enter(folder, part, create=create)
            os.close(folder)
            folder = inner
        yield folder, parts[-1]
    except OSError as error:
        fail(error, path)
    finally:
        os.close(folder)


def _enter(folder_fd: int, name: str, *, create: bool) -> int:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=folder_fd)
    except FileNotFoundError:
        if not create:
            raise
        os.mkdir(name, dir_fd=folder_fd)
        return os.open(name, flags, dir_fd=folder_fd)
    except NotADirectoryError:
        if _is_link(folder_fd, name):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name) from None
        raise


def kind_name(mode: int) -> str:
    for check, name in (
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a folder"),
    ):
        if check(mode):
            return name
    return "a file"
