"""Files outside of its folder: to read, to change, to plant. Each as a command that policy would have let through."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fakes.cell import CANARY, Cell, cell
from toka_runtime.protocol.spec import ScopedGrant
from toka_runtime.sandbox.launcher import ForkServer

READS = [
    "cat ../secret.txt",
    "cat $OLDPWD/../secret.txt",
    "cat ./../a/../secret.txt",
    "cat planted",
    "cat folder/secret.txt",
    "cat /proc/self/cwd/../secret.txt",
    "cat /proc/self/root/etc/shadow",
    "cat /proc/1/root/etc/shadow",
    "cat /etc/shadow /etc/gshadow /etc/sudoers",
    "cat /proc/1/environ",
    "cat /proc/2/environ",
    "cat /proc/1/cwd/x",
    "cat /root/.ssh/id_rsa /root/.bashrc /home/*/.bashrc",
    "cat /proc/kcore",
    "head -c 10 /dev/mem",
    "head -c 10 /dev/kmsg",
    "head -c 10 /proc/kmsg",
    "head -c 10 /dev/sda /dev/vda",
    "ls /sys/fs/cgroup",
    "ls /sys",
    "ls /run",
    "ls /var/lib",
    "ls /home",
    "ls /root",
    "ls ..",
    "ln ../secret.txt mine",
    "ln -P planted mine && cat mine",
    "find / -xdev -name 'secret.txt' | grep .",
    "cp -r .. stolen && cat stolen/secret.txt",
    "tar cf - .. | grep -a canary",
    "python3 -c \"print(open('/' + '../' * 20 + 'etc/shadow').read())\"",
    "dmesg",
    "cat /proc/keys && cat /proc/key-users && cat /proc/1/stack",
]
WRITES = [
    "echo x > ../planted.txt",
    "echo x >> ../secret.txt",
    "echo x > planted",
    "touch /usr/bin/planted",
    "echo x > /etc/passwd",
    "echo x > /etc/ld.so.preload",
    "echo x > /etc/planted",
    "echo x > /planted",
    "echo x > /dev/planted",
    "mkdir /planted",
    "rm -f /etc/hosts",
    "mv hello.txt ../planted.txt",
    "ln hello.txt ../planted.txt",
    "chmod 777 ../secret.txt",
    "chmod 777 /usr/bin/env",
    "chmod 666 /dev/null",
    "chmod 777 /etc",
    "chmod 777 /",
    "chown 1 ../secret.txt",
    "chown 0:0 hello.txt",
    "chown 1 /usr/bin/env",
    "touch -d 2001-01-01 ../secret.txt",
    "touch -d 2001-01-01 /usr/bin/env",
    "touch -d 2001-01-01 /etc/hosts",
    "truncate -s 0 /usr/bin/env",
    "setfattr -n user.x -v y /usr/bin/env",
    "python3 -c \"import os; os.setxattr('/usr/bin/env', 'user.x', b'y')\"",
    "python3 -c \"import os; os.setxattr('hello.txt', 'security.capability', b'\\1\\0\\0\\2' + b'\\xff' * 16)\"",
    "echo x > /proc/sys/kernel/core_pattern",
    "echo x > /proc/sys/kernel/hostname",
    "echo 1 > /proc/sys/net/ipv4/ip_forward",
    "echo 0 > /proc/sys/kernel/yama/ptrace_scope",
    "echo b > /proc/sysrq-trigger",
    "echo 0 0 1 > /proc/self/uid_map",
    "echo -1000 > /proc/self/oom_score_adj",
    "echo x > /proc/self/attr/exec",
    "mkdir /sys/fs/cgroup/planted",
    "mount -t cgroup2 none /tmp",
    "mount --bind / /tmp",
    "mount -o remount,rw /",
    "umount /proc",
    "mknod null c 1 3",
    "mkfifo /run/planted",
    "swapon hello.txt",
    "sysctl -w vm.drop_caches=3",
    "su root -c true",
    "sudo -n true",
    "newgrp root",
    "date -s 2001-01-01",
    "hostname x",
]


@pytest.fixture
async def trapped(agent: Cell) -> Cell:
    """With links to the outside in its folder, as an earlier call could have planted them."""
    (agent.folder / "planted").symlink_to(agent.outside / "secret.txt")
    (agent.folder / "folder").symlink_to(agent.outside)
    return agent


def _state(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return (found.st_mode, found.st_uid, found.st_size, found.st_mtime_ns, found.st_nlink)


@pytest.mark.parametrize("command", READS)
async def test_not_to_be_read(trapped: Cell, command: str) -> None:
    outcome = await trapped.sh(f"set -o pipefail; ( {command} ) && echo WENT-THROUGH")
    assert "WENT-THROUGH" not in outcome.content, outcome.content
    assert CANARY not in outcome.content
    assert "root:" not in outcome.content.replace("root:x:0:0::/:/bin/false", "")
    assert await trapped.answers()


@pytest.mark.parametrize("command", WRITES)
async def test_not_to_be_changed(trapped: Cell, command: str) -> None:
    watched = [trapped.outside / "secret.txt", Path("/etc/passwd"), Path("/usr/bin/env"), Path("/dev/null"), Path("/")]
    before = [_state(path)[:4] for path in watched[:3]] + [_state(path)[:2] for path in watched[3:]]
    outcome = await trapped.sh(f"( {command} ) && echo WENT-THROUGH")
    assert "WENT-THROUGH" not in outcome.content, outcome.content
    assert [_state(path)[:4] for path in watched[:3]] + [_state(path)[:2] for path in watched[3:]] == before
    assert not (trapped.outside / "planted.txt").exists()
    assert await trapped.answers()


@pytest.mark.parametrize("top", ["/tmp", "/dev/shm", "/var/tmp"])
async def test_shared_scratch_is_not_shared(agent: Cell, neighbour: Cell, top: str) -> None:
    name = f"toka-{agent.outside.name}"
    await agent.sh(f"echo x > {top}/{name}")
    assert not Path(top, name).exists()
    assert not (await neighbour.sh(f"cat {top}/{name}")).ok
    host = Path(top, f"{name}-host")
    host.write_text(CANARY)
    try:
        assert CANARY not in (await agent.sh(f"cat {top}/* {host}")).content
    finally:
        host.unlink()


async def test_memory_shared_by_key_is_not_shared(agent: Cell, neighbour: Cell) -> None:
    """System V segments and message queues: a namespace of its own for each."""
    made = await agent.python("tell(call(29, 0x70ca, 4096, 0o1666))")
    assert made == "done"
    assert await neighbour.python("tell(call(29, 0x70ca, 4096, 0))") == "ENOENT"


async def test_a_file_with_a_second_name_outside_does_not_become_the_agents(server: ForkServer, base: Path) -> None:
    """Its folder held a hard link when it was started, to a file that only the operator may change."""
    outside = base / "settings.txt"
    outside.write_text("mine\n")
    outside.chmod(0o644)
    before = outside.stat()
    (base / "a").mkdir()
    os.link(outside, base / "a" / "link.txt")
    async with cell(server, base) as agent:
        assert outside.stat().st_uid == before.st_uid
        if os.getuid() == 0:
            # For an ordinary user the agent is that user: what lies in its folder is what it was given.
            assert not (await agent.sh("echo x >> link.txt")).ok
            assert outside.read_text() == "mine\n"
        assert await agent.answers()


async def test_what_may_only_be_read_cannot_be_changed_in_any_way(server: ForkServer, base: Path) -> None:
    async with cell(server, base, capabilities=("filesystem-read", "script-execution")) as agent:
        before = _state(agent.folder / "hello.txt")
        for change in (
            "echo x > hello.txt",
            "rm hello.txt",
            "chmod 777 hello.txt",
            "touch hello.txt",
            "ln hello.txt b",
        ):
            assert not (await agent.sh(change)).ok, change
        assert _state(agent.folder / "hello.txt") == before


async def test_a_scope_is_also_a_wall_for_modes_and_times(server: ForkServer, base: Path) -> None:
    (base / "a" / "docs").mkdir(parents=True)
    docs = ScopedGrant(capability="filesystem-write", scopes=("docs/**",))
    async with cell(server, base, grants=(docs,)) as agent:
        before = _state(agent.folder / "hello.txt")
        await agent.sh("chmod 777 hello.txt; touch -d 2001-01-01 hello.txt")
        assert _state(agent.folder / "hello.txt") == before


async def test_links_planted_for_the_runtime_are_only_links(trapped: Cell) -> None:
    """Giving the folder to the agent, at the next start, follows none of them."""
    secret = trapped.outside / "secret.txt"
    before = _state(secret)
    (trapped.folder / "etc").symlink_to("/etc")
    assert (await trapped.agent.kill()).confirmed
    assert _state(secret) == before
