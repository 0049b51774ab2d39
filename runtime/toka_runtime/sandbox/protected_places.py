"""What lies in an agent's folder and is protected from it, found once before it starts: so much of the deny rules as
the kernel can hold. What comes into the folder later is protected from the file tools alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from toka_runtime.errors import SandboxUnavailable
from toka_runtime.protocol.capability import PathRule
from toka_runtime.worker.toolbox.globs import compile_glob

MOST_PLACES = 2000
"""Each is a mount: more than this is a rule that was not meant so."""


def protected_places(root: str, rules: Sequence[PathRule]) -> list[str]:
    """Outermost places below `root`, relative, that a rule covers; case is ignored, as in policy. Links are left out:
    they can't be walled off, and what they lead to has a name of its own. Raises SandboxUnavailable when there are too
    many. Blocking: it looks at every name in the folder."""
    patterns = [compile_glob(rule.glob, ignore_case=True) for rule in rules]
    names, any_name = _last_names(rules)
    found: list[str] = []
    if not patterns:
        return found
    for top, folders, files, descriptor in os.fwalk(root, follow_symlinks=False):
        del descriptor
        prefix = top[len(root) :].strip("/")
        for name in (*folders, *files):
            if not any_name and name.lower() not in names:
                continue
            place = f"{prefix}/{name}" if prefix else name
            if any(pattern.fullmatch(place) for pattern in patterns) and not Path(root, place).is_symlink():
                found.append(place)
                if name in folders:
                    folders.remove(name)
        if len(found) > MOST_PLACES:
            raise SandboxUnavailable(
                f"more than {MOST_PLACES} protected files lie in {root}",
                hint="narrow the [protected] rules of the capability catalogue",
            )
    return found


def _last_names(rules: Sequence[PathRule]) -> tuple[frozenset[str], bool]:
    """The names that a covered place can have, in lower case, and whether it can have any other: most rules are about a
    few names, and comparing these first takes a tenth of the time."""
    last = [rule.glob.removesuffix("/**").rpartition("/")[2] for rule in rules]
    return frozenset(name.lower() for name in last), any(any(mark in name for mark in "*?[") for name in last)
