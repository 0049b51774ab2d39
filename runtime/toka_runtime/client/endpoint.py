"""Where a runtime listens: a unix socket in its state folder, mode 0600."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from toka_runtime import paths
from toka_runtime.errors import UsageError

SOCKET_NAME = "runtime.sock"
ANSWER_S = 5.0
_LONGEST = 107
"""Bytes of a socket's path (`sun_path` without its final zero)."""


@contextmanager
def _short(path: Path) -> Generator[str]:
    """A name of the path that fits into a socket address, however deep the folder is."""
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _made(path: Path, act: Callable[[socket.socket, str], None]) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # A runtime that is stopped takes no connection once its queue is full.
    made.settimeout(ANSWER_S)
    try:
        with _short(path) as name:
            act(made, name)
    except BaseException:
        made.close()
        raise
    made.setblocking(False)
    return made


def connected(path: Path) -> socket.socket:
    """A socket connected to the runtime at `path`. Raises OSError."""
    return _made(path, lambda made, name: made.connect(name))


def listening(path: Path) -> socket.socket:
    """A listening socket at `path`, mode 0600 from its first moment; a socket that nobody answers on is replaced.
    Raises OSError (EADDRINUSE when someone answers, or something else than a socket is there)."""

    def listen(made: socket.socket, name: str) -> None:
        if _is_dead(path):
            path.unlink(missing_ok=True)
        # The mode of the file is that of the unbound socket: there is no moment in which others could connect.
        os.fchmod(made.fileno(), 0o600)
        made.bind(name)
        made.listen(64)

    return _made(path, listen)


def _is_dead(path: Path) -> bool:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
        connected(path).close()
    except FileNotFoundError:
        return False
    except ConnectionRefusedError:
        return True
    return False


def find_runtimes() -> list[Path]:
    """Sockets below the default state folder that someone answers on."""
    return [path for path in sorted((paths.state_dir() / "fleets").glob(f"*/{SOCKET_NAME}")) if answers(path)]


def answers(path: Path) -> bool:
    """Whether a runtime serves there."""
    try:
        connected(path).close()
    except OSError:
        return False
    return True


def the_runtime() -> Path:
    """The socket of the only runtime of this user. Raises UsageError when there is none, or more than one."""
    found = find_runtimes()
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError("no runtime is serving", hint="start one with: toka-runtime serve")
    listed = " · ".join(str(path) for path in found)
    raise UsageError(f"{len(found)} runtimes are serving: {listed}", hint="choose one with --socket PATH")
