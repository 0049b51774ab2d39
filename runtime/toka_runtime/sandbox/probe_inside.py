"""Inside of what a probe has confined: attacks on every wall, from process 1 and a child of it. Standard library only:
it also runs in the interpreter that bwrap starts."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from toka_runtime.sandbox import landlock
from toka_runtime.sandbox.bwrap_first import Walls
from toka_runtime.sandbox.confine import Confinement, filter_calls, restrict_tool
from toka_runtime.sandbox.probe_seen import Seen
from toka_runtime.sandbox.shim import harden
from toka_runtime.sandbox.syscalls import FORBIDDEN_NAMES

WHOLE = "confinement"
BY_BWRAP = "confinement.bwrap"
"""Only where bwrap had to make the namespaces; says why."""
DATA_BYTES, _TOO_MUCH = 512 << 20, 1 << 30
_PROCESSES = 16

_libc: Any = ctypes.CDLL(None, use_errno=True)


def in_bwrap(confinement: Confinement, settings: dict[str, Any]) -> Walls:
    """See `bwrap.Inside.first`."""
    inside = Inside(confinement, settings, (3, 4, 5))
    return inside.last_walls, inside.process_one


class Inside:
    def __init__(
        self,
        confinement: Confinement,
        settings: dict[str, Any],
        descriptors: Sequence[int],
        others: Sequence[int] = (),
    ) -> None:
        """`settings`: {"root": the agent's folder, "secret": a file beside it, "host_port": int}. `descriptors`: where
        facts go, what lives as long as a descendant, and what the probe holds as long as process 1 is to live. `others`
        are the probe's own ends, to be closed here."""
        self._confinement = confinement
        self._root, self._secret = str(settings["root"]), str(settings["secret"])
        self._host_port = int(settings["host_port"])
        self._facts_end, self._alive_end, self._held = descriptors
        self._others = others
        self._capability = Seen(False, "not tried")

    def last_walls(self) -> None:
        # Before the filter, which would refuse the same.
        self._capability = _refusal(lambda: socket.sethostname("probe"), "none: an act that needs one is refused")
        harden()
        filter_calls()

    def process_one(self, listener: int) -> NoReturn:
        try:
            for descriptor in self._others:
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
            if made_by := self._confinement.get("made_by"):
                facts[BY_BWRAP] = Seen(True, f"made by {made_by}")
            self._say({WHOLE: Seen(True, "built as for an agent"), **facts})
        except OSError as error:
            self._say({WHOLE: Seen(False, f"tried from the inside: {error.strerror or error}", error.errno or 0)})
        finally:
            os._exit(0)

    def _say(self, facts: dict[str, Seen]) -> None:
        os.write(self._facts_end, json.dumps(facts).encode())

    def _view(self) -> Seen:
        for path in (self._secret, "/etc/shadow", "/run"):
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
