"""What an operator may write for a host: a word that ssh takes, a name of `console.yaml`, or a group of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from toka_console.settings import HostSettings

SCHEME = "ssh://"
_USER = r"(?:[A-Za-z0-9_][A-Za-z0-9_.\\-]*@)?"
_HOST = re.compile(_USER + r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*|\[?[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]?)")
_FILES = (".yaml", ".yml", ".toml", ".json")


class Wanted(NamedTuple):
    """A host that shall be attached."""

    name: str
    """What it is called here: as in console.yaml, else as it was written."""
    address: str
    """What ssh is told."""


def is_host(word: str) -> bool:
    """HOST or USER@HOST, as one writes it for ssh; no option, no path."""
    return _HOST.fullmatch(word) is not None


def sort_out(words: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Words of the command line → (paths of specs, hosts). `ssh://HOST` is a host, what is there on the disk or looks
    like a path is a path, and any other word that ssh would take is a host. Raises ValueError for one that could be
    both."""
    paths: list[Path] = []
    hosts: list[str] = []
    for word in words:
        if word.startswith(SCHEME):
            hosts.append(checked(word.removeprefix(SCHEME).rstrip("/")))
        elif Path(word).exists():
            if "@" in word and is_host(word):
                raise ValueError(f"{word} is a path here, and could be a host: write ./{word} or {SCHEME}{word}")
            paths.append(Path(word))
        elif is_host(word) and not word.endswith(_FILES):
            hosts.append(word)
        else:
            paths.append(Path(word))
    return paths, hosts


def checked(word: str) -> str:
    """Raises ValueError when it is no host."""
    if not is_host(word):
        raise ValueError(f"{word!r} is no host: write HOST or USER@HOST, as for ssh")
    return word


def listed(text: str) -> list[str]:
    """`a,b,user@c` → each of them. Raises ValueError."""
    return [checked(word.strip()) for word in text.split(",")]


def read_hosts(file: Path) -> list[str]:
    """Of a file: a host a line; `#` begins a comment. Raises ValueError, with the line."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    found: list[str] = []
    for number, line in enumerate(lines, 1):
        if word := line.partition("#")[0].strip():
            try:
                found.append(checked(word))
            except ValueError as error:
                raise ValueError(f"{file}:{number}: {error}") from None
    if not found:
        raise ValueError(f"{file} names no host")
    return found


def wanted(words: Iterable[str], known: Mapping[str, HostSettings]) -> list[Wanted]:
    """Each host once, in the order it was named; a group stands for all of its hosts."""
    found: dict[str, Wanted] = {}
    for word in words:
        members = [name for name, each in known.items() if each.group == word]
        for name in [word] if word in known or not members else members:
            found.setdefault(name, Wanted(name, (known[name].address if name in known else "") or name))
    return list(found.values())
