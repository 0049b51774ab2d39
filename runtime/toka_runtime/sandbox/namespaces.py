"""An agent's own view of the machine: namespaces and a root file system that holds only what was given. Thin kernel
calls without policy; standard library only (it runs between fork and exec).

Order for one agent: `fork_apart`; the child is process 1 of the new PID namespace and calls `isolate_forked`,
`build_root`, then `drop_privileges`. Up to the first half of `build_root` nothing depends on the agent: it can be done
before there is one. Sources: clone(2), mount_namespaces(7), user_namespaces(7), pivot_root(2), mount_setattr(2). Every
failure raises `PrimitiveMissing` with the call that failed: nothing is skipped silently.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import stat
import struct
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

_libc: Any = ctypes.CDLL(None, use_errno=True)
_holding: Any = ctypes.PyDLL(None, use_errno=True)
"""The same, called without letting go of the interpreter: a fork must not."""

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
_OTHERS = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
"""All but those for users and processes."""

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_AT_RECURSIVE, _AT_FDCWD = 0x8000, -100
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPSET = {"x86_64": 126, "aarch64": 91}
_MOUNT_SETATTR = 442
_CLONE = {"x86_64": 56, "aarch64": 220}
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_SECUREBITS = 4, 24, 28
_SECUREBITS = 0x01 | 0x02 | 0x08 | 0x20 | 0x40 | 0x80
"""NOROOT and NO_CAP_AMBIENT_RAISE on, KEEP_CAPS and NO_SETUID_FIXUP off, each locked."""
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1

DEVICES = ("null", "zero", "full", "random", "urandom")
_STAGE = "/tmp"  # noqa: S108  # exists everywhere; only a mount point in a namespace of our own
HOST_NAME = "agent"
SCRATCH_BYTES = 256 << 20


class PrimitiveMissing(OSError):
    """A kernel call that confinement needs was refused. `primitive` names it; errno says how."""

    def __init__(self, number: int, primitive: str) -> None:
        super().__init__(number, f"{primitive}: {os.strerror(number)}")
        self.primitive = primitive


class Bind(NamedTuple):
    source: str
    target: str
    """Absolute, as the agent sees it."""
    writable: bool = False


class View(NamedTuple):
    """What the agent sees. Everything that is not named here does not exist for it."""

    binds: Sequence[Bind]
    links: Sequence[tuple[str, str]] = ()
    """(where, to what): symbolic links such as /bin → usr/bin."""
    files: Sequence[tuple[str, str]] = ()
    """(path, text): small files made up for it, such as /etc/passwd."""
    scratch_bytes: int = SCRATCH_BYTES
    """Size of each private /tmp and /dev/shm; it counts as the agent's memory."""
    hostname: str = HOST_NAME


class Owner(NamedTuple):
    """Who a user namespace is made for: the only user and group in it."""

    uid: int
    gid: int

    @classmethod
    def of_this_process(cls) -> Owner:
        return cls(os.getuid(), os.getgid())


def fork_apart(*, user: bool) -> int:
    """Fork process 1 of a new PID namespace, and of a new user namespace where `user` says so (an ordinary user needs
    one; root does not). As os.fork: 0 in the child, which goes on with `isolate_forked`. One fork instead of two: the
    copy of this process is most of what an agent's start costs."""
    flags = CLONE_NEWPID | (CLONE_NEWUSER if user else 0)
    zero = ctypes.c_ulong(0)
    # What os.fork does around the call.
    ctypes.pythonapi.PyOS_BeforeFork()
    number = _CLONE[os.uname().machine]
    pid: int = _holding.syscall(number, ctypes.c_ulong(flags | signal.SIGCHLD), zero, zero, zero, zero)
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    error = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise PrimitiveMissing(error, "clone(CLONE_NEWPID | CLONE_NEWUSER)" if user else "clone(CLONE_NEWPID)")
    return pid


def isolate_forked(owner: Owner | None) -> None:
    """In the child of `fork_apart`: leave the host's other namespaces, but for that of control groups. `owner`: who the
    parent was, where the user namespace is new."""
    if owner is not None:
        _map_ids(owner)
    _unshare("namespaces", _OTHERS & ~CLONE_NEWCGROUP)


