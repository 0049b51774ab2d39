"""Programs whose arguments are all paths: each path is an operation of its own beside running the program."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence

from toka_runtime.broker.command_line import SimpleCommand, Unreadable
from toka_runtime.broker.paths import Resolved, resolve
from toka_runtime.protocol.capability import OperationKind

_OPTIONS = {
    "mkdir": re.compile(r"-[pv]+"),
    "rmdir": re.compile(r"-[pv]+"),
    "touch": re.compile(r"-[acm]+"),
    "rm": re.compile(r"-[rRfdv]+"),
    "chmod": re.compile(r"-[Rv]+"),
    "mv": re.compile(r"-[fnv]+"),
    "cp": re.compile(r"-[rRapfnuv]+"),
}
_MODE = re.compile(r"[ugoa]*[-+=][rwxX]*|[0-7]{3}")
_READ, _WRITE = OperationKind.READ, OperationKind.WRITE

PathUse = tuple[OperationKind, str]
"""(kind, target); a target that ends in `/` is a whole tree."""


def path_uses(command: SimpleCommand, root: str, folders: Sequence[str]) -> list[PathUse] | None:
    """What the command reads and writes, for each folder that it may run in; None for any other program. Raises
    Unreadable when its arguments are not plain options and literal paths."""
    name = command.argv[0]
    if name not in _OPTIONS:
        return None
    options, operands = _split(command, _OPTIONS[name])
    if name == "chmod":
        if not operands or not _MODE.fullmatch(operands[0]):
            raise Unreadable("chmod with a mode other than rwx or three digits")
        operands = operands[1:]
    if not operands or (name in ("mv", "cp") and len(operands) < 2):
        raise Unreadable(f"{name} without a path")
    uses: dict[PathUse, None] = {}
    for folder in folders:
        if name in ("mv", "cp"):
            uses |= dict.fromkeys(_moved(name, operands, root, folder))
            continue
        recursive = name in ("rm", "chmod") and any(char in options for char in "rR")
        for operand in operands:
            place = resolve(root, operand, folder)
            uses[_use(_WRITE, place, whole=recursive and place.is_folder)] = None
    return list(uses)


def _split(command: SimpleCommand, allowed: re.Pattern[str]) -> tuple[str, list[str]]:
    options = ""
    operands: list[str] = []
    only_operands = False
    for word in command.words[1:]:
        if word.wild:
            raise Unreadable(f"a wildcard in the paths of {command.argv[0]}")
        if not only_operands and word.text == "--":
            only_operands = True
        elif not only_operands and word.text.startswith("-") and len(word.text) > 1:
            if not allowed.fullmatch(word.text):
                raise Unreadable(f"{command.argv[0]} with the option {word.text}")
            options += word.text[1:]
        elif not word.text:
            raise Unreadable(f"an empty path for {command.argv[0]}")
        else:
            operands.append(word.text)
    return options, operands


def _use(kind: OperationKind, place: Resolved, *, whole: bool) -> PathUse:
    return kind, place.tree if whole else place.target


def _moved(name: str, operands: list[str], root: str, folder: str) -> Iterator[PathUse]:
    *sources, last = operands
    goal = resolve(root, last, folder)
    for operand in sources:
        source = resolve(root, operand, folder)
        # A folder that is moved or copied brings all that is in it.
        yield _use(_WRITE if name == "mv" else _READ, source, whole=source.is_folder)
        yield _use(_WRITE, goal, whole=source.is_folder and not goal.is_folder)
        if goal.is_folder:
            inner = resolve(root, f"{last}/{posixpath.basename(operand.rstrip('/'))}", folder)
            yield _use(_WRITE, inner, whole=source.is_folder)
