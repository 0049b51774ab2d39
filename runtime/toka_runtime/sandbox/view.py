"""From rights to a view: which parts of the host an agent's tree sees, and which of them each tool call may use.

Runtime side, before anything is started. Least privilege: nothing is there but the system's programs and libraries, the
toolchains of programs that the agent may run, its own folder and its scratch. Homes, secrets, sockets and other agents
have no name in there.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import toka_runtime
from toka_runtime.errors import SandboxUnavailable
from toka_runtime.limits import defaults
from toka_runtime.policy.matching import is_folder
from toka_runtime.protocol.capability import PathRule, Rights
from toka_runtime.protocol.model import Model
from toka_runtime.sandbox.plan import SandboxPlan
from toka_runtime.sandbox.protected_places import protected_places
from toka_runtime.sandbox.toolchains import SYSTEM, own_python, toolchains

SYSTEM_SETTINGS = (
    "/etc/ca-certificates",
    "/etc/debian_version",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/os-release",
    "/etc/pki/tls/certs",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
)
"""Settings that hold no secret and that common programs ask for."""


class Mount(Model):
    """One piece of the host in the view, at its own path."""

    path: str
    writable: bool = False


class AgentView(Model):
    mounts: tuple[Mount, ...]
    links: tuple[tuple[str, str], ...]
    """(where, to what)."""
    files: tuple[tuple[str, str], ...]
    """(path, text): made up for the agent."""


def agent_view(
    rights: Rights, root: str, scratch: Iterable[str] = (), extra: Iterable[str] = (), search_path: str = os.defpath
) -> AgentView:
    """`root` is the agent's folder, `scratch` further folders that it may write, `extra` what it may read besides.
    Programs are looked up in `search_path`."""
    readable = [path for path in (*SYSTEM, *SYSTEM_SETTINGS) if Path(path).exists() and not Path(path).is_symlink()]
    links = [(path, str(Path(path).readlink())) for path in SYSTEM if Path(path).is_symlink()]
    readable += [*_interpreter(), *toolchains(rights, search_path), *extra]
    if rights.execute and (python := own_python()) is not None:
        readable.append(python)
    mounts = {path: Mount(path=path) for path in _outermost(readable)}
    mounts |= {path: Mount(path=path, writable=True) for path in scratch}
    mounts[root] = Mount(path=root, writable=bool(rights.write))
    # Parents first: a mount point below another lies on top of it.
    ordered = sorted(mounts.values(), key=lambda mount: mount.path.count("/"))
    return AgentView(mounts=tuple(ordered), links=tuple(links), files=_made_up())


def _made_up() -> tuple[tuple[str, str], ...]:
    return (
        ("/etc/passwd", "root:x:0:0::/:/bin/false\nagent:x:61184:61184:agent:/tmp:/bin/sh\n"),
        ("/etc/group", "root:x:0:\nagent:x:61184:\n"),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
        ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
        ("/etc/resolv.conf", "# names are resolved by the proxy\n"),
        ("/etc/hostname", "agent\n"),
    )


def _interpreter() -> list[str]:
    """The standard library and this package: the worker and the tools may import a module late."""
    return [str(Path(os.__file__).resolve().parent), str(Path(toka_runtime.__file__).resolve().parent)]


def _is_below(path: str, folder: str) -> bool:
    """Or the folder itself. Of absolute paths in plain form; by hand, for pathlib took half of a launch here."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _outermost(paths: Iterable[str]) -> list[str]:
    """Without those that lie below another."""
    kept: list[str] = []
    for path in sorted(set(paths), key=lambda path: (path.count("/"), path)):
        if not any(_is_below(path, other) for other in kept):
            kept.append(path)
    return kept


def write_folders(rights: Rights, root: str) -> tuple[str, ...]:
    """Folders below `root` that the kernel lets a call write, for rights with scopes: a glob's part before its first
    wildcard. The broker holds the exact glob; the kernel holds the folder."""
    return tuple(_outermost(_fixed_part(rule, root) for rule in rights.write))


def read_folders(rights: Rights, root: str) -> tuple[str, ...]:
    return tuple(_outermost(_fixed_part(rule, root) for rule in (*rights.read, *rights.write)))


def folder_walls(rights: Rights, root: str, kept: Collection[str] = ()) -> dict[str, Any]:
    """What the mounts of its own folder are made from (`folder_walls.build_walls`); `kept` are places with mounts of
    their own already. Blocking."""
    tools_only = {rule.glob for rule in rights.programs_read}
    hidden = protected_places(root, [rule for rule in rights.deny_read if rule.glob not in tools_only])
    writable = [folder[len(root) :].strip("/") for folder in write_folders(rights, root)]
    fixed = protected_places(root, rights.deny_write) if writable else []
    return {
        "root": root,
        "writable": writable,
        "read_only": [place for place in fixed if f"{root}/{place}" not in kept and place not in hidden],
        "hidden": hidden,
    }


def _fixed_part(rule: PathRule, root: str) -> str:
    parts: list[str] = []
    names = rule.glob.split("/")
    for name in names:
        if any(mark in name for mark in "*?["):
            break
        parts.append(name)
    if len(parts) == len(names):
        # A file by name: it is written by way of its folder.
        parts.pop()
    return os.path.normpath("/".join([root, *parts]))


