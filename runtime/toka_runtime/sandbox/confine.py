"""Between fork and work: turns a confinement (plain JSON from the runtime) into walls around a process. Standard
library only. Whatever cannot be built raises: a process that should be confined and is not never runs.

A confinement: {"user": bool, "uid": int | null, "gid": int | null, "mounts": [[path, writable]], "links": [[where,
to]], "files": [[path, text]], "walls": as `folder_walls` says, "data_bytes": int | null, "processes": int,
"file_bytes": int}.
"""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NoReturn

from toka_runtime.sandbox import groups, landlock, namespaces, seccomp
from toka_runtime.sandbox.folder_walls import build_walls
from toka_runtime.sandbox.landlock import EXECUTE, READ, READ_FILE, WRITE, WRITE_FILE, PathAccess
from toka_runtime.sandbox.namespaces import Bind, PrimitiveMissing, View
from toka_runtime.sandbox.observer_rules import Judge, PathRules
from toka_runtime.sandbox.scattered import Scattered, accesses

Confinement = dict[str, Any]
SCRATCH = ("/tmp", "/dev/shm")  # noqa: S108  # of the agent's own view

PROTECTIONS = [
    "own PID, mount, network, IPC and host name namespaces",
    "root file system of its own: only system programs, its folder and its scratch exist",
    "no network but its own loopback, where the runtime's proxy listens",
    "no capabilities, for good",
    "system call filter",
    "path rules for the worker and for each tool call (Landlock)",
]


def fork_first(
    confinement: Confinement,
    prepare: Callable[[], None],
    body: Callable[[int], NoReturn],
    control_groups: Iterable[str] = (),
) -> int:
    """Fork process 1 of a new set of namespaces, in these control groups, in its own view and without privileges; it
    runs `prepare` (the last walls; it may raise OSError) and then `body`, with a listening socket on its own loopback.
    Returns its pid as seen from here, once all walls stand. Raises OSError (PrimitiveMissing) when one could not be
    built; nothing is left then, if this process adopts orphans."""
    with suppress(OSError):
        # Once, for all that are forked from here; a machine without a table is told by the child.
        seccomp.encoded(os.uname().machine)
    owner = namespaces.Owner.of_this_process() if confinement["user"] else None
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as reading:
        try:
            pid = namespaces.fork_apart(user=owner is not None)
            if pid == 0:
                os.close(read_end)
                _first(confinement, owner, write_end, prepare, body, control_groups)
        finally:
            os.close(write_end)
        said = reading.read()
    heard: Confinement = json.loads(said or "{}")
    if heard.get("ready"):
        return pid
    # It has said all that it had to say.
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    ended = "process 1 of the namespaces ended before it was ready"
    raise PrimitiveMissing(int(heard.get("errno", 0)), str(heard.get("error", ended)))


def _first(
    confinement: Confinement,
    owner: namespaces.Owner | None,
    report: int,
    prepare: Callable[[], None],
    body: Callable[[int], NoReturn],
    control_groups: Iterable[str],
) -> NoReturn:
    """Process 1 of the new PID namespace."""
    try:
        groups.enter(control_groups)
        namespaces.isolate_forked(owner)
        namespaces.empty_root()
        listener = enclose(confinement, prepare)
    except BaseException as error:  # noqa: BLE001  # a forked child never returns into its parent's code
        say(report, failed(error))
        os._exit(1)
    say(report, {"ready": True})
    os.close(report)
    body(listener)


def enclose(confinement: Confinement, prepare: Callable[[], None]) -> int:
    """All that makes an empty machine (`namespaces.empty_root`), in its control groups, this agent's. Returns the
    listening socket."""
    namespaces.isolate_groups()
    namespaces.fill_root(view_of(confinement))
    build_walls(confinement["walls"], confinement.get("uid"))
    listener = namespaces.open_listener()
    limit(confinement)
    namespaces.drop_privileges(confinement.get("uid"), confinement.get("gid"))
    prepare()
    return listener


def failed(error: BaseException) -> dict[str, Any]:
    """What is reported of a wall that could not be built."""
    number = (error.errno or 0) if isinstance(error, OSError) else 0
    name = error.primitive if isinstance(error, PrimitiveMissing) else f"{type(error).__name__}: {error}"
    return {"error": name, "errno": number}


def say(report: int, message: dict[str, Any]) -> None:
    os.write(report, json.dumps(message).encode() + b"\n")


