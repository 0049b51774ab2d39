"""Single kernel primitives, each tried alone: they tell which one is missing when confinement as a whole fails."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

from toka_runtime.sandbox import bwrap, kernel, landlock, namespaces, seccomp
from toka_runtime.sandbox.landlock import READ, LandlockError, PathAccess
from toka_runtime.sandbox.namespaces import View
from toka_runtime.sandbox.observer_probe import OBSERVER, try_observer
from toka_runtime.sandbox.probe_children import Seen, attempt, attempts
from toka_runtime.sandbox.probe_model import Check
from toka_runtime.sandbox.syscalls import FORBIDDEN_NAMES

_libc: Any = ctypes.CDLL(None, use_errno=True)

NAMESPACES = {
    "pid": namespaces.CLONE_NEWPID,
    "mount": namespaces.CLONE_NEWNS,
    "network": namespaces.CLONE_NEWNET,
    "ipc": namespaces.CLONE_NEWIPC,
    "uts": namespaces.CLONE_NEWUTS,
    "cgroup": namespaces.CLONE_NEWCGROUP,
}
_ANY_PERSONA = 0xFFFFFFFF


def primitives() -> list[Check]:
    """Every one of them, whatever fails before. Forks; a few milliseconds each."""
    checks = [attempt("namespace.user", _user_namespace)]
    checks += [attempt(f"namespace.{name}", partial(_namespace, flag)) for name, flag in NAMESPACES.items()]
    checks.append(attempt("root_view", _root_view))
    checks.append(attempt("no_new_privs", _no_new_privs))
    checks.append(attempt("capabilities", _capabilities))
    checks += attempts("landlock", _landlock)
    checks.append(attempt("seccomp", _seccomp))
    checks.append(attempt(OBSERVER, try_observer))
    checks.append(bubblewrap())
    return checks


def _user_namespace() -> Seen:
    # Root needs none. As the agent's user it may be refused what root is not.
    if os.getuid() == 0:
        user = unused_user()
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    namespaces.isolate(user=True)
    return Seen(True, "an ordinary user may create one, and others in it")


def unused_user() -> int:
    """A user that owns nothing on this host."""
    return 65519


def _namespace(flag: int) -> Seen:
    if os.getuid() != 0:
        result = _libc.unshare(ctypes.c_int(namespaces.CLONE_NEWUSER | flag))
    else:
        result = _libc.unshare(ctypes.c_int(flag))
    if result != 0:
        number = ctypes.get_errno()
        return Seen(False, os.strerror(number), number)
    return Seen(True, "created")


def _root_view() -> Seen:
    """tmpfs, proc and bind mounts, mount_setattr, pivot_root, and the host's files out of sight after it."""
    namespaces.isolate(user=os.getuid() != 0)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            namespaces.build_root(View(()))
            left = sorted(os.listdir("/"))  # noqa: PTH208  # no pathlib in a view without the library
            text = "" if left == ["dev", "proc", "tmp"] else f"it holds {left}"
            os.write(writing, f"0 {text}".encode())
        except OSError as error:
            os.write(writing, f"{error.errno or 0} {error.strerror}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    number, _, problem = os.read(reading, 4096).decode().partition(" ")
    os.waitpid(pid, 0)
    return Seen(not problem, problem or "own root; mounts of tmpfs, proc and devices; read-only", int(number or 0))


def _no_new_privs() -> Seen:
    kernel.no_new_privileges()
    kept = _libc.prctl(39, 0, 0, 0, 0) == 1
    return Seen(kept, "set for good" if kept else "the kernel took it and did not keep it")


def _capabilities() -> Seen:
    """After dropping, an act that needs one must be refused."""
    root = os.getuid() == 0
    if root:
        _libc.unshare(ctypes.c_int(namespaces.CLONE_NEWUTS))
    else:
        namespaces.isolate(user=True)
    user = unused_user() if root else None
    namespaces.drop_privileges(user, user)
    try:
        socket.sethostname("probe")
    except PermissionError:
        return Seen(True, "none left, none can come back")
    return Seen(False, "dropped, but an act that needs one went through")


def _landlock() -> dict[str, Seen]:
    version = landlock.abi()
    if version == 0:
        number = errno.EOPNOTSUPP if Path("/sys/kernel/security/landlock").exists() else errno.ENOSYS
        off = Seen(False, "the kernel has none, or it is not in the lsm= list of the boot", number)
        return {"landlock": off}
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    try:
        kernel.no_new_privileges()
        landlock.restrict([PathAccess("/usr", READ)])
    except LandlockError as error:
        return {"landlock": Seen(False, error.strerror or error.step, error.errno or 0)}
    os.listdir("/usr")  # noqa: PTH208
    seen = {"landlock": _is_refused(lambda: os.listdir("/etc"), f"ABI {version}; a folder without a rule is refused")}  # noqa: PTH208
    if version < 4:
        seen["landlock.tcp"] = Seen(False, f"ABI {version} has no rules for TCP; the network namespace holds alone")
    else:
        with socket.socket() as sock:
            seen["landlock.tcp"] = _is_refused(
                lambda: sock.connect(("127.0.0.1", port)), f"ABI {version}; a connection without a rule is refused"
            )
    scoped = "signals and abstract sockets stay inside" if version >= 6 else "needs ABI 6; the namespaces hold alone"
    seen["landlock.scope"] = Seen(version >= 6, f"ABI {version}: {scoped}")
    return seen


def _seccomp() -> Seen:
    number = FORBIDDEN_NAMES[os.uname().machine]["personality"]
    ask = ctypes.c_ulong(_ANY_PERSONA)
    before = _libc.syscall(number, ask)
    kernel.no_new_privileges()
    seccomp.install()
    after = _libc.syscall(number, ask)
    if before < 0:
        return Seen(False, "what it is to refuse was refused before it", ctypes.get_errno())
    if after >= 0:
        return Seen(False, "installed, but a call on its list went through")
    return Seen(True, "installed; a call on its list is refused", 0)


def _is_refused(act: Any, detail: str) -> Seen:
    try:
        act()
    except PermissionError:
        return Seen(True, detail)
    return Seen(False, "in force, but what has no rule went through")


def bubblewrap() -> Check:
    """Whether bwrap is installed and able to make namespaces."""

    def act() -> Seen:
        path = bwrap.find()
        if path is None:
            return Seen(False, "not installed", errno.ENOENT)
        words = [path, "--unshare-all", "--ro-bind", "/", "/", "true"]
        done = subprocess.run(words, env={}, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        said = done.stderr.decode(errors="replace").strip().splitlines()
        return Seen(done.returncode == 0, f"{path} works" if done.returncode == 0 else f"{path}: {said[-1:]}")

    return attempt("bwrap", act)