# -- for the launcher -------------------------------------------------------------------------------------------------

FIRST_USER, LAST_USER = 61184, 65519
"""The range that systemd too gives to users that exist only while something runs."""
PROCESSES_MORE = 16
"""By so many RLIMIT_NPROC is higher than a control group's `pids.max`, which counts what it refuses."""
_WRITERS = frozenset({"write_file", "edit_file"})


def agent_user(plan: SandboxPlan, taken: Collection[int]) -> int | None:
    """A user id of its own for the agent when the runtime is root: root's processes escape too much, even without
    capabilities. None for an ordinary user, who cannot give one. Raises SandboxUnavailable."""
    if os.getuid() != 0:
        return None
    if not plan.own_folder:
        return operators_user(plan.root)
    start = zlib.crc32(plan.agent.encode()) % (LAST_USER - FIRST_USER)
    span = range(FIRST_USER, LAST_USER + 1)
    return next(user for user in (*span[start:], *span[:start]) if user not in taken)


def operators_user(folder: str) -> int | None:
    """Who an agent is that works in the operator's own folder: its owner. None when the runtime is an ordinary user's:
    so is the agent. Raises SandboxUnavailable where it would be root."""
    if os.getuid() != 0:
        return None
    owner = Path(folder).stat().st_uid
    if owner == 0:
        raise SandboxUnavailable(
            f"agents would work as root in {folder}, which belongs to root",
            hint="run the runtime as an ordinary user, or without --in-place",
        )
    return owner


def give_to(user: int, folders: Iterable[str]) -> None:
    """Make these folders, and all in them, the agent's. Links are changed themselves, never followed. A file
    that has a second name may be the operator's own by that one: it stays whose it is. Blocking."""
    for folder in folders:
        os.chown(folder, user, user, follow_symlinks=False)
        for top, names, files, descriptor in os.fwalk(folder, follow_symlinks=False):
            del top
            for name in (*names, *files):
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                shared = found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode)
                if not shared or FIRST_USER <= found.st_uid <= LAST_USER:
                    os.chown(name, user, user, dir_fd=descriptor, follow_symlinks=False)


def confinement_of(plan: SandboxPlan, user: int | None, *, processes_counted: bool = False) -> dict[str, Any]:
    """What `confine.py` builds the walls from. `processes_counted`: a control group holds their number, too."""
    most = plan.ceiling or plan.rights
    view = agent_view(most, plan.root, plan.scratch, plan.readable, plan.environment.get("PATH", os.defpath))
    return {
        "user": os.getuid() != 0,
        "uid": user,
        "gid": user,
        "mounts": [[mount.path, mount.writable] for mount in view.mounts],
        "links": [list(link) for link in view.links],
        "files": [list(file) for file in view.files],
        "walls": folder_walls(most, plan.root, {mount.path for mount in view.mounts}),
        "interpreter": _interpreter(),
        "data_bytes": _data_bytes(plan.limits.memory_bytes),
        "processes": (plan.limits.processes or defaults.PROCESSES) + PROCESSES_MORE * processes_counted,
        "file_bytes": plan.limits.disk_bytes or defaults.FILE_BYTES,
    }


def _data_bytes(memory: int | None) -> int | None:
    """A single process that asks for too much is refused and may go on; only processes that together pass the limit
    cost the agent its run. So one alone gets less than all: what is left is for its worker and its shell."""
    return None if memory is None else memory - min(memory // 4, 64 << 20)


def tool_access(tool: str, plan: SandboxPlan, proxy_port: int | None) -> dict[str, Any]:
    """The kernel's rules for one call, from the same rights that policy decides by: `confine.restrict_tool`. A file
    tool opens just the path that was decided on, so it has the folder; a program opens what it likes, so of rules for
    files it has those files that are there."""
    runs = tool == "run_command"
    writes = runs or tool in _WRITERS
    connects = bool(plan.rights.network) and (runs or tool == "fetch_url")
    whole = _whole(plan.rights) if runs else plan.rights
    return {
        "read": list(read_folders(whole, plan.root)),
        "write": [*(write_folders(whole, plan.root) if writes else ()), *(plan.scratch if runs else ())],
        "scattered": _scattered(plan.rights, plan.root) if runs else None,
        "execute": runs,
        "port": proxy_port if connects else None,
    }


def _whole(rights: Rights) -> Rights:
    def whole(rules: tuple[PathRule, ...]) -> tuple[PathRule, ...]:
        return tuple(rule for rule in rules if is_folder(rule))

    return Rights(read=whole(rights.read), write=whole(rights.write))


def _scattered(rights: Rights, root: str) -> dict[str, Any] | None:
    """None where there is no such rule, which costs a call nothing."""

    def single(rules: tuple[PathRule, ...]) -> list[list[str]]:
        return [[rule.glob, rule.within] for rule in rules if not is_folder(rule)]

    read, write = single(rights.read), single(rights.write)
    if not (read or write):
        return None
    denied = [rule.glob for rule in rights.deny_write]
    return {"root": root, "read": read, "write": write, "denied": denied}
