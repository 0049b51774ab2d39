"""Writing and removing on the host's side, where an agent may have planted links or taken away rights."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path
from typing import BinaryIO

from toka_runtime.errors import WorkspaceError


def write_atomically(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """The file is whole or not there. Folders on the way are made."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read without following a link in its last part or waiting on a pipe.
    Raises FileNotFoundError when it is no regular file (any more)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise FileNotFoundError(errno.ENOENT, "no regular file", str(path))
    return file


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it, also where an agent has made folders read-only; links are not followed.
    Raises OSError when something stays."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    _give_back_rights(path)
    # From the top: a folder's own rights are given back before it is entered.
    for folder, names, _ in os.walk(path):
        for name in names:
            _give_back_rights(Path(folder, name))
    shutil.rmtree(path)


def _give_back_rights(path: Path) -> None:
    mode = path.lstat().st_mode
    if stat.S_ISDIR(mode) and mode & stat.S_IRWXU != stat.S_IRWXU:
        path.chmod(stat.S_IRWXU)


def agent_root(tree: Path, prefix: str) -> Path:
    """`tree/prefix`, made if need be. Raises WorkspaceError where an agent has put a link in the way."""
    path = tree
    for part in Path(prefix).parts:
        path /= part
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise WorkspaceError(f"{path} is no folder any more", hint="put it back, or remove the worktree")
        path.mkdir(exist_ok=True)
    return path


def mend_pointer(tree: Path, admin: Path) -> None:
    """The `.git` file by which git finds its way from a worktree, where an agent has damaged it."""
    pointer = tree / ".git"
    wanted = f"gitdir: {admin}\n".encode()
    if _is_file(pointer) and pointer.stat().st_size == len(wanted) and pointer.read_bytes() == wanted:
        return
    if _is_file(pointer):
        pointer.unlink()
    else:
        remove_tree(pointer)
    write_atomically(pointer, wanted, mode=0o644)


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