def isolate_groups() -> None:
    """Leave the host's namespace of control groups: where this process is now becomes the root of its own."""
    _unshare("namespaces", CLONE_NEWCGROUP)


def isolate(*, user: bool) -> None:
    """The same for a process that stays where it is. The PID namespace begins with the next fork."""
    owner = Owner.of_this_process()
    if user:
        _unshare("CLONE_NEWUSER", CLONE_NEWUSER)
        _map_ids(owner)
    _unshare("namespaces", _OTHERS | CLONE_NEWPID)


def _unshare(what: str, flags: int) -> None:
    _call(f"unshare({what})", _libc.unshare(ctypes.c_int(flags)))


def _map_ids(owner: Owner) -> None:
    # A process that has changed its user may not write its own maps otherwise. `drop_privileges` takes it back.
    zero = ctypes.c_ulong(0)
    _call("prctl(PR_SET_DUMPABLE)", _libc.prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(1), zero, zero, zero))
    with _naming("write /proc/self/setgroups and the id maps"):
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{owner.uid} {owner.uid} 1")
        _write("/proc/self/gid_map", f"{owner.gid} {owner.gid} 1")


def build_root(view: View) -> None:
    """Become a machine of one's own. Call as process 1 of the new PID namespace."""
    empty_root(view.hostname, view.scratch_bytes)
    fill_root(view)


def empty_root(hostname: str = HOST_NAME, scratch_bytes: int = SCRATCH_BYTES) -> None:
    """The first half of `build_root`, in which nothing is of an agent's yet: /old is the host's root, /new is to be
    filled."""
    with _naming("sethostname"):
        socket.sethostname(hostname[:64])
    _loopback_up()
    _mount("", "/", "", _MS_REC | _MS_PRIVATE)
    _mount("tmpfs", _STAGE, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=16m")
    with _naming("prepare the new root"):
        os.mkdir(f"{_STAGE}/old")  # noqa: PTH102  # no pathlib between fork and exec; likewise below
        os.mkdir(f"{_STAGE}/new")  # noqa: PTH102
    _pivot(_STAGE, f"{_STAGE}/old")
    os.chdir("/")
    _mount("tmpfs", "/new", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=4m")
    # First, so that what is given may lie below /tmp.
    _own(scratch_bytes)


def fill_root(view: View) -> None:
    """The second half: put in what the agent sees, and leave the host's root for good."""
    _populate(view)
    os.chdir("/new")
    # The old root ends up on top of the new one, and goes.
    _pivot(".", ".")
    _call("umount2(old root)", _libc.umount2(b".", _MNT_DETACH))
    os.chdir("/")
    _set_attributes("/", _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, recursive=False)


def open_listener() -> int:
    """A listening socket on the own loopback, for the runtime's proxy: the descriptor is served from outside, which no
    other process can imitate. Call inside the network namespace."""
    with _naming("listen on the own loopback"):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.bind(("127.0.0.1", 0))
        sock.listen(64)
    return sock.detach()


def bind_onto(source: str, target: str) -> None:
    """Mount what is at `source` on `target`, both of this view, with what is mounted below it."""
    _mount(source, target, "", _MS_BIND | _MS_REC)


def make_read_only(path: str) -> None:
    """The mount at `path`, not those below it."""
    _set_attributes(path, _ATTR_RDONLY, recursive=False)


def drop_privileges(uid: int | None, gid: int | None) -> None:
    """Become this user (None: stay who one is), without any capability, for good. Also hides this process's memory from
    others of the same user."""
    zero = ctypes.c_ulong(0)
    # While there still is the capability to do it with.
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), zero, zero, zero) != 0:
            break
    _call("prctl(PR_SET_SECUREBITS)", _libc.prctl(_PR_SET_SECUREBITS, ctypes.c_ulong(_SECUREBITS), zero, zero, zero))
    with _naming("become the agent's user"):
        if uid is not None and gid is not None:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
    header, data = struct.pack("=Ii", 0x20080522, 0), struct.pack("=6I", *(0,) * 6)
    _call("capset", _libc.syscall(_CAPSET[os.uname().machine], header, data))
    hide_memory()


