"""Whether one rule covers one operation. Pure; patterns are compiled once.

What is known of a program is its name and its arguments, and a program may do more than its name says: `cargo test`
runs the code that the agent has just written, an interpreter runs anything. Rules narrow what can be asked for; the
kernel confines what runs.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from functools import lru_cache

from toka_runtime.protocol.capability import ExecuteRule, NetworkRule, PathRule
from toka_runtime.worker.toolbox.globs import compile_glob, covers, is_tree

ANY_PROGRAM = ("*",)
# `/x`, `~/x`, `--file=/x`, `a:/x`, `-f/x`, `-f../x`, `a/../x`; not free text such as a commit message with a URL.
_LEAVES = re.compile(r"^[/~]|^\S*[=:][/~]|^-[A-Za-z0-9]+(?:/|\.\./)|(?:^|[=:/])\.\.(?:/|$)")
_GLOB_CHARS = re.compile(r"[*?\[]")


def split_target(target: str) -> tuple[str, bool]:
    """A path target as (path, whole tree?): `docs/` is the tree below `docs`, `./` everything, whose path is ""."""
    tree = target.endswith("/")
    path = target.rstrip("/") if tree else target
    return ("" if path == "." else path), tree


def inside(target: str) -> bool:
    """Whether a path target is written the one way that stays in the agent's folder: relative, normalised, no `..`."""
    if not target or target.startswith("/") or "\0" in target:
        return False
    path, _ = split_target(target)
    return path == "" or not any(part in ("", ".", "..") for part in path.split("/"))


def path_covered(rule: PathRule, path: str, tree: bool) -> bool:
    return covers(rule.glob, rule.within, path, tree=tree)


def is_folder(rule: PathRule) -> bool:
    """Whether the rule covers one folder with everything in it, which is what the kernel can hold exactly."""
    return is_tree(rule.glob) and not rule.within and not _GLOB_CHARS.search(rule.glob.removesuffix("**"))


def path_protected(rule: PathRule, path: str, tree: bool, *, changes: bool) -> bool:
    """Whether a deny rule meets the operation. Case is ignored, as some file systems do. Changing a whole tree is
    denied when something protected at a fixed place lies in it; reading one leaves the protected files out."""
    if compile_glob(rule.glob, ignore_case=True).fullmatch(path) is not None:
        return True
    return tree and changes and _lies_in(_fixed_part(rule.glob), path)


@lru_cache(1024)
def _fixed_part(glob: str) -> str:
    """The path before the first wildcard: `a/b/**` → `a/b`; "" where it begins with one."""
    fixed: list[str] = []
    for part in glob.split("/"):
        if _GLOB_CHARS.search(part):
            break
        fixed.append(part)
    return "/".join(fixed)


def _lies_in(path: str, folder: str) -> bool:
    return path != "" and (folder == "" or path.lower().startswith(folder.lower() + "/"))


_indexed: OrderedDict[int, tuple[tuple[ExecuteRule, ...], dict[str, tuple[ExecuteRule, ...]]]] = OrderedDict()
_INDEXED_MOST = 512


def rules_for(rules: tuple[ExecuteRule, ...], program: str) -> tuple[ExecuteRule, ...]:
    """Those of `rules` that may be about the program, in order, and those about any program after them. There are
    hundreds in a catalogue; the index is kept for the tuple itself, whose hash would cost more than the search."""
    found = _indexed.get(id(rules))
    if found is None or found[0] is not rules:
        # The tuple is kept with its index, so that its id cannot be another's.
        found = _indexed[id(rules)] = (rules, _by_program(rules))
        if len(_indexed) > _INDEXED_MOST:
            _indexed.popitem(last=False)
    return found[1].get(program) or found[1]["*"]


def _by_program(rules: tuple[ExecuteRule, ...]) -> dict[str, tuple[ExecuteRule, ...]]:
    anything = tuple(rule for rule in rules if rule.argv_prefix == ANY_PROGRAM)
    programs: dict[str, list[ExecuteRule]] = {}
    for rule in rules:
        if rule.argv_prefix != ANY_PROGRAM:
            programs.setdefault(rule.argv_prefix[0], []).append(rule)
    return {name: (*found, *anything) for name, found in programs.items()} | {"*": anything}


def execute_covered(rule: ExecuteRule, argv: tuple[str, ...], protected: tuple[PathRule, ...] = ()) -> bool:
    """`protected` are paths that a rule which looks at its arguments does not take, as far as they are named."""
    prefix = rule.argv_prefix
    if prefix == ANY_PROGRAM:
        return True
    # An empty argv is a command that nobody could read: only the right to any program covers it.
    if not argv or argv[: len(prefix)] != prefix:
        return False
    rest = argv[len(prefix) :]
    if rule.options_only and not all(argument.startswith("-") for argument in rest):
        return False
    if rule.inside_only and any(leaves_folder(argument) or _names(argument, protected) for argument in rest):
        return False
    if rule.refuse:
        pattern = _any_of(rule.refuse)
        return not any(pattern.fullmatch(argument) for argument in rest)
    return True


def _names(argument: str, protected: tuple[PathRule, ...]) -> bool:
    path = argument.partition("=")[2] if argument.startswith("-") else argument
    path = path.removeprefix("./").rstrip("/")
    return path != "" and any(path_protected(rule, path, tree=False, changes=False) for rule in protected)


def leaves_folder(argument: str) -> bool:
    """Whether an argument names something outside, as far as its text shows: `/etc`, `--file=/etc`, `../x`, `~/x`."""
    return _LEAVES.search(argument) is not None


@lru_cache(512)
def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    def one(pattern: str) -> str:
        # Arguments are no paths: here a star crosses slashes.
        return compile_glob(pattern.replace("/", "\ue000")).pattern.replace("[^/]", ".").replace("\ue000", "/")

    return re.compile("|".join(f"(?:{one(pattern)})" for pattern in patterns), re.DOTALL)


def host_covered(rule: NetworkRule, host: str, port: int) -> bool:
    if rule.port != port:
        return False
    if rule.host.startswith("*."):
        return host.endswith(rule.host[1:]) and len(host) > len(rule.host) - 1 and not host[-1].isdigit()
    return rule.host == host


def split_host(target: str) -> tuple[str, int] | None:
    """`host:port` in the one way it is written: lower case, no dot at the end, `[…]` around an IPv6 address."""
    host, colon, port = target.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        return None
    if host != host.lower() or host.endswith(".") or not _HOST.fullmatch(host):
        return None
    return host, int(port)


_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\]")
