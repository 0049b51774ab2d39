"""Rules for files (`docs/*.md`, `**/*kernel*/**`) as rules of the kernel: for the files and folders that are there now.

Landlock knows files and folders, not patterns. So a program changes a file that a pattern covers in place; making,
renaming and deleting it takes a right to the folder, with which everything else in there could be changed. That is left
to the file tools, whose every path is decided on. Standard library only; it runs in a tool child before its walls are
up, on a folder whose owner may be an attacker: no link is followed, and rights go to exactly what was opened.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Generator, Sequence
from typing import NamedTuple

from toka_runtime.sandbox.landlock import READ_DIR, PathAccess
from toka_runtime.worker.toolbox.globs import compile_glob, covers, matches

MOST_NAMES, MOST_FOUND = 20_000, 2_000
"""Names looked at, and rules made, for one call. What lies beyond has no right."""


class Scattered(NamedTuple):
    glob: str
    within: str
    """"" when it isn't limited."""
    rights: int


def accesses(root: str, rules: Sequence[Scattered], denied: Sequence[str] = ()) -> Generator[PathAccess]:
    """To be used one at a time: each is a path to a descriptor that is open until the next is asked for. Nothing that
    `denied` covers is among them. Names in the folder can be listed."""
    if not rules:
        return
    yield PathAccess(root, READ_DIR)
    protected = [compile_glob(glob, ignore_case=True) for glob in denied]
    # Most names are no rule's: one pattern tells that.
    any_rule = re.compile("|".join(f"(?:{compile_glob(rule.glob).pattern})" for rule in rules), re.DOTALL)
    seen = found = 0
    for top, folders, files, descriptor in os.fwalk(root, follow_symlinks=False):
        prefix = top[len(root) :].strip("/")
        here = f"{prefix}/" if prefix else ""
        for name in (*folders, *files):
            seen += 1
            if seen > MOST_NAMES or found > MOST_FOUND:
                return
            path = here + name
            if any_rule.fullmatch(path) is None or any(one.fullmatch(path) for one in protected):
                continue
            for access in _access(rules, path, name, descriptor):
                found += 1
                yield access
        folders[:] = [
            name
            for name in folders
            if any(_reaches(rule, here + name) for rule in rules)
            and not any(one.fullmatch(here + name) for one in protected)
        ]


def _access(rules: Sequence[Scattered], path: str, name: str, folder: int) -> Generator[PathAccess]:
    """Once or not at all. `folder`: a descriptor of the one that holds `name`."""
    as_tree = as_file = 0
    for rule in rules:
        if covers(rule.glob, rule.within, path):
            as_file |= rule.rights
            as_tree |= rule.rights if covers(rule.glob, rule.within, path, tree=True) else 0
    if not as_file:
        return
    try:
        opened = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        # Gone, or another's: no right then.
        return
    try:
        mode = os.fstat(opened).st_mode
        rights = as_file if stat.S_ISREG(mode) else as_tree if stat.S_ISDIR(mode) else 0
        if rights:
            yield PathAccess(f"/proc/self/fd/{opened}", rights)
    finally:
        os.close(opened)


def _reaches(rule: Scattered, folder: str) -> bool:
    """Whether something below the folder can be covered."""
    parts = rule.glob.split("/")
    for depth, name in enumerate(folder.split("/")):
        if depth < len(parts) and parts[depth] == "**":
            return True
        if depth + 1 >= len(parts) or not matches(parts[depth], name):
            return False
    return True