def hide_memory() -> None:
    """From others of the same user."""
    zero = ctypes.c_ulong(0)
    _call("prctl(PR_SET_DUMPABLE)", _libc.prctl(_PR_SET_DUMPABLE, zero, zero, zero, zero))


def _populate(view: View) -> None:
    made: set[str] = set()
    for bind in view.binds:
        _bind(bind, made)
    for where, target in view.links:
        with _naming(f"link {where}"):
            _folder_for(f"/new{where}", made)
            os.symlink(target, f"/new{where}")  # noqa: PTH211
    for path, text in view.files:
        with _naming(f"write {path}"):
            _folder_for(f"/new{path}", made)
            _write(f"/new{path}", text, create=True)


def _folder_for(path: str, made: set[str]) -> None:
    """Make the folder that `path` lies in; `made` is what is known to be there."""
    folder = path.rpartition("/")[0]
    if folder not in made:
        os.makedirs(folder, 0o755, exist_ok=True)  # noqa: PTH103
        made.add(folder)


def _own(scratch_bytes: int) -> None:
    """/proc of the own PID namespace, a /dev of five devices, private /tmp and /dev/shm."""
    size = f"mode=1777,size={scratch_bytes}"
    with _naming("make /proc, /dev and /tmp"):
        for path in ("/new/proc", "/new/dev", "/new/tmp"):
            os.mkdir(path, 0o755)  # noqa: PTH102
    _mount("proc", "/new/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    _mount("tmpfs", "/new/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, size)
    _mount("tmpfs", "/new/dev", "tmpfs", _MS_NOSUID | _MS_NOEXEC, "mode=0755,size=64k")
    with _naming("make /dev"):
        os.mkdir("/new/dev/shm")  # noqa: PTH102
        for name in DEVICES:
            os.close(os.open(f"/new/dev/{name}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666))
        for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
            os.symlink(target, f"/new/dev/{name}")  # noqa: PTH211
    for name in DEVICES:
        _mount(f"/old/dev/{name}", f"/new/dev/{name}", "", _MS_BIND)
    _mount("tmpfs", "/new/dev/shm", "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, size)
    _set_attributes("/new/dev", _ATTR_RDONLY, recursive=False)


def _bind(bind: Bind, made: set[str]) -> None:
    source, target = f"/old{bind.source}", f"/new{bind.target}"
    with _naming(f"prepare {bind.target}"):
        if stat.S_ISDIR(os.stat(source).st_mode):  # noqa: PTH116
            os.makedirs(target, 0o755, exist_ok=True)  # noqa: PTH103
        else:
            _folder_for(target, made)
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    _mount(source, target, "", _MS_BIND | _MS_REC)
    attributes = _ATTR_NOSUID | _ATTR_NODEV | (0 if bind.writable else _ATTR_RDONLY)
    _set_attributes(target, attributes, recursive=True)


def _loopback_up() -> None:
    """Programs expect 127.0.0.1; in a new network namespace it is down."""
    with _naming("bring up the loopback interface"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack("16sh22x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    result = _libc.mount(
        source.encode() or None,
        target.encode(),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    _call(f"mount {kind or source} on {target}", result)


def _set_attributes(path: str, attributes: int, *, recursive: bool) -> None:
    value = struct.pack("=QQQQ", attributes, 0, 0, 0)
    flags = ctypes.c_uint(_AT_RECURSIVE if recursive else 0)
    result = _libc.syscall(
        _MOUNT_SETATTR, ctypes.c_int(_AT_FDCWD), path.encode(), flags, value, ctypes.c_size_t(len(value))
    )
    _call(f"mount_setattr {path}", result)


def _pivot(new: str, old: str) -> None:
    machine = os.uname().machine
    _call("pivot_root", _libc.syscall(_PIVOT_ROOT[machine], new.encode(), old.encode()))


def _call(primitive: str, result: int) -> None:
    if result < 0:
        raise PrimitiveMissing(ctypes.get_errno(), primitive)


@contextmanager
def _naming(primitive: str) -> Generator[None]:
    try:
        yield
    except PrimitiveMissing:
        raise
    except OSError as error:
        raise PrimitiveMissing(error.errno or 0, primitive) from error


def _write(path: str, text: str, *, create: bool = False) -> None:
    flags = os.O_WRONLY | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0)
    descriptor = os.open(path, flags, 0o644)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
