"""From a tool call to the operations that policy decides on, and to the arguments that the tool child gets."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from toka_runtime.broker.command_line import SINKS, CommandLine, SimpleCommand, Unreadable, parse
from toka_runtime.broker.definitions import FINISH, TOOLS
from toka_runtime.broker.file_commands import path_uses
from toka_runtime.broker.paths import resolve
from toka_runtime.broker.validation import InvalidArguments, check_arguments
from toka_runtime.protocol.capability import Operation, OperationKind, Rights

_MAX_FOLDERS = 8
_MAX_ARGUMENTS = 64


@dataclass(frozen=True, slots=True)
class Prepared:
    """A valid call: nothing is decided yet."""

    tool: str
    arguments: dict[str, Any]
    """For the tool child: defaults filled in, paths resolved, commands written out as they were read."""
    operations: tuple[Operation, ...]
    target: str
    """For people: the path, command or address."""
    unreadable: str = ""
    """What in a command is not read, when its effect is not known before it runs."""


def tool_schemas(rights: Rights) -> tuple[dict[str, Any], ...]:
    """The tools that these rights offer, as the Messages API takes them."""
    return tuple(TOOLS[name] for name in rights.tools if name in TOOLS)


def operations_of(tool: str, arguments: dict[str, Any], root: str) -> tuple[Operation, ...]:
    """See `prepare`."""
    return prepare(tool, arguments, root).operations


def prepare(tool: str, arguments: object, root: str) -> Prepared:
    """Check the arguments and work out what the call would do. `root` is absolute and free of links. Raises
    InvalidArguments, also for a tool that does not exist."""
    if tool not in TOOLS:
        raise InvalidArguments(f"there is no tool {tool[:100]!r} (known: {', '.join(TOOLS)})")
    return _PREPARE[tool](check_arguments(TOOLS[tool]["input_schema"], arguments), root)


def _reading(tool: str, kind: OperationKind) -> Callable[[dict[str, Any], str], Prepared]:
    """Tools that read a whole folder: its target ends in `/`."""

    def prepare_reading(arguments: dict[str, Any], root: str) -> Prepared:
        place = resolve(root, arguments["path"])
        whole = place.is_folder or kind is OperationKind.LIST
        target = place.tree if whole else place.target
        shown = target if tool == "list_files" else f"{arguments['pattern']} in {target}"
        return Prepared(tool, arguments | {"path": target}, (Operation(kind=kind, target=target, tool=tool),), shown)

    return prepare_reading


def _file(tool: str, *kinds: OperationKind) -> Callable[[dict[str, Any], str], Prepared]:
    def prepare_file(arguments: dict[str, Any], root: str) -> Prepared:
        path: str = arguments["path"]
        if path.endswith("/") and tool != "read_file":
            raise InvalidArguments(f"path {path!r} ends in / and so names a folder, not a file")
        target = resolve(root, path).target
        operations = tuple(Operation(kind=kind, target=target, tool=tool) for kind in kinds)
        return Prepared(tool, arguments | {"path": target}, operations, target)

    return prepare_file


def _command(arguments: dict[str, Any], root: str) -> Prepared:
    command: str = arguments["command"]
    try:
        line = parse(command)
        operations = _of_line(line, root)
    except Unreadable as error:
        operation = Operation(kind=OperationKind.EXECUTE, target=command, tool="run_command")
        return Prepared("run_command", arguments, (operation,), command, unreadable=str(error))
    return Prepared("run_command", arguments | {"command": line.shell}, operations, command)


def _of_line(line: CommandLine, root: str) -> tuple[Operation, ...]:
    found: dict[tuple[OperationKind, str], Operation] = {}

    def add(kind: OperationKind, target: str, argv: tuple[str, ...] = ()) -> None:
        found.setdefault((kind, target), Operation(kind=kind, target=target, argv=argv, tool="run_command"))

    # After `cd` the shell may be in either folder: what follows is decided for both.
    folders = [""]
    for command in line.commands:
        for redirection in command.redirections:
            if redirection.path is None or redirection.path.text in SINKS:
                continue
            kind = OperationKind.WRITE if redirection.writes else OperationKind.READ
            for folder in folders:
                add(kind, resolve(root, redirection.path.text, folder).target)
        if not command.words:
            continue
        if command.argv[0] == "cd":
            folders = _entered(command, root, folders, add)
            continue
        add(OperationKind.EXECUTE, command.shell, command.argv)
        uses = path_uses(command, root, folders)
        for kind, target in _leaving(command, root, folders) if uses is None else uses:
            add(kind, target)
    return tuple(found.values())


def _leaving(command: SimpleCommand, root: str, folders: list[str]) -> Iterator[tuple[OperationKind, str]]:
    """Arguments that look like paths in the folder and are links out of it. What an argument means to a program is not
    known, so this is no wall; it keeps a link that lies in the repository from being the easiest way around one."""
    for word in command.words[1:_MAX_ARGUMENTS]:
        if word.wild or word.text.startswith(("-", "/")) or ".." in word.text or not 0 < len(word.text) < 1000:
            continue
        for folder in folders:
            target = resolve(root, word.text, folder).target
            if posixpath.isabs(target):
                yield OperationKind.READ, target


def _entered(
    command: SimpleCommand, root: str, folders: list[str], add: Callable[[OperationKind, str], None]
) -> list[str]:
    entered = list(folders)
    for folder in folders:
        place = resolve(root, command.words[-1].text, folder)
        add(OperationKind.LIST, place.target if place.target != "." else "./")
        if not posixpath.isabs(place.target) and place.target not in entered:
            entered.append("" if place.target == "." else place.target)
    if len(entered) > _MAX_FOLDERS:
        raise Unreadable("too many changes of folder")
    return list(dict.fromkeys(entered))


def _fetch(arguments: dict[str, Any], root: str) -> Prepared:
    url: str = arguments["url"]
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
        host = (parts.hostname or "").rstrip(".")
        host = host if host.isascii() else host.encode("idna").decode("ascii")
    except (ValueError, UnicodeError):
        raise InvalidArguments(f"url {url[:200]!r} is no address") from None
    if parts.scheme not in ("http", "https") or not host or any(char in url for char in "\r\n\t"):
        raise InvalidArguments("url has to begin with http:// or https:// and name a host")
    if "@" in parts.netloc:
        raise InvalidArguments("url must not hold a user name or password")
    place = f"[{host}]" if ":" in host else host
    plain = urlunsplit((parts.scheme, f"{place}:{port}", parts.path, parts.query, ""))
    operation = Operation(kind=OperationKind.CONNECT, target=f"{place}:{port}", tool="fetch_url")
    return Prepared("fetch_url", {"url": plain}, (operation,), url)


def _finish(arguments: dict[str, Any], root: str) -> Prepared:
    return Prepared(FINISH, arguments, (), arguments["status"])


_PREPARE: dict[str, Callable[[dict[str, Any], str], Prepared]] = {
    "list_files": _reading("list_files", OperationKind.LIST),
    "search_text": _reading("search_text", OperationKind.READ),
    "read_file": _file("read_file", OperationKind.READ),
    "write_file": _file("write_file", OperationKind.WRITE),
    "edit_file": _file("edit_file", OperationKind.READ, OperationKind.WRITE),
    "run_command": _command,
    "fetch_url": _fetch,
    FINISH: _finish,
}
