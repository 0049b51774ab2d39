"""Each primitive of the confinement taken away, one at a time: the agent does not start, what is missing is named with
its errno, and nothing is left. The pieces are taken away in the fork server, which is another process: through the
module that its worker comes from."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from fakes.child import in_child
from fakes.processes import alive
from toka_runtime.errors import SandboxUnavailable
from toka_runtime.protocol.capability import PathRule, Rights
from toka_runtime.protocol.ids import AgentName, RunId
from toka_runtime.protocol.spec import SandboxMode
from toka_runtime.protocol.usage import ResourceLimits
from toka_runtime.sandbox import confine, landlock
from toka_runtime.sandbox.launcher import ForkServer
from toka_runtime.sandbox.plan import SandboxPlan
from toka_runtime.sandbox.spare import TITLE
from toka_runtime.sandbox.tree import children

pytestmark = pytest.mark.skipif(landlock.abi() == 0, reason="no Landlock here")

SABOTAGE = """
import ctypes, errno, os, pathlib, resource, socket
from toka_runtime.sandbox import bwrap, confine, kernel, landlock, namespaces, seccomp, shim

# What bwrap makes up for is tested with it, in test_bwrap.py.
bwrap.find = lambda: None

class Libc:
    '''The C library, in which one function fails when `when` says so of its arguments.'''
    def __init__(self, real, name, number, when):
        self._real, self._name, self._number, self._when = real, name, number, when
    def __getattr__(self, name):
        call = getattr(self._real, name)
        if name != self._name:
            return call
        def failing(*arguments):
            if self._when(*(getattr(a, "value", a) for a in arguments)):
                ctypes.set_errno(self._number)
                return -1
            return call(*arguments)
        return failing

def libc(module, name, number, when=lambda *arguments: True):
    module._libc = Libc(module._libc, name, number, when)

def python(module, name, number, when=lambda *arguments: True):
    real = getattr(module, name)
    def failing(*arguments, **options):
        if when(*arguments):
            raise OSError(number, os.strerror(number))
        return real(*arguments, **options)
    setattr(module, name, failing)

%s

reports = pathlib.Path(%r)
def main(descriptor):
    # Only an agent that was started writes this.
    (reports / "started").write_text("")
    return 0
"""

USER = os.getuid() != 0
CASES: dict[str, tuple[str, str, int]] = {
    # name: (what is broken, what the message names, errno)
    "new namespaces": (
        "libc(namespaces, 'unshare', errno.EPERM, lambda flags: not flags & namespaces.CLONE_NEWUSER)",
        "unshare(namespaces)",
        errno.EPERM,
    ),
    "no namespaces left": ("libc(namespaces, 'unshare', errno.ENOSPC)", "unshare", errno.ENOSPC),
    "no namespaces in the kernel": ("libc(namespaces, 'unshare', errno.EINVAL)", "unshare", errno.EINVAL),
    "host name": ("python(socket, 'sethostname', errno.EPERM)", "sethostname", errno.EPERM),
    "private mounts": (
        "libc(namespaces, 'mount', errno.EPERM, lambda s, t, kind, *rest: kind is None)",
        "mount",
        errno.EPERM,
    ),
    "tmpfs": (
        "libc(namespaces, 'mount', errno.EPERM, lambda s, t, kind, *rest: kind == b'tmpfs')",
        "tmpfs",
        errno.EPERM,
    ),
    "proc": (
        "libc(namespaces, 'mount', errno.EPERM, lambda s, t, kind, *rest: kind == b'proc')",
        "mount proc",
        errno.EPERM,
    ),
    "pivot_root": (
        "libc(namespaces, 'syscall', errno.EINVAL, lambda n, *rest: n == namespaces._PIVOT_ROOT[os.uname().machine])",
        "pivot_root",
        errno.EINVAL,
    ),
    "mount_setattr": (
        "libc(namespaces, 'syscall', errno.ENOSYS, lambda n, *rest: n == namespaces._MOUNT_SETATTR)",
        "mount_setattr",
        errno.ENOSYS,
    ),
    "old root away": ("libc(namespaces, 'umount2', errno.EBUSY)", "umount2", errno.EBUSY),
    "loopback": ("python(namespaces, '_loopback_up', errno.EPERM)", "Operation not permitted", errno.EPERM),
    "limits": (
        "python(resource, 'setrlimit', errno.EPERM, lambda which, value: which == resource.RLIMIT_NPROC)",
        "Operation not permitted",
        errno.EPERM,
    ),
    "securebits": (
        "libc(namespaces, 'prctl', errno.EPERM, lambda option, *rest: option == namespaces._PR_SET_SECUREBITS)",
        "PR_SET_SECUREBITS",
        errno.EPERM,
    ),
    "capabilities": (
        "libc(namespaces, 'syscall', errno.EPERM, lambda n, *rest: n == namespaces._CAPSET[os.uname().machine])",
        "capset",
        errno.EPERM,
    ),
    "dumpable": (
        "libc(namespaces, 'prctl', errno.EPERM, lambda option, value, *rest: (option, value) == (4, 0))",
        "PR_SET_DUMPABLE",
        errno.EPERM,
    ),
    "no_new_privs": (
        "libc(kernel, 'prctl', errno.EINVAL, lambda option, *rest: option == 38)",
        "PR_SET_NO_NEW_PRIVS",
        errno.EINVAL,
    ),
    "seccomp": ("libc(seccomp, 'prctl', errno.EINVAL)", "seccomp filter", errno.EINVAL),
    "an unknown machine": (
        "install = seccomp.install; seccomp.install = lambda: install('riscv64')",
        "riscv64",
        errno.ENOSYS,
    ),
    "Landlock": ("landlock.abi = lambda: 0", "landlock_create_ruleset", errno.ENOSYS),
    "Landlock's rules": (
        "libc(landlock, 'syscall', errno.E2BIG, lambda n, *rest: n == 446)",
        "landlock_restrict_self",
        errno.E2BIG,
    ),
}
if USER:
    CASES |= {
        "user namespace": (
            "libc(namespaces, 'unshare', errno.EPERM, lambda flags: flags & namespaces.CLONE_NEWUSER)",
            "unshare(CLONE_NEWUSER)",
            errno.EPERM,
        ),
        "id maps": (
            "python(namespaces, '_write', errno.EPERM, lambda path, *rest: path.endswith('_map'))",
            "id maps",
            errno.EPERM,
        ),
    }
else:
    CASES["another user"] = ("python(os, 'setresuid', errno.EPERM)", "become the agent's user", errno.EPERM)


def plan(folder: Path) -> SandboxPlan:
    rule = PathRule(id="all", capability="all", glob="**")
    rights = Rights(read=(rule,), write=(rule,))
    limits = ResourceLimits(memory_bytes=1 << 30)
    return SandboxPlan(agent=AgentName("a"), run=RunId("r"), root=str(folder), rights=rights, limits=limits)


def is_spare(pid: int) -> bool:
    """Where the view could be built and what comes after it not, there may be one for the next agent;
    just forked it still has its parent's name."""
    return Path(f"/proc/{pid}/comm").read_text().strip() in (TITLE, "toka:zygote")


