"""How a tool says that it could not do what was asked: for the model to read, never a traceback."""

from __future__ import annotations

import errno
from typing import NoReturn


class ToolFailure(Exception):
    """`code` is stable (`tool.…`), the message is a sentence for the model, `refused_target` the exact target where the
    kernel or the tool refused an access that policy had allowed ("" otherwise)."""

    def __init__(self, code: str, message: str, *, refused_target: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.refused_target = refused_target


class TimeIsUp(Exception):
    """Raised in the middle of whatever runs when a tool has had its time. Not a `ToolFailure`: what skips a file that
    cannot be read must not skip this."""


_KNOWN = {
    errno.ENOENT: ("tool.not_found", "there is no such file or folder"),
    errno.ENOTDIR: ("tool.not_found", "a part of the path is a file, not a folder"),
    errno.EISDIR: ("tool.invalid", "it is a folder"),
    errno.ENAMETOOLONG: ("tool.invalid", "the name is too long"),
    errno.EINVAL: ("tool.invalid", "the file system does not take this name"),
    errno.ENXIO: ("tool.invalid", "it is a socket or a pipe, not a file"),
    errno.ENODEV: ("tool.invalid", "it is a device, not a file"),
    errno.ENOSPC: ("tool.disk_full", "the disk is full; nothing was changed"),
    errno.EDQUOT: ("tool.disk_full", "the disk quota is used up; nothing was changed"),
    errno.EROFS: ("tool.refused", "the file system is read-only"),
    errno.EACCES: ("tool.refused", "permission denied"),
    errno.EPERM: ("tool.refused", "operation not permitted"),
    errno.ELOOP: ("tool.refused", "a part of the path is a symbolic link that appeared after the check"),
    errno.EXDEV: ("tool.refused", "the path leads out of the agent's folder"),
}


def fail(error: OSError, path: str) -> NoReturn:
    """Raise the `ToolFailure` for an operating-system error about `path`."""
    code, text = _KNOWN.get(error.errno or 0, ("tool.os_error", error.strerror or str(error)))
    raise ToolFailure(code, f"{path}: {text}", refused_target=path if code == "tool.refused" else "") from error
