"""Scopes: the strings of `grants` (and of the catalogue) as globs, argv prefixes, hosts and names, checked strictly."""

from __future__ import annotations

import ipaddress
import re
import shlex

from toka_runtime.policy.matching import split_host

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
DEFAULT_PORT = 443


class Unusable(ValueError):
    """A scope that cannot grant anything; the text says why."""


def check_path(scope: str) -> str:
    """A glob in the agent's folder, normalised. `docs` and `docs/` mean the folder with everything in it."""
    if not scope or _CONTROL.search(scope):
        raise Unusable(f"{scope!r} is no path")
    if scope.startswith(("/", "~")):
        raise Unusable(f"{scope!r} lies outside the agent's folder")
    parts = [part for part in scope.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Unusable(f"{scope!r} leads out of the agent's folder")
    if not parts:
        return "**"
    glob = "/".join(parts)
    return f"{glob}/**" if scope.endswith("/") else glob


def widen_folder(glob: str) -> str:
    """A scope without any wildcard may name a folder: it then covers what is in it (`docs` → `docs/**`)."""
    return glob if any(char in glob for char in "*?[") else f"{glob}/**"


def check_argv(scope: str) -> tuple[str, ...]:
    """An argv prefix, literally."""
    try:
        argv = tuple(shlex.split(scope))
    except ValueError as error:
        raise Unusable(f"{scope!r} is no command: {error}") from error
    if not argv or _CONTROL.search(scope):
        raise Unusable(f"{scope!r} is no command")
    if any(char in argv[0] for char in "*?[$`{~|;&<>()"):
        raise Unusable(f"{scope!r} has to begin with a program's plain name")
    return argv


def check_host(scope: str, broad_suffixes: frozenset[str]) -> tuple[str, int]:
    """`host`, `host:port` or `*.host:port` as (host, port); a host alone means port 443."""
    text = scope.strip().lower()
    if "://" in text or "/" in text:
        raise Unusable(f"{scope!r}: write host:port, not an address with a path")
    host, colon, _ = text.rpartition(":")
    if not colon or text.endswith("]"):
        text = f"{text}:{DEFAULT_PORT}"
    host = text.rpartition(":")[0]
    wildcard = host.startswith("*.")
    place = split_host(text.removeprefix("*."))
    if place is None or "*" in host.removeprefix("*."):
        raise Unusable(f"{scope!r} is no host:port")
    if wildcard:
        suffix = place[0]
        if "." not in suffix or suffix in broad_suffixes:
            raise Unusable(f"{scope!r} is too broad: it covers hosts of unrelated owners")
        if _is_address(suffix):
            raise Unusable(f"{scope!r}: an address has no names below it")
    return host, place[1]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