def view_of(confinement: Confinement) -> View:
    return View(
        binds=[Bind(str(path), str(path), bool(writable)) for path, writable in confinement["mounts"]],
        links=[(str(where), str(target)) for where, target in confinement["links"]],
        files=[(str(path), str(text)) for path, text in confinement["files"]],
    )


def limit(confinement: Confinement) -> None:
    """Per process, and for processes per user. What they can't hold (a tree's memory) is watched by the runtime."""
    for which, name in (
        (resource.RLIMIT_DATA, "data_bytes"),
        (resource.RLIMIT_NPROC, "processes"),
        (resource.RLIMIT_FSIZE, "file_bytes"),
    ):
        value = confinement.get(name)
        if value is None:
            continue
        _, most = resource.getrlimit(which)
        if most != resource.RLIM_INFINITY:
            # Nobody gets more than the runtime has.
            value = min(int(value), most)
        try:
            resource.setrlimit(which, (int(value), int(value)))
        except OSError as error:
            raise PrimitiveMissing(error.errno or 0, f"setrlimit {name}") from error


def filter_calls() -> None:
    """No system call from here on that leads around the walls; for this process and all that it starts."""
    seccomp.install()


def restrict_worker(confinement: Confinement) -> None:
    """The worker thinks; it has no business with files beyond the modules of its own interpreter."""
    landlock.restrict([PathAccess(str(path), READ) for path in confinement["interpreter"]])


def restrict_tool(confinement: Confinement, access: dict[str, Any]) -> None:
    """The rights of one call: {"read": [folders], "write": [folders], "scattered": {"root": path, "read": rules,
    "write": rules, "denied": [globs]} | null, "execute": bool, "port": int | null}; a rule is [glob, within]."""
    for folder in access["write"]:
        # A right to a folder that is not there yet is a right to make it. As the agent's user and in its view: a link
        # that it has planted leads nowhere else.
        with suppress(OSError):
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103  # no pathlib between fork and exec
    landlock.restrict(_tool_rules(confinement, access), connect_port=access.get("port"))


def judge_of(confinement: Confinement, access: dict[str, Any]) -> Judge:
    """What `restrict_tool` with the same arguments refuses, for the observer. Call it after that."""
    version = landlock.abi()
    made = [str(path) for path, _ in (*confinement["files"], *confinement["links"])]
    return Judge(
        PathRules(_tool_rules(confinement, access), landlock.handled_rights(version)),
        visible=[*(str(path) for path, _ in confinement["mounts"]), *made, *SCRATCH],
        fixed=[*(str(path) for path, writable in confinement["mounts"] if not writable), *made],
        tcp=version >= landlock.TCP_SINCE,
        port=access.get("port"),
    )


def _tool_rules(confinement: Confinement, access: dict[str, Any]) -> Iterable[PathAccess]:
    """To be used one at a time."""
    runs = bool(access["execute"])
    rules = [PathAccess(str(path), READ) for path in confinement["interpreter"]]
    rules += _folders(access["read"], READ | (EXECUTE if runs else 0))
    rules += _folders(access["write"], READ | WRITE | (EXECUTE if runs else 0))
    rules += [PathAccess(f"/dev/{name}", READ_FILE | WRITE_FILE) for name in namespaces.DEVICES]
    if runs or access.get("port") is not None:
        # Programs and libraries; TLS loads its own, and its certificates, when it is first used.
        system = READ | (EXECUTE if runs else 0)
        rules += [PathAccess(str(path), system) for path, writable in confinement["mounts"] if not writable]
        rules.append(PathAccess("/etc", READ))
    if runs:
        rules.append(PathAccess("/proc", READ))
        # A rule covers what is mounted below, too: with a writable folder below /tmp there is only $TMPDIR.
        given = [str(path) for path, writable in confinement["mounts"] if writable]
        free = [top for top in SCRATCH if not any(path.startswith(f"{top}/") for path in given)]
        rules += _folders(free, READ | WRITE)
    yield from rules
    if scattered := access.get("scattered"):
        patterns = [Scattered(glob, within, READ | WRITE | EXECUTE) for glob, within in scattered["write"]]
        patterns += [Scattered(glob, within, READ | EXECUTE) for glob, within in scattered["read"]]
        yield from accesses(scattered["root"], patterns, scattered["denied"])


def _folders(paths: Iterable[Any], rights: int) -> list[PathAccess]:
    return [PathAccess(str(path), rights) for path in paths]
