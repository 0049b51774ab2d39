"""Agents whose namespaces bwrap has made, because the runtime may not: the same walls, the same proofs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from fakes.agents import FAKES, RunningTool, Watched, request, running, tree_of
from fakes.cell import CANARY, Cell, can_confine, cell, place
from fakes.only_bwrap import fork_servers_command
from toka_runtime.errors import SandboxUnavailable
from toka_runtime.protocol.spec import ScopedGrant
from toka_runtime.sandbox import bwrap, bwrap_walls, launcher
from toka_runtime.sandbox.launcher import ForkServer
from toka_runtime.sandbox.namespaces import Bind, PrimitiveMissing, View
from toka_runtime.sandbox.tree import members

pytestmark = pytest.mark.skipif(bwrap.find() is None or not can_confine(), reason="no bwrap or no Landlock here")


@pytest_asyncio.fixture
async def folder() -> AsyncIterator[Path]:
    async with place() as found:
        yield found


@pytest_asyncio.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ForkServer]:
    monkeypatch.setattr(launcher, "COMMAND", fork_servers_command())
    server = ForkServer(confine=True)
    yield server
    await server.aclose()


@pytest_asyncio.fixture
async def agent(server: ForkServer, folder: Path) -> AsyncIterator[Cell]:
    async with cell(server, folder) as found:
        yield found


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


async def test_a_worker_goes_through_a_task_and_that_bwrap_was_needed_is_on_record(agent: Cell) -> None:
    assert any("made by bwrap" in text and "Operation not permitted" in text for text in agent.agent.protections)
    channel = agent.agent.channel
    assert (await channel.receive() or {})["t"] == "ready"
    await channel.send({"t": "hello", "system": [], "tools": [], "limits": {}})
    await channel.send({"t": "task", "task": 3, "attempt": 1, "prompt": "Do it.", "history": []})
    asked = await channel.receive() or {}
    assert asked["append"] == [{"role": "user", "content": "Do it."}]
    await channel.send({"t": "model.result", "id": asked["id"], "ok": False, "code": "model.refused"})
    assert (await channel.receive() or {})["code"] == "model.refused"
    assert (await agent.tool("write_file", path="new.txt", content="text")).ok
    assert (agent.folder / "new.txt").read_text() == "text"
    await channel.send({"t": "bye"})
    assert await agent.agent.wait() == 0


async def test_nothing_of_the_launcher_is_in_there(
    server: ForkServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", CANARY)
    leak = os.open(folder, os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        async with cell(server, folder) as agent:
            assert server.zygote_pid is not None
            tree = members(server.zygote_pid)
            shim = agent.agent.process.pid
            # bwrap itself has gone; what it has started is the fork server's child.
            assert [comm(pid) for pid in tree] == ["toka:a", "toka:a worker"]
            assert tree[shim].parent == server.zygote_pid
            if os.getuid() == 0:
                assert Path(f"/proc/{shim}/environ").read_bytes() in (b"", b"PWD=/\0")
                opened = {os.readlink(path) for path in Path(f"/proc/{shim}/fd").iterdir()}
                assert not [path for path in opened if path.startswith("/") and path != "/dev/null"]
            found = await agent.sh("env; cat /proc/*/environ; ls -l /proc/self/fd")
            assert CANARY not in found.content
            assert str(folder) + "\n" not in found.content
    finally:
        os.close(leak)


async def test_the_listener_lies_on_the_agents_own_loopback(agent: Cell) -> None:
    listener = agent.agent.listener
    assert listener is not None
    with listener:
        port = listener.getsockname()[1]
        assert await agent.python(f"s = socket.socket()\ntell(attempt(lambda: s.connect(('127.0.0.1', {port}))))") in (
            "done",
            "EACCES",
        )
        assert "lo" in (await agent.sh("cut -d: -f1 /proc/net/dev | tail -n +3")).content.split()


ATTACKS = {
    "a file beside its folder": "attempt(lambda: open('../secret.txt').read())",
    "the host's users": "attempt(lambda: open('/etc/shadow').read())",
    "writing to system folders": "attempt(lambda: open('/usr/x', 'w'))",
    "the environment of process 1": "attempt(lambda: open('/proc/1/environ').read())",
    "the memory of process 1": "attempt(lambda: open('/proc/1/mem', 'rb').read(1))",
    "unix sockets": "attempt(lambda: socket.socket(socket.AF_UNIX))",
    "netlink": "attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))",
    "vsock": "attempt(lambda: socket.socket(socket.AF_VSOCK))",
    "io_uring": "call(425, 8, ctypes.addressof(ctypes.create_string_buffer(256)))",
    "keyctl": "call(250, 0, -3 & (2**64 - 1), 1)",
    "more namespaces": "call(272, 0x10000000)",
    "mounts": "call(165, b'none', b'/tmp', b'tmpfs', 0, None)",
    "host names": "attempt(lambda: socket.sethostname('x'))",
    "hosts": "attempt(lambda: socket.create_connection(('192.0.2.1', 80), 1))",
}


async def test_what_bwrap_alone_leaves_open_is_shut(agent: Cell) -> None:
    told = await agent.python("tell({" + ",".join(f"{name!r}: {act}" for name, act in ATTACKS.items()) + "})")
    refused = {"EPERM", "EACCES", "ENOENT", "EROFS", "EAFNOSUPPORT", "ENOSYS", "ENETUNREACH"}
    assert {name: answer for name, answer in told.items() if answer not in refused} == {}
    runtime = os.getpid()
    assert await agent.python(f"tell(attempt(lambda: os.kill({runtime}, 9)))") in ("ESRCH", "EPERM")
    status = (await agent.sh("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status")).content.split("\n")
    values = dict(line.split(":\t") for line in status if ":\t" in line)
    assert {value for name, value in values.items() if name.startswith("Cap")} == {"0" * 16}
    assert (values["NoNewPrivs"], values["Seccomp"]) == ("1", "2")


async def test_scopes_are_mounts_here_too(server: ForkServer, folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "a/other").mkdir()
    grants = (ScopedGrant(capability="filesystem-write", scopes=("docs/**",)),)
    async with cell(server, folder, grants=grants) as agent:
        assert (await agent.sh("touch docs/x && echo made")).content.startswith("made")
        refused = await agent.sh("touch other/x; chmod 777 hello.txt; echo x >> hello.txt; true")
        assert refused.content.count("Read-only file system") >= 2, refused.content
        assert not (folder / "a/other/x").exists()


async def test_pause_and_kill_are_proven(agent: Cell) -> None:
    command = "setsid sh -c 'trap \"\" TERM; echo up; while :; do (sleep 0.01) & done'"
    call = RunningTool(agent.agent, request(agent.folder, "run_command", command=command))
    await call.told()
    proof = await agent.agent.pause()
    assert proof.confirmed, proof
    assert not running(tree_of(agent.agent)[1:])
    assert (await agent.agent.resume()).confirmed
    watched = Watched(*tree_of(agent.agent))
    proof = await agent.agent.kill()
    assert proof.confirmed, proof
    await watched.all_gone(0.5)
    await call.end()


async def test_a_shim_that_is_killed_takes_its_tree_with_it_and_that_is_proven(agent: Cell) -> None:
    watched = Watched(*tree_of(agent.agent))
    os.kill(agent.agent.process.pid, signal.SIGKILL)
    assert await agent.agent.wait() == -signal.SIGKILL
    proof = await agent.agent.kill()
    assert proof.confirmed, proof
    await watched.all_gone(0.5)


async def test_a_dead_fork_server_takes_nobody_with_it(server: ForkServer, agent: Cell) -> None:
    first = server.zygote_pid
    assert first is not None
    watched = Watched(first)
    os.kill(first, signal.SIGKILL)
    await watched.all_gone()
    assert await agent.answers()
    assert (await agent.agent.pause()).confirmed
    assert (await agent.agent.resume()).confirmed


RUNTIME = """
import asyncio, json, sys
sys.path[:0] = sys.argv[1:2]
from pathlib import Path
from fakes.cell import cell
from fakes.only_bwrap import fork_servers_command
from toka_runtime.sandbox import launcher
from toka_runtime.sandbox.tree import members

