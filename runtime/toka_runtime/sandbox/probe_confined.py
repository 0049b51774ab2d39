"""The whole confinement, built as for an agent by the same code, and then attacked from the inside."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from toka_runtime.protocol.capability import PathRule, Rights
from toka_runtime.protocol.ids import AgentName, RunId
from toka_runtime.protocol.usage import ResourceLimits
from toka_runtime.sandbox import landlock
from toka_runtime.sandbox.confine import Confinement, filter_calls, fork_first, restrict_tool
from toka_runtime.sandbox.plan import SandboxPlan
from toka_runtime.sandbox.probe_children import Seen, read_all, refused
from toka_runtime.sandbox.probe_primitives import unused_user
from toka_runtime.sandbox.shim import harden
from toka_runtime.sandbox.syscalls import FORBIDDEN_NAMES
from toka_runtime.sandbox.view import confinement_of, give_to

WHOLE = "confinement"
KILLED = "confined.kill"
_DATA_BYTES, _TOO_MUCH = 512 << 20, 1 << 30
_PROCESSES = 16
_ANSWER_S, _END_S = 4.0, 2.0

_libc: Any = ctypes.CDLL(None, use_errno=True)


def try_confinement(folder: str) -> dict[str, Seen]:
    """Run in a throw-away process that adopts orphans. `folder` is an empty one that may be given away. The result has
    only `confinement` when that could not be built."""
    root = Path(folder, "agent")
    (root / "given").mkdir(parents=True)
    (root / "kept").mkdir()
    (root / "kept/secret").write_text("canary")
    secret = Path(folder, "secret")
    secret.write_text("canary")
    user = unused_user() if os.getuid() == 0 else None
    if user is not None:
        give_to(user, [str(root)])
    rule = PathRule(id="probe", capability="probe", glob="**")
    plan = SandboxPlan(
        agent=AgentName("probe"),
        run=RunId("probe"),
        root=str(root),
        rights=Rights(read=(rule,), write=(rule,)),
        limits=ResourceLimits(memory_bytes=_DATA_BYTES),
    )
    with socket.create_server(("127.0.0.1", 0)) as host:
        return _Attempt(confinement_of(plan, user), root, secret, host.getsockname()[1]).run()


class _Attempt:
    def __init__(self, confinement: Confinement, root: Path, secret: Path, host_port: int) -> None:
        self._confinement = confinement
        self._root, self._secret, self._host_port = root, secret, host_port
        self._facts, self._facts_end = os.pipe()
        self._alive, self._alive_end = os.pipe()
        # Process 1 ends when this is closed: with whatever holds the other end.
        self._held, self._hold = os.pipe()
        self._capability = Seen(False, "not tried")

    def run(self) -> dict[str, Seen]:
        try:
            first = fork_first(self._confinement, self._last_walls, self._process_one)
        except OSError as error:
            return {WHOLE: refused(error)}
        os.close(self._facts_end)
        os.close(self._alive_end)
        text = read_all(self._facts, _ANSWER_S)
        if not text:
            os.kill(first, signal.SIGKILL)
            return {WHOLE: Seen(False, "built, but nothing answered from the inside")}
        seen = {name: Seen(*value) for name, value in json.loads(text).items()}
        if seen[WHOLE].ok:
            seen[KILLED] = self._kill(first)
        os.close(self._hold)
        return seen

    def _kill(self, first: int) -> Seen:
        began = time.perf_counter()
        os.kill(first, signal.SIGKILL)
        ended = read_all(self._alive, _END_S) is not None
        took = (time.perf_counter() - began) * 1000
        detail = f"a grandchild that left the session and ignores SIGTERM was gone after {took:.1f} ms"
        return Seen(ended, detail if ended else f"a grandchild was still there after {_END_S:g} s")

    # -- inside ---------------------------------------------------------------------------------------------------

    def _last_walls(self) -> None:
        # Before the filter, which would refuse the same.
        self._capability = _refusal(lambda: socket.sethostname("probe"), "none: an act that needs one is refused")
        harden()
        filter_calls()

    def _process_one(self, listener: int) -> NoReturn:
        try:
            for descriptor in (self._facts, self._alive, self._hold):
                os.close(descriptor)
            try:
                if os.fork() == 0:
                    self._survivor()
                if os.fork() == 0:
                    self._inside(listener, {"confined.capabilities": self._capability})
            except OSError as error:
                self._say({WHOLE: Seen(False, f"fork: {error.strerror}", error.errno or 0)})
            os.close(self._facts_end)
            os.close(self._alive_end)
            os.read(self._held, 1)
        finally:
            os._exit(0)

    def _survivor(self) -> NoReturn:
        """Holds `alive` open as long as anything of it lives."""
        try:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.close(self._facts_end)
            if os.fork() == 0:
                os.setsid()
                while True:
                    signal.pause()
        finally:
            os._exit(0)

    def _inside(self, listener: int, facts: dict[str, Seen]) -> NoReturn:
        try:
            os.close(self._alive_end)
            facts["confined.view"] = self._view()
            facts["confined.network"] = self._network()
            facts["confined.seccomp"] = _filtered()
            own = socket.socket(fileno=listener).getsockname()[1]
            facts |= self._path_rules(own)
            facts["confined.memory"] = _memory()
            facts["confined.processes"] = _processes()
            self._say({WHOLE: Seen(True, "built as for an agent"), **facts})
        except OSError as error:
            self._say({WHOLE: Seen(False, f"tried from the inside: {error.strerror or error}", error.errno or 0)})
        finally:
            os._exit(0)

    def _say(self, facts: dict[str, Seen]) -> None:
        os.write(self._facts_end, json.dumps(facts).encode())

    def _view(self) -> Seen:
        for path in (str(self._secret), "/etc/shadow", "/run"):
            if os.path.lexists(path):
                return Seen(False, f"{path} of the host is there")
        try:
            os.close(os.open("/usr/probe", os.O_CREAT | os.O_WRONLY))
        except OSError as error:
            number = error.errno or 0
            told = number in (errno.EROFS, errno.EACCES)
            return Seen(told, "the host's other files do not exist; system folders are read-only")
        return Seen(False, "a system folder could be written")

    def _network(self) -> Seen:
        # if_nameindex takes a unix socket, which the filter refuses.
        lines = Path("/proc/net/dev").read_text().splitlines()[2:]
        interfaces = [line.partition(":")[0].strip() for line in lines]
        if interfaces != ["lo"]:
            return Seen(False, f"interfaces: {interfaces}")
        with socket.socket() as sock:
            sock.settimeout(1.0)
            number = sock.connect_ex(("127.0.0.1", self._host_port))
        if number == 0:
            return Seen(False, "a port of the host's loopback could be reached")
        return Seen(True, "own loopback alone; the host's is out of reach")

    def _path_rules(self, own_port: int) -> dict[str, Seen]:
        given, kept = f"{self._root}/given", f"{self._root}/kept/secret"
        with socket.socket() as sock:
            sock.settimeout(1.0)
            reachable = sock.connect_ex(("127.0.0.1", own_port)) == 0
        restrict_tool(self._confinement, {"read": [], "write": [given], "execute": False, "port": None})
        os.close(os.open(f"{given}/new", os.O_CREAT | os.O_WRONLY, 0o600))
        seen = {"confined.paths": _refusal(lambda: os.open(kept, os.O_RDONLY), "a file without a rule is refused")}
        if landlock.abi() >= 4:
            with socket.socket() as sock:
                sock.settimeout(1.0)
                number = sock.connect_ex(("127.0.0.1", own_port))
            held = reachable and number == errno.EACCES
            detail = "a connection without a rule is refused" if held else f"connect: {os.strerror(number)}"
            seen["confined.tcp"] = Seen(held, detail)
        return seen


def _refusal(act: Callable[[], object], detail: str) -> Seen:
    try:
        act()
    except PermissionError:
        return Seen(True, detail)
    return Seen(False, "went through")


def _filtered() -> Seen:
    number = FORBIDDEN_NAMES[os.uname().machine]["personality"]
    through = _libc.syscall(number, ctypes.c_ulong(0xFFFFFFFF)) >= 0
    if through:
        return Seen(False, "a call on its list went through")
    try:
        socket.socket(socket.AF_UNIX).close()
    except OSError as error:
        return Seen(error.errno == errno.EAFNOSUPPORT, "calls on its list and unix sockets are refused")
    return Seen(False, "a unix socket could be made")


def _memory() -> Seen:
    try:
        mmap.mmap(-1, _TOO_MUCH, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError as error:
        return Seen(error.errno == errno.ENOMEM, "RLIMIT_DATA: more than the limit is refused, for each process")
    return Seen(False, "RLIMIT_DATA had no effect")


def _processes() -> Seen:
    """Last: this process can start nothing after it."""
    resource.setrlimit(resource.RLIMIT_NPROC, (_PROCESSES, _PROCESSES))
    for started in range(_PROCESSES + 1):
        try:
            if os.fork() == 0:
                # It counts until it is reaped.
                os._exit(0)
        except BlockingIOError:
            return Seen(True, f"RLIMIT_NPROC: of {_PROCESSES} allowed, fork was refused after {started} more")
    return Seen(False, f"RLIMIT_NPROC had no effect: {_PROCESSES + 1} processes were started, {_PROCESSES} are allowed")
