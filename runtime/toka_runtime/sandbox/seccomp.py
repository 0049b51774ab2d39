"""A seccomp filter by hand: which system calls confined processes never make. No policy beyond the lists in
`syscalls.py`; standard library only (it runs between fork and exec).

The program is classic BPF (Linux `include/uapi/linux/{filter,seccomp,audit}.h`). It refuses with EPERM, and with
ENOSYS where a C library then falls back to an older call. A foreign architecture (int 0x80 on x86-64) and x32 kill.
`simulate` runs a program on given arguments, for tests: a wrong jump would refuse or allow everything.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from functools import cache
from typing import Any, NamedTuple

from toka_runtime.sandbox.syscalls import (
    ABOUT_A_PROCESS,
    AUDIT_ARCH,
    CLONE,
    CLONE3,
    CLONE_NAMESPACES,
    FORBIDDEN,
    IOCTL,
    IOCTL_REFUSED,
    MODE_SET_ID,
    MODES,
    OPEN_MAKES,
    OPENAT2,
    OPENS,
    PRIORITIES,
    PRIORITY_OF_USER,
    SECCOMP,
    SENDTO,
    SOCKET,
    SOCKET_FAMILIES,
    SOCKETPAIR,
    SOCKETPAIR_DATAGRAM,
    X32_BIT,
)

_libc: Any = ctypes.CDLL(None, use_errno=True)

_LD_W_ABS, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL = 0x7FFF0000, 0x80000000
_ERRNO = 0x00050000
_NR, _ARCH, _ARGUMENTS = 0, 4, 16
_INSTRUCTION_BYTES = 8
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
NOTIFY = 0x7FC00000
_SET_MODE_FILTER, _ACTION_AVAILABLE, _NEW_LISTENER = 1, 2, 1 << 3


def refuse(number: int) -> int:
    """The filter's answer that makes the call fail with this errno."""
    return _ERRNO | number


class Instruction(NamedTuple):
    code: int
    jump_true: int
    jump_false: int
    value: int


class _Program:
    """Tests that end in an answer, one after the other; each skips itself when it does not apply."""

    def __init__(self) -> None:
        self.code: list[Instruction] = []

    def load(self, offset: int) -> None:
        self.code.append(Instruction(_LD_W_ABS, 0, 0, offset))

    def answer(self, answer: int) -> None:
        self.code.append(Instruction(_RET, 0, 0, answer))

    def answer_if(self, test: int, value: int, answer: int) -> None:
        self.code.append(Instruction(test, 0, 1, value))
        self.answer(answer)

    def answer_unless(self, test: int, value: int, answer: int) -> None:
        self.code.append(Instruction(test, 1, 0, value))
        self.answer(answer)

    def only_for(self, number: int, body: _Program) -> None:
        """Run `body` when the call's number (which is loaded) is this one. It must end in an answer."""
        self.code.append(Instruction(_JEQ, 0, len(body.code), number))
        self.code.extend(body.code)


def program(machine: str) -> tuple[Instruction, ...]:
    """The filter for `machine` (x86_64 or aarch64). Raises OSError for another."""
    if machine not in AUDIT_ARCH:
        raise OSError(errno.ENOSYS, f"no system call table for {machine}")
    main = _Program()
    main.load(_ARCH)
    main.answer_unless(_JEQ, AUDIT_ARCH[machine], KILL)
    main.load(_NR)
    if machine == "x86_64":
        main.answer_if(_JGE, X32_BIT, KILL)
    main.answer_if(_JEQ, CLONE3, refuse(errno.ENOSYS))
    main.only_for(CLONE[machine], _clone())
    main.only_for(SOCKET[machine], _socket())
    main.only_for(SOCKETPAIR[machine], _socketpair())
    main.only_for(IOCTL[machine], _ioctl())
    for number in ABOUT_A_PROCESS[machine].values():
        main.only_for(number, _own_process(0))
    for number in PRIORITIES[machine].values():
        main.only_for(number, _own_priority())
    for number, argument in MODES[machine].items():
        main.only_for(number, _plain_mode(argument))
    for number, (flags, mode) in OPENS[machine].items():
        main.only_for(number, _plain_open(flags, mode))
    # What C libraries and our own tools then do without: its mode lies in memory.
    main.answer_if(_JEQ, OPENAT2, refuse(errno.ENOSYS))
    for number in FORBIDDEN[machine]:
        main.answer_if(_JEQ, number, refuse(errno.EPERM))
    main.answer(ALLOW)
    return tuple(main.code)


def notify_program(machine: str, numbers: tuple[int, ...]) -> tuple[Instruction, ...]:
    """Asks the listener about these calls; refuses nothing. `sendto` only where it names an address."""
    main = _Program()
    main.load(_ARCH)
    main.answer_unless(_JEQ, AUDIT_ARCH[machine], ALLOW)
    main.load(_NR)
    for number in numbers:
        if number == SENDTO[machine]:
            main.only_for(number, _with_address())
        else:
            main.answer_if(_JEQ, number, NOTIFY)
    main.answer(ALLOW)
    return tuple(main.code)


