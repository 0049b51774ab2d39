"""The filter: simulated for every call number, and tried on a real process."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.child import in_child
from toka_runtime.sandbox import kernel, seccomp
from toka_runtime.sandbox.seccomp import ALLOW, KILL, program, refuse, simulate
from toka_runtime.sandbox.syscalls import (
    ABOUT_A_PROCESS,
    AUDIT_ARCH,
    CLONE,
    CLONE3,
    FORBIDDEN,
    IOCTL,
    MODES,
    OPENAT2,
    OPENS,
    PRIORITIES,
    SOCKET,
    SOCKETPAIR,
)

MACHINES = sorted(AUDIT_ARCH)


@pytest.mark.parametrize("machine", MACHINES)
def test_each_call_gets_exactly_the_answer_that_the_lists_say(machine: str) -> None:
    code, arch = program(machine), AUDIT_ARCH[machine]
    looked_into = {CLONE[machine], SOCKET[machine], IOCTL[machine]}
    for number in set(range(600)) - looked_into:
        expected = ALLOW
        if number in FORBIDDEN[machine]:
            expected = refuse(errno.EPERM)
        if number in (CLONE3, OPENAT2):
            expected = refuse(errno.ENOSYS)
        assert simulate(code, arch, number) == expected, number


@pytest.mark.parametrize("machine", MACHINES)
@given(arch=st.integers(0, 2**32 - 1), number=st.integers(0, 2**32 - 1))
def test_a_foreign_architecture_and_x32_are_killed(machine: str, arch: int, number: int) -> None:
    if arch != AUDIT_ARCH[machine]:
        assert simulate(program(machine), arch, number) == KILL
    if machine == "x86_64":
        assert simulate(program(machine), AUDIT_ARCH[machine], number | 0x40000000) == KILL


@pytest.mark.parametrize("machine", MACHINES)
@given(mode=st.integers(0, 2**16 - 1), flags=st.integers(0, 2**25 - 1))
def test_nothing_becomes_set_uid_or_set_gid(machine: str, mode: int, flags: int) -> None:
    code, arch = program(machine), AUDIT_ARCH[machine]
    refused = refuse(errno.EPERM) if mode & (stat.S_ISUID | stat.S_ISGID) else ALLOW
    for number, at in MODES[machine].items():
        assert simulate(code, arch, number, (*(0,) * at, mode)) == refused
    for number, (flags_at, mode_at) in OPENS[machine].items():
        arguments = [0] * 6
        arguments[flags_at], arguments[mode_at] = flags, mode
        makes = flags & os.O_CREAT or flags & os.O_TMPFILE & ~os.O_DIRECTORY
        assert simulate(code, arch, number, tuple(arguments)) == (refused if makes else ALLOW)


@pytest.mark.parametrize("machine", MACHINES)
@given(flags=st.integers(0, 2**32 - 1))
def test_no_clone_flag_makes_a_namespace(machine: str, flags: int) -> None:
    answer = simulate(program(machine), AUDIT_ARCH[machine], CLONE[machine], (flags,))
    makes_one = flags & (0x7E020000 | 0x80)
    assert answer == (refuse(errno.EPERM) if makes_one else ALLOW)


@pytest.mark.parametrize("machine", MACHINES)
@given(family=st.integers(0, 60))
def test_only_internet_sockets(machine: str, family: int) -> None:
    answer = simulate(program(machine), AUDIT_ARCH[machine], SOCKET[machine], (family,))
    assert answer == (ALLOW if family in {2, 10} else refuse(errno.EAFNOSUPPORT))


@pytest.mark.parametrize("machine", MACHINES)
@given(kind=st.integers(0, 2**32 - 1))
def test_a_pair_of_sockets_is_connected_for_good(machine: str, kind: int) -> None:
    answer = simulate(program(machine), AUDIT_ARCH[machine], SOCKETPAIR[machine], (socket.AF_UNIX, kind))
    datagram = kind & 0xF in {socket.SOCK_DGRAM, socket.SOCK_RAW}
    if datagram:
        assert answer == refuse(errno.EPERM)
    if kind & 0xF in {socket.SOCK_STREAM, socket.SOCK_SEQPACKET}:
        assert answer == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
@given(pid=st.integers(0, 2**32 - 1))
def test_limits_and_priorities_only_of_oneself(machine: str, pid: int) -> None:
    code, arch = program(machine), AUDIT_ARCH[machine]
    expected = refuse(errno.EPERM) if pid else ALLOW
    for number in ABOUT_A_PROCESS[machine].values():
        assert simulate(code, arch, number, (pid,)) == expected
    for number in PRIORITIES[machine].values():
        assert simulate(code, arch, number, (1, pid)) == expected
        assert simulate(code, arch, number, (2, pid)) == refuse(errno.EPERM)
        assert simulate(code, arch, number, (3, pid)) == refuse(errno.EPERM)


@pytest.mark.parametrize("machine", MACHINES)
def test_nothing_can_be_typed_into_a_terminal(machine: str) -> None:
    code, arch = program(machine), AUDIT_ARCH[machine]
    assert simulate(code, arch, IOCTL[machine], (0, 0x5412)) == refuse(errno.EPERM)
    assert simulate(code, arch, IOCTL[machine], (0, 0x5413)) == ALLOW


def test_jumps_stay_inside() -> None:
    for machine in MACHINES:
        code = program(machine)
        assert len(code) < 4096
        assert code[-1] == (6, 0, 0, ALLOW)
        for position, instruction in enumerate(code[:-1]):
            assert position + 1 + max(instruction.jump_true, instruction.jump_false) < len(code)


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda: socket.socket(socket.AF_UNIX), errno.EAFNOSUPPORT),
        (lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW), errno.EAFNOSUPPORT),
        (lambda: socket.socket(socket.AF_VSOCK), errno.EAFNOSUPPORT),
        (lambda: os.posix_spawn("/usr/bin/unshare", ["unshare", "--user", "true"], {}), 0),
        (lambda: socket.socketpair(), 0),
        (lambda: socket.socket(), 0),
    ],
)
def test_on_a_real_process(act: Callable[[], object], expected: int) -> None:
    def child() -> str:
        kernel.no_new_privileges()
        seccomp.install()
        try:
            act()
        except OSError as error:
            return str(error.errno)
        return "0"

    assert in_child(child) == str(expected)