async def main():
    launcher.COMMAND = fork_servers_command()
    server = launcher.ForkServer(confine=True)
    async with cell(server, Path(sys.argv[2])) as one, cell(server, Path(sys.argv[2]), "b") as other:
        await one.sh("setsid sleep 1000 & echo")
        await other.agent.pause()
        print(json.dumps([server.zygote_pid, *members(server.zygote_pid)]), flush=True)
        sys.stdin.read()

asyncio.run(main())
"""


async def test_no_process_outlives_a_runtime_that_is_killed(folder: Path) -> None:
    runtime = subprocess.Popen(
        [sys.executable, "-c", RUNTIME, str(Path(FAKES).parent), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert runtime.stdin is not None
    assert runtime.stdout is not None
    with runtime.stdin, runtime.stdout:
        pids = json.loads(await asyncio.to_thread(runtime.stdout.readline))
        assert len(pids) >= 5
        watched = Watched(*pids)
        os.kill(runtime.pid, signal.SIGKILL)
        await watched.all_gone()
    runtime.wait()


# -- when bwrap is asked, and when it is no help --------------------------------------------------------------------


async def refused(monkeypatch: pytest.MonkeyPatch, folder: Path, number: str, program: str, more: str = "") -> str:
    """What a launch is refused with, where bwrap is this shell script."""
    fake = folder / "bwrap"
    fake.write_text(f"#!/bin/sh\n{program}\n")
    fake.chmod(0o755)
    more = f"bwrap.PLACES = ({str(fake)!r},)\n{more}"
    monkeypatch.setattr(launcher, "COMMAND", fork_servers_command(number, more))
    server = ForkServer(confine=True)
    try:
        with pytest.raises(SandboxUnavailable) as caught:
            async with cell(server, folder):
                pass
        assert server.zygote_pid is not None
        assert members(server.zygote_pid) == {}
    finally:
        await server.aclose()
    assert caught.value.hint
    return caught.value.message


async def test_when_neither_works_both_reasons_are_told(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    said = "bwrap: setting up uid map: Permission denied"
    message = await refused(monkeypatch, folder, "errno.EPERM", f"echo {said!r} >&2; exit 1")
    assert "clone(CLONE_NEWPID | CLONE_NEWUSER): Operation not permitted" in message
    assert said in message


async def test_what_is_no_prohibition_is_not_worked_around(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    message = await refused(monkeypatch, folder, "errno.ENOSPC", f"touch {folder}/asked")
    assert "No space left on device" in message
    assert not (folder / "asked").exists()


async def test_a_bwrap_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    message = await refused(monkeypatch, folder, "errno.EACCES", "exec sleep 1000", "bwrap.READY_S = 0.2")
    assert "not ready within 0.2 s" in message


async def test_a_wall_that_is_missing_inside_is_told_and_nothing_runs(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """The real one, but a wall that the interpreter inside cannot build."""
    inside = "from toka_runtime.sandbox import seccomp; seccomp.install = lambda: 1 / 0; from "
    broken = f"bwrap.COMMAND = bwrap.COMMAND.replace('; from ', {'; ' + inside!r})"
    message = await refused(monkeypatch, folder, "errno.EPERM", f'exec {bwrap.find()} "$@"', broken)
    assert "ZeroDivisionError" in message


def test_only_the_making_of_namespaces_is_made_up_for() -> None:
    assert bwrap.forbidden(PrimitiveMissing(1, "unshare(namespaces)"))
    assert bwrap.forbidden(PrimitiveMissing(13, "write /proc/self/setgroups and the id maps"))
    assert not bwrap.forbidden(PrimitiveMissing(1, "mount proc on /new/proc"))
    assert not bwrap.forbidden(PrimitiveMissing(28, "unshare(namespaces)"))
    assert not bwrap.forbidden(PermissionError(1, "clone("))


def test_a_set_uid_bwrap_is_not_asked_for_what_it_refuses() -> None:
    view = View(binds=[Bind("/usr", "/usr")])
    assert "--size" in bwrap.arguments(view, (), (), user=True, sized=True)
    words = bwrap.arguments(view, (), (), user=True, sized=False)
    assert not {"--size", "--cap-drop", "--cap-add"} & set(words)


def test_a_link_that_is_put_in_the_place_of_a_wall_is_found(tmp_path: Path) -> None:
    for name in ("agent/docs", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    walls = {"root": str(tmp_path / "agent"), "writable": [], "read_only": ["docs"], "hidden": []}
    words, built = bwrap_walls.wall_arguments(walls, None)
    assert words[0] == "--ro-bind"
    with pytest.raises(OSError, match="the wall around docs"):
        # Nobody has mounted it.
        bwrap_walls.check_walls(walls, built)
    (tmp_path / "agent/docs").rmdir()
    (tmp_path / "agent/docs").symlink_to(tmp_path / "elsewhere")
    for act in (lambda: bwrap_walls.check_walls(walls, built), lambda: bwrap_walls.wall_arguments(walls, None)):
        with pytest.raises(OSError, match="docs"):
            act()