def _with_address() -> _Program:
    body = _Program()
    body.load(_ARGUMENTS + 8 * 4)
    body.answer_if(_JEQ, 0, ALLOW)
    body.answer(NOTIFY)
    return body


def _clone() -> _Program:
    body = _Program()
    body.load(_ARGUMENTS)
    body.answer_if(_JSET, CLONE_NAMESPACES, refuse(errno.EPERM))
    body.answer(ALLOW)
    return body


def _socket() -> _Program:
    """Only families of which nothing leads out of an empty network namespace. Pathname unix sockets do, so they can't
    be made (a pair can)."""
    body = _Program()
    body.load(_ARGUMENTS)
    for family in SOCKET_FAMILIES:
        body.answer_if(_JEQ, family, ALLOW)
    body.answer(refuse(errno.EAFNOSUPPORT))
    return body


def _socketpair() -> _Program:
    body = _Program()
    body.load(_ARGUMENTS + 8)
    body.answer_if(_JSET, SOCKETPAIR_DATAGRAM, refuse(errno.EPERM))
    body.answer(ALLOW)
    return body


def _own_process(argument: int) -> _Program:
    """Only with 0, the caller itself, as the process."""
    body = _Program()
    body.load(_ARGUMENTS + 8 * argument)
    body.answer_unless(_JEQ, 0, refuse(errno.EPERM))
    body.answer(ALLOW)
    return body


def _own_priority() -> _Program:
    body = _Program()
    body.load(_ARGUMENTS)
    body.answer_if(_JSET, PRIORITY_OF_USER, refuse(errno.EPERM))
    body.code += _own_process(1).code
    return body


def _plain_mode(argument: int) -> _Program:
    """Nothing is made or marked set-uid or set-gid."""
    body = _Program()
    body.load(_ARGUMENTS + 8 * argument)
    body.answer_if(_JSET, MODE_SET_ID, refuse(errno.EPERM))
    body.answer(ALLOW)
    return body


def _plain_open(flags: int, mode: int) -> _Program:
    body = _Program()
    body.load(_ARGUMENTS + 8 * flags)
    body.answer_unless(_JSET, OPEN_MAKES, ALLOW)
    body.code += _plain_mode(mode).code
    return body


def _ioctl() -> _Program:
    body = _Program()
    body.load(_ARGUMENTS + 8)
    for request in IOCTL_REFUSED:
        body.answer_if(_JEQ, request, refuse(errno.EPERM))
    body.answer(ALLOW)
    return body


@cache
def encoded(machine: str) -> bytes:
    """The program as the kernel reads it. Ask for it once before forking: building it takes longer than installing it.
    Raises OSError as `program` does."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program(machine))


def install(machine: str = "") -> None:
    """Put the filter on this process and what it starts. Needs no_new_privs. Raises OSError."""
    blob = encoded(machine or os.uname().machine)
    header, _buffer = _header(blob)
    zero = ctypes.c_ulong(0)
    if _libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), header, zero, zero) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp filter: {os.strerror(number)}")


def can_listen() -> bool:
    """The kernel knows of listeners. Changes nothing."""
    machine = os.uname().machine
    action, none = struct.pack("=I", NOTIFY), ctypes.c_uint(0)
    return machine in SECCOMP and _libc.syscall(SECCOMP[machine], ctypes.c_uint(_ACTION_AVAILABLE), none, action) == 0


def listen(numbers: tuple[int, ...]) -> int:
    """A second filter beside the one of `install`, for the calling thread and what it starts: each of these calls waits
    until it is answered by way of the descriptor that is returned. Needs no_new_privs. Raises OSError."""
    machine = os.uname().machine
    blob = b"".join(struct.pack("=HBBI", *instruction) for instruction in notify_program(machine, numbers))
    header, _buffer = _header(blob)
    flags = ctypes.c_uint(_NEW_LISTENER)
    listener: int = _libc.syscall(SECCOMP[machine], ctypes.c_uint(_SET_MODE_FILTER), flags, header)
    if listener < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp listener: {os.strerror(number)}")
    return listener


def _header(blob: bytes) -> tuple[bytes, Any]:
    """What the kernel takes a program from, and the memory that must live as long."""
    buffer = ctypes.create_string_buffer(blob, len(blob))
    return struct.pack("HxxxxxxP", len(blob) // _INSTRUCTION_BYTES, ctypes.addressof(buffer)), buffer


def simulate(instructions: tuple[Instruction, ...], arch: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """The filter's answer for one call, by running it as the kernel would."""
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number, arch, 0, *padded)
    accumulator, position = 0, 0
    while True:
        code, jump_true, jump_false, value = instructions[position]
        position += 1
        match code:
            case 0x20:
                accumulator = struct.unpack_from("=I", data, value)[0]
            case 0x15:
                position += jump_true if accumulator == value else jump_false
            case 0x35:
                position += jump_true if accumulator >= value else jump_false
            case 0x45:
                position += jump_true if accumulator & value else jump_false
            case 0x06:
                return value
            case _:
                raise ValueError(f"instruction {code:#x} is not simulated")