@pytest.mark.parametrize("mode", [SandboxMode.REQUIRED, SandboxMode.BEST_EFFORT])
@pytest.mark.parametrize("case", CASES)
async def test_without_it_no_agent_starts(tmp_path: Path, case: str, mode: SandboxMode) -> None:
    if mode is SandboxMode.BEST_EFFORT and case not in ("Landlock", "seccomp", "proc"):
        pytest.skip("the same code")
    sabotage, named, number = CASES[case]
    code, folder = tmp_path / "code", tmp_path / "agent"
    code.mkdir()
    folder.mkdir()
    (code / "sabotaged.py").write_text(SABOTAGE % (sabotage, str(folder)))
    mounts = Path("/proc/self/mountinfo").read_text()
    server = ForkServer(worker_main="sabotaged:main", import_paths=[str(code)], confine=True)
    try:
        with pytest.raises(SandboxUnavailable) as refused:
            await server.launch(plan(folder).model_copy(update={"mode": mode}))
        assert named in refused.value.message
        assert os.strerror(number) in refused.value.message
        assert refused.value.hint
        assert server.zygote_pid is not None
        assert {pid for pid in alive(set(children(server.zygote_pid))) if not is_spare(pid)} == set()
    finally:
        await server.aclose()
    assert not (folder / "started").exists()
    assert Path("/proc/self/mountinfo").read_text() == mounts


async def test_the_sabotage_alone_stops_nothing(tmp_path: Path) -> None:
    """The other side of the matrix: with nothing broken the same plan starts."""
    code, folder = tmp_path / "code", tmp_path / "agent"
    code.mkdir()
    folder.mkdir()
    (code / "sabotaged.py").write_text(SABOTAGE % ("", str(folder)))
    server = ForkServer(worker_main="sabotaged:main", import_paths=[str(code)], confine=True)
    try:
        agent = await server.launch(plan(folder))
        assert agent.protections
    finally:
        await server.aclose()


async def test_a_defect_between_fork_and_work_is_told_and_runs_nothing(tmp_path: Path) -> None:
    code, folder = tmp_path / "code", tmp_path / "agent"
    code.mkdir()
    folder.mkdir()
    (code / "sabotaged.py").write_text(SABOTAGE % ("namespaces.fill_root = lambda view: 1 / 0", str(folder)))
    server = ForkServer(worker_main="sabotaged:main", import_paths=[str(code)], confine=True)
    try:
        for _ in range(2):
            # Twice: the fork server is still itself, and alone.
            with pytest.raises(SandboxUnavailable, match="ZeroDivisionError"):
                await server.launch(plan(folder))
        assert server.zygote_pid is not None
        assert children(server.zygote_pid) == []
    finally:
        await server.aclose()
    assert not (folder / "started").exists()


def test_nobody_gets_more_than_the_runtime_has() -> None:
    def act() -> str:
        resource.setrlimit(resource.RLIMIT_NPROC, (300, 300))
        limits = {"data_bytes": None, "processes": 512, "file_bytes": 4 << 30}
        confine.limit(limits)
        limits["processes"] = 100
        first = resource.getrlimit(resource.RLIMIT_NPROC)
        confine.limit(limits)
        return f"{first} {resource.getrlimit(resource.RLIMIT_NPROC)}"

    assert in_child(act) == "(300, 300) (100, 100)"
