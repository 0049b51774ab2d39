"""What programs need beyond themselves: the installation around them, and what the catalogue's `[toolchain.…]` tables
say of those that keep their parts in a home. A home itself, and what else lies in it, is never given."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from toka_runtime.protocol.capability import Rights, Toolchain, ToolchainFolder

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc/alternatives", "/etc/ld.so.cache")
"""Programs and libraries. Links among them stay links."""
_MOST_LINKS = 16


def own_python() -> str | None:
    """Where the interpreter that runs this is installed, when that is outside of the system folders: the one Python
    that is certain to be there. Its `bin` is to come first in an agent's PATH, for what else a search path holds (a
    version manager's shims) works only with its home."""
    prefix = Path(sys.base_prefix).resolve()
    return None if _in_system(str(prefix)) or _holds_home(prefix) else str(prefix)


def toolchains(rights: Rights, search_path: str) -> list[str]:
    """What lies outside of the system folders and is needed by a program that may be run, programs looked up in
    `search_path`; it exists, and is for reading."""
    found: list[Path] = []
    for place in _outside(_programs(rights), search_path):
        for path in _links(Path(place)):
            found += _installation(path)
    for toolchain in _needed(rights):
        for folder in toolchain.folders:
            if (at := _place(folder)) is not None:
                found += [at / part for part in folder.read]
    return [str(path) for path in dict.fromkeys(found) if path.exists() and not _holds_home(path.resolve())]


def tool_environment(rights: Rights, environment: Mapping[str, str]) -> dict[str, str]:
    """What is to be added to a tool's `environment` (with its PATH and HOME), so that programs find their parts."""
    added: dict[str, str] = {}
    if (python := own_python()) is not None:
        added["PATH"] = f"{python}/bin:{environment.get('PATH', os.defpath)}"
    for toolchain in _needed(rights):
        for folder in toolchain.folders:
            if folder.variable and (at := _place(folder)) is not None:
                loads = folder.own and rights.network
                added[folder.variable] = f"{environment.get('HOME', '/')}/{folder.own}" if loads else str(at)
    return added


def _needed(rights: Rights) -> list[Toolchain]:
    heads = {rule.argv_prefix[0] for rule in rights.execute if rule.argv_prefix}
    return [one for one in rights.toolchains if "*" in heads or not heads.isdisjoint(one.programs)]


def _programs(rights: Rights) -> dict[str, None]:
    named = dict.fromkeys(rule.argv_prefix[0] for rule in rights.execute if rule.argv_prefix)
    # With the right to any program: what is known to need something.
    return named | dict.fromkeys(name for toolchain in _needed(rights) for name in toolchain.programs)


def _outside(names: Iterable[str], search_path: str) -> list[str]:
    """Where those of the programs are that a shell would find outside of the system folders. By hand: a launch waits
    for this, and `shutil.which` and pathlib took most of it."""
    folders = [folder for folder in dict.fromkeys(search_path.split(":")) if folder.startswith("/")]
    there = {folder: _names_in(folder) for folder in folders if not _in_system(folder)}
    found: list[str] = []
    for name in names:
        for number, folder in enumerate(folders):
            path = f"{folder}/{name}"
            if name in there.get(folder, ()) and os.access(path, os.X_OK):
                before = [other for other in folders[:number] if other not in there]
                if not any(os.access(f"{other}/{name}", os.X_OK) for other in before):
                    found.append(path)
                break
    return found


def _names_in(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return frozenset()


def _place(folder: ToolchainFolder) -> Path | None:
    """The first of the places that is there: `$VARIABLE` of the runtime's own environment, `~/…`, or a path."""
    for text in folder.at:
        name = os.environ.get(text[1:], "") if text.startswith("$") else text
        path = Path(name).expanduser() if name else None
        if path is not None and path.is_absolute() and path.is_dir():
            return path
    return None


def _links(program: Path) -> Iterator[Path]:
    """The program and what it is a link to, step by step: each step has to be there by its own name."""
    for _ in range(_MOST_LINKS):
        yield program
        if not program.is_symlink():
            break
        program = Path(os.path.normpath(program.parent / program.readlink()))
    yield program.resolve()


def _installation(program: Path) -> list[Path]:
    """For /opt/x/bin/tool all of /opt/x; below a home only what looks like an installation, else its programs."""
    folder = program.parent
    if _in_system(str(program)) or folder.name == "shims":
        # A version manager's stand-in is of no use without the home that it looks into.
        return []
    if folder.name != "bin":
        return [program]
    prefix = folder.parent
    return [prefix, *_base_of(prefix)] if _may_be_given(prefix) else [folder]


def _may_be_given(prefix: Path) -> bool:
    if prefix == Path("/") or _holds_home(prefix):
        return False
    return not prefix.is_relative_to(Path.home()) or _is_installation(prefix)


def _is_installation(prefix: Path) -> bool:
    """Whether a folder in a home holds a program's parts and nothing else: a virtual or Conda environment, or a version
    that a version manager keeps (`~/.nvm/versions/node/v22`, `~/.pyenv/versions/3.12`)."""
    if any((prefix / mark).exists() for mark in ("pyvenv.cfg", "conda-meta")):
        return True
    above = prefix.relative_to(Path.home()).parts[:-1]
    return (prefix / "lib").is_dir() and any(part.startswith(".") for part in above)


def _base_of(environment: Path) -> list[Path]:
    """The Python that a virtual environment was made from."""
    try:
        lines = (environment / "pyvenv.cfg").read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    homes = [
        Path(value.strip()) for name, _, value in (line.partition("=") for line in lines) if name.strip() == "home"
    ]
    bases = [home.parent for home in homes if home.is_absolute() and not _in_system(str(home))]
    return [base for base in bases if _may_be_given(base)]


def _in_system(path: str) -> bool:
    return any(path == system or path.startswith(f"{system}/") for system in SYSTEM)


def _holds_home(prefix: Path) -> bool:
    return Path.home().is_relative_to(prefix)
