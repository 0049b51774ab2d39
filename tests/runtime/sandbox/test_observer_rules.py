"""What the observer makes of an attempt, on real files, without a kernel that refuses."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest

from toka_runtime.sandbox import seccomp
from toka_runtime.sandbox.landlock import EXECUTE, READ, WRITE, PathAccess, handled_rights
from toka_runtime.sandbox.observer_calls import CALLS, Act, numbers
from toka_runtime.sandbox.observer_rules import LANDLOCK, NETWORK, VIEW, Attempt, Judge, PathRules, Refused, of_process
from toka_runtime.sandbox.syscalls import AUDIT_ARCH

CREATE = os.O_CREAT | os.O_WRONLY | os.O_TRUNC


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    for name in ("system", "own", "kept"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("text")
        (tmp_path / name / "program").write_text("#!/bin/sh\n")
        (tmp_path / name / "program").chmod(0o755)
    (tmp_path / "own/into").symlink_to(tmp_path / "kept")
    (tmp_path / "own/out").symlink_to("/nonexistent/secret")
    rules = PathRules(
        [PathAccess(f"{tmp_path}/system", READ | EXECUTE), PathAccess(f"{tmp_path}/own", READ | WRITE)],
        handled_rights(7),
    )
    return Judge(rules, [str(tmp_path)], [f"{tmp_path}/system"], tcp=True, port=3128)


def test_what_a_rule_covers_is_fine(judge: Judge, tmp_path: Path) -> None:
    fine = [
        Attempt(Act.OPEN, f"{tmp_path}/system/file"),
        Attempt(Act.OPEN, f"{tmp_path}/system"),
        Attempt(Act.OPEN, f"{tmp_path}/own/new", CREATE),
        Attempt(Act.OPEN, f"{tmp_path}/own/file", os.O_RDWR),
        Attempt(Act.EXECUTE, f"{tmp_path}/system/program"),
        Attempt(Act.REMOVE, f"{tmp_path}/own/file"),
        Attempt(Act.MAKE, f"{tmp_path}/own/folder"),
    ]
    assert [judge.judge(attempt) for attempt in fine] == [None] * len(fine)


def test_what_no_rule_covers_is_told_with_its_real_path(judge: Judge, tmp_path: Path) -> None:
    kept, system, own = (f"{tmp_path}/{name}" for name in ("kept", "system", "own"))
    told = {
        Attempt(Act.OPEN, f"{kept}/file"): ("fs.read", f"{kept}/file"),
        Attempt(Act.OPEN, f"{own}/../kept/file"): ("fs.read", f"{kept}/file"),
        Attempt(Act.OPEN, f"{system}/../kept/file"): ("fs.read", f"{kept}/file"),
        Attempt(Act.OPEN, f"{own}/into/file"): ("fs.read", f"{kept}/file"),
        Attempt(Act.OPEN, f"{kept}"): ("fs.list", kept),
        Attempt(Act.OPEN, f"{system}/file", os.O_WRONLY): ("fs.write", f"{system}/file"),
        Attempt(Act.OPEN, f"{system}/new", CREATE): ("fs.write", f"{system}/new"),
        Attempt(Act.EXECUTE, f"{own}/program"): ("process.execute", f"{own}/program"),
        Attempt(Act.REMOVE, f"{kept}/file"): ("fs.write", f"{kept}/file"),
        Attempt(Act.MAKE, f"{system}/folder/"): ("fs.write", f"{system}/folder"),
        Attempt(Act.TRUNCATE, f"{kept}/file"): ("fs.write", f"{kept}/file"),
    }
    assert {attempt: judge.judge(attempt) for attempt in told} == {
        attempt: Refused(*expected, LANDLOCK) for attempt, expected in told.items()
    }


def test_what_would_fail_anyway_is_no_refusal(judge: Judge, tmp_path: Path) -> None:
    kept = f"{tmp_path}/kept"
    plain = [
        Attempt(Act.OPEN, f"{kept}/missing"),
        Attempt(Act.EXECUTE, f"{kept}/missing"),
        Attempt(Act.EXECUTE, f"{kept}/file"),  # Not executable for anybody.
        Attempt(Act.REMOVE, f"{kept}/missing"),
        Attempt(Act.MAKE, f"{kept}/file"),
        Attempt(Act.OPEN, f"{kept}/file", CREATE | os.O_EXCL),
        Attempt(Act.OPEN, f"{tmp_path}/own", os.O_WRONLY),
        Attempt(Act.OPEN, f"{tmp_path}/own/out", os.O_NOFOLLOW),
        Attempt(Act.OPEN, f"{kept}/__pycache__/a.pyc", CREATE),
        Attempt(Act.MAKE, f"{kept}/__pycache__"),
        Attempt(Act.OPEN, f"/proc/{os.getpid()}/fd/999"),
    ]
    assert [judge.judge(attempt) for attempt in plain] == [None] * len(plain)


def test_outside_of_the_view_is_told_as_hidden_also_behind_a_link(judge: Judge, tmp_path: Path) -> None:
    assert judge.judge(Attempt(Act.OPEN, "/nonexistent/key")) == Refused("fs.read", "/nonexistent/key", VIEW)
    assert judge.judge(Attempt(Act.OPEN, f"{tmp_path}/own/out")) == Refused("fs.read", "/nonexistent/secret", VIEW)
    assert judge.judge(Attempt(Act.OPEN, "/nonexistent/new", CREATE)) == Refused("fs.write", "/nonexistent/new", VIEW)
    assert judge.judge(Attempt(Act.EXECUTE, "/nonexistent/bin/tool")) is None


def test_paths_may_be_as_deep_as_the_kernel_takes_them(tmp_path: Path) -> None:
    rules = PathRules([PathAccess(str(tmp_path), READ)], handled_rights(7))
    assert rules.allow(str(tmp_path) + "/d" * 2000, READ)
    assert not rules.allow("/d" * 2000, READ)


def test_a_link_that_changes_is_followed_again(judge: Judge, tmp_path: Path) -> None:
    link = tmp_path / "own/link"
    link.symlink_to(tmp_path / "own")
    assert judge.judge(Attempt(Act.OPEN, f"{link}/file")) is None
    link.unlink()
    link.symlink_to(tmp_path / "kept")
    judge.forget()
    assert judge.judge(Attempt(Act.OPEN, f"{link}/file")) == Refused("fs.read", f"{tmp_path}/kept/file", LANDLOCK)


def test_pipes_and_devices_are_no_paths(judge: Judge) -> None:
    reading, writing = os.pipe()
    try:
        assert judge.judge(Attempt(Act.OPEN, f"/proc/self/fd/{reading}")) is None
    finally:
        os.close(reading)
        os.close(writing)


def _ip4(host: str, port: int) -> bytes:
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)


def _ip6(host: str, port: int) -> bytes:
    return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0) + socket.inet_pton(socket.AF_INET6, host)


@pytest.mark.parametrize(
    ("act", "address", "protocol", "expected"),
    [
        (Act.CONNECT, _ip4("10.0.0.1", 80), "TCP", Refused("network.connect", "10.0.0.1:80", NETWORK)),
        (Act.CONNECT, _ip4("10.0.0.1", 53), "UDP", Refused("network.connect", "10.0.0.1:53", NETWORK)),
        (Act.CONNECT, _ip6("2001:db8::1", 443), "TCPv6", Refused("network.connect", "[2001:db8::1]:443", NETWORK)),
        (Act.CONNECT, _ip6("::ffff:10.0.0.1", 80), "TCPv6", Refused("network.connect", "10.0.0.1:80", NETWORK)),
        (Act.CONNECT, _ip4("127.0.0.1", 9), "TCP", Refused("network.connect", "127.0.0.1:9", LANDLOCK)),
        (Act.CONNECT, _ip4("127.0.0.1", 3128), "TCP", None),
        (Act.CONNECT, _ip4("127.0.0.1", 53), "UDP", None),
        (Act.CONNECT, _ip6("::1", 53), "UDPv6", None),
        (Act.BIND, _ip4("0.0.0.0", 8080), "TCP", Refused("network.listen", "0.0.0.0:8080", LANDLOCK)),
        (Act.BIND, _ip4("0.0.0.0", 0), "UDP", None),
        (Act.BIND, _ip6("::1", 0), "TCPv6", None),
        (Act.CONNECT, struct.pack("=H", socket.AF_UNSPEC) + bytes(14), "TCP", None),
        (Act.CONNECT, b"\x02", "TCP", None),
    ],
)
def test_addresses(judge: Judge, act: Act, address: bytes, protocol: str, expected: Refused | None) -> None:
    assert judge.judge_address(act, address, protocol) == expected


def test_names_that_each_process_has_for_itself() -> None:
    assert of_process("/proc/self/environ", 7) == "/proc/7/environ"
    assert of_process("/dev/stdin", 7) == "/proc/7/fd/0"
    assert of_process("/dev/fd/63", 7) == "/proc/7/fd/63"
    assert of_process("/proc/selfish", 7) == "/proc/selfish"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_asks_about_these_calls_and_refuses_none(machine: str) -> None:
    asked = numbers(machine)
    program = seccomp.notify_program(machine, tuple(asked))
    arch = AUDIT_ARCH[machine]
    for number in range(600):
        arguments = (0, 0, 0, 0, 0x7FFF12345678, 16)
        expected = seccomp.NOTIFY if number in asked else seccomp.ALLOW
        assert seccomp.simulate(program, arch, number, arguments) == expected, number
    sendto = next(number for number, name in asked.items() if name == "sendto")
    assert seccomp.simulate(program, arch, sendto) == seccomp.ALLOW
    assert seccomp.simulate(program, 0, next(iter(asked))) == seccomp.ALLOW


def test_every_call_has_something_to_read() -> None:
    assert all(bool(call.paths) != (call.address is not None) for call in CALLS.values())
