"""Paths as the kernel would take them: `..` and links resolved against the agent's folder."""

from __future__ import annotations

import os
from dataclasses import dataclass

from toka_runtime.broker.validation import InvalidArguments

_LOOKS = 8


@dataclass(frozen=True, slots=True)
class Resolved:
    target: str
    """Relative to the root when it lies inside ("." for the root itself), absolute otherwise."""
    is_folder: bool
    """At the time of asking. Whoever uses the path does it without following links, so a swap is refused."""

    @property
    def tree(self) -> str:
        """The target that stands for everything below it."""
        return self.target if self.target.endswith("/") else f"{self.target}/"


def resolve(root: str, path: str, folder: str = "") -> Resolved:
    """`path` as seen from `folder` (relative to `root`). `root` is absolute and free of links. Raises
    InvalidArguments."""
    real = _real(os.path.join(root, folder, path))  # noqa: PTH118  # pathlib drops what `..` after a link means
    is_folder = os.path.isdir(real)  # noqa: PTH112
    if real == root:
        return Resolved(".", True)
    inside = root if root.endswith("/") else f"{root}/"
    return Resolved(real.removeprefix(inside) if real.startswith(inside) else real, is_folder)


def _real(path: str) -> str:
    # os.path.realpath goes through the links of the parts that exist and takes the rest as written. It raises when a
    # link has become something else between two of its looks: others may work in the folder, or mean to disturb.
    for _ in range(_LOOKS):
        try:
            return os.path.realpath(path)
        except OSError:
            continue
    raise InvalidArguments("the path keeps changing while it is looked at")
