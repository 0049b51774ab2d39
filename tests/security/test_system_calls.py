"""System calls that lead around walls, as raw calls of a program inside."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from fakes.cell import Cell

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86-64")

NEWUSER, NEWNS, NEWPID, NEWNET, NEWTIME = 0x10000000, 0x20000, 0x20000000, 0x40000000, 0x80

CALLS = {
    "io_uring_setup": "call(425, 8, ctypes.addressof(ctypes.create_string_buffer(256)))",
    "io_uring_enter": "call(426, 0, 1, 1, 0)",
    "io_uring_register": "call(427, 0, 0)",
    "bpf": "call(321, 0, ctypes.addressof(ctypes.create_string_buffer(128)), 128)",
    "keyctl": "call(250, 0, -3 & (2**64 - 1), 1)",
    "add_key": "call(248, b'user', b'x', b'x', 1, -2 & (2**64 - 1))",
    "request_key": "call(249, b'user', b'x', None, 0)",
    "userfaultfd": "call(323, 1)",
    "perf_event_open": "call(298, ctypes.addressof(ctypes.create_string_buffer(128)), 0, 0, 0, 0)",
    "unshare user": f"call(272, {NEWUSER})",
    "unshare mount": f"call(272, {NEWNS})",
    "unshare net": f"call(272, {NEWNET})",
    "unshare time": f"call(272, {NEWTIME})",
    "setns": "call(308, os.open('/proc/self/ns/user', os.O_RDONLY), 0)",
    "setns of process 1": "call(308, os.open('/proc/1/ns/mnt', os.O_RDONLY), 0)",
    "mount": "call(165, b'none', b'/tmp', b'tmpfs', 0, None)",
    "remount": "call(165, None, b'/', None, 32 | 4096, None)",
    "umount": "call(166, b'/proc', 2)",
    "open_tree": "call(428, -100 & (2**64 - 1), b'/', 1)",
    "fsopen": "call(430, b'tmpfs', 0)",
    "mount_setattr": "call(442, -100 & (2**64 - 1), b'/', 0, ctypes.addressof(ctypes.create_string_buffer(32)), 32)",
    "pivot_root": "call(155, b'.', b'.')",
    "chroot": "call(161, b'.')",
    "clone with a user namespace": f"call(56, {NEWUSER} | 17, 0, 0, 0, 0)",
    "clone with a PID namespace": f"call(56, {NEWPID} | 17, 0, 0, 0, 0)",
    "clone3": "call(435, ctypes.addressof(ctypes.create_string_buffer(88)), 88)",
    "ptrace": "call(101, 16, os.getppid(), 0, 0)",
    "ptrace traceme": "call(101, 0, 0, 0, 0)",
    "process_vm_readv": "call(310, 1, 0, 0, 0, 0, 0)",
    "process_vm_writev": "call(311, 1, 0, 0, 0, 0, 0)",
    "pidfd_getfd": "call(438, os.pidfd_open(os.getppid()), 0, 0)",
    "kcmp": "call(312, 1, os.getpid(), 0, 0, 0)",
    "process_madvise": "call(440, os.pidfd_open(os.getppid()), 0, 0, 4, 0)",
    "kexec_load": "call(246, 0, 0, 0, 0)",
    "init_module": "call(175, 0, 0, b'')",
    "finit_module": "call(313, 0, b'', 0)",
    "reboot": "call(169, 0xfee1dead, 672274793, 0, 0)",
    "swapon": "call(167, b'x', 0)",
    "acct": "call(163, None)",
    "syslog": "call(103, 3, ctypes.addressof(ctypes.create_string_buffer(64)), 64)",
    "settimeofday": "call(164, ctypes.addressof(ctypes.create_string_buffer(16)), 0)",
    "clock_settime": "call(227, 0, ctypes.addressof(ctypes.create_string_buffer(16)))",
    "sethostname": "call(170, b'x', 1)",
    "iopl": "call(172, 3)",
    "modify_ldt": "call(154, 0, 0, 0)",
    "personality": "call(135, 0x40000)",
    "name_to_handle_at": "call(303, -100 & (2**64 - 1), b'.', 0, 0, 0)",
    "open_by_handle_at": "call(304, 0, 0, 0)",
    "fanotify_init": "call(300, 0, 0)",
    "quotactl": "call(179, 0, None, 0, 0)",
    "memfd_secret": "call(447, 0)",
    "mknod of a device": "attempt(lambda: os.mknod('device', 0o20666, os.makedev(1, 1)))",
    "mknod of a block device": "attempt(lambda: os.mknod('device', 0o60666, os.makedev(8, 0)))",
    "typing into a terminal": "attempt(lambda: __import__('fcntl').ioctl(0, 0x5412, b'x'))",
    "prlimit on process 1": "call(302, 1, 7, ctypes.addressof(ctypes.create_string_buffer(16)), 0)",
    "prlimit on the worker": "call(302, 2, 7, ctypes.addressof(ctypes.create_string_buffer(16)), 0)",
    "priority of process 1": "attempt(lambda: os.setpriority(os.PRIO_PROCESS, 1, 19))",
    "priority of the user": "attempt(lambda: os.setpriority(os.PRIO_USER, os.getuid(), 19))",
    "scheduler of process 1": "attempt(lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)))",
    "processors of process 1": "attempt(lambda: os.sched_setaffinity(1, {0}))",
    "I/O priority of process 1": "call(251, 1, 1, 3 << 13)",
    "raising a limit": "call(302, 0, 6, ctypes.addressof(ctypes.create_string_buffer(b'\\xff' * 16)), 0)",
    "becoming root": "attempt(lambda: os.setresuid(0, 0, 0))",
    "becoming another group": "attempt(lambda: os.setgroups([0]))",
    "capabilities": "call(126, struct.pack('=Ii', 0x20080522, 0), struct.pack('=6I', 3, 3, 3, 0, 0, 0))",
}


@pytest.mark.parametrize("name", CALLS)
async def test_refused(agent: Cell, name: str) -> None:
    told = await agent.python(f"tell(attempt(lambda: {CALLS[name]}))")
    # In a user namespace of its own there is no root that one could become.
    assert told in {"EPERM", "EACCES", "ENOSYS"} or (name, told) == ("becoming root", "EINVAL"), told
    assert await agent.answers()


def _compiled(folder: Path, source: str, *options: str) -> str:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here")
    program = folder / "program"
    made = subprocess.run(
        ["gcc", "-O1", "-o", program, "-x", "c", *options, "-"], input=source.encode(), check=False, capture_output=True
    )
    assert made.returncode == 0, made.stderr
    program.chmod(0o755)
    return f"./{program.name}"


async def test_the_32_bit_entry_is_death(agent: Cell, neighbour: Cell) -> None:
    """int 0x80 has numbers of its own: 20 is getpid there."""
    source = 'int main(void){ long r; __asm__ volatile("int $0x80" : "=a"(r) : "a"(20L)); return r > 0 ? 42 : 43; }'
    outcome = await agent.sh(_compiled(agent.folder, source))
    assert outcome.exit_code in {-31, 128 + 31}, outcome  # SIGSYS
    assert await agent.answers()
    assert await neighbour.answers()


async def test_x32_is_death(agent: Cell) -> None:
    """39 is getpid."""
    source = "#include <unistd.h>\nint main(void){ return syscall(0x40000000 | 39) > 0 ? 42 : 43; }"
    outcome = await agent.sh(_compiled(agent.folder, source))
    assert outcome.exit_code in {-31, 128 + 31}, outcome
    assert await agent.answers()


async def test_a_setuid_program_stays_what_its_caller_is(agent: Cell) -> None:
    """The folder's mount is nosuid and no new privileges are to be had."""
    source = '#include <unistd.h>\n#include <stdio.h>\nint main(void){ printf("%d\\n", geteuid()); return 0; }'
    program = _compiled(agent.folder, source)
    path = agent.folder / "program"
    path.chmod(0o6755)
    outcome = await agent.sh(program)
    assert outcome.content.strip() == (await agent.sh("id -u")).content.strip()
    assert "NoNewPrivs:\t1" in (await agent.sh("cat /proc/self/status")).content


async def test_capabilities_are_empty_and_stay_so(agent: Cell) -> None:
    lines = (await agent.sh("grep ^Cap /proc/self/status")).content.splitlines()
    assert len(lines) >= 5
    assert {line.split()[1] for line in lines if ":" in line} == {"0000000000000000"}, lines
