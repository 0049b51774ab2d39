"""What the runtime knows and no agent may: credentials, its environment, its descriptors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fakes.cell import Cell, cell
from toka_runtime.sandbox.launcher import ForkServer
from toka_runtime.sandbox.tree import members

KEY = "sk-ant-canary-77aa31"


async def test_the_runtimes_environment_reaches_nobody(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "ANTHROPIC_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "GITHUB_TOKEN",
        "SSH_AUTH_SOCK",
        "BASH_ENV",
        "LD_PRELOAD_X",
    ):
        monkeypatch.setenv(name, KEY)
    server = ForkServer(confine=True)
    try:
        async with cell(server, base) as agent:
            found = await agent.sh(
                "env; set; cat /proc/*/environ /proc/*/cmdline /proc/self/mountinfo | tr '\\0' '\\n'; "
                "grep -rs sk-ant /etc /tmp /dev/shm $HOME . ; echo end"
            )
            assert found.content.rstrip().endswith("end")
            assert KEY not in found.content
            assert server.zygote_pid is not None
            tree = {server.zygote_pid, *members(server.zygote_pid)}
            assert agent.agent.worker_pid in tree
            for pid in tree:
                for name in ("environ", "cmdline"):
                    assert KEY.encode() not in _content(pid, name)
    finally:
        await server.aclose()


def _content(pid: int, name: str) -> bytes:
    """Hidden, for an ordinary user, by the walls that are tested here."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except PermissionError:
        return b""


async def test_the_environment_is_what_was_given_and_no_more(agent: Cell) -> None:
    told = set(await agent.python("tell(list(os.environ))"))
    assert told <= {"PATH", "HOME", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"}


async def test_only_three_descriptors_are_inherited(agent: Cell, tmp_path: Path) -> None:
    """Not the line to the runtime, not the shim's, and nothing that the runtime held open without closing on exec."""
    leak = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        told = await agent.python("""
def what(number):
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return ""
tell({number: what(number) for number in range(4096) if what(number)})
""")
    finally:
        os.close(leak)
    assert sorted(told) == ["0", "1", "2"]
    assert told["0"] == "/dev/null"
    assert all(told[name].startswith("pipe:") for name in "12")


async def test_standard_input_of_the_host_is_no_way_out(agent: Cell) -> None:
    told = await agent.python("""
tell([attempt(lambda: os.listdir(f"/proc/self/fd/{number}/..") and None) for number in (0, 1, 2)]
     + [attempt(lambda: os.open("..", os.O_RDONLY, dir_fd=number) and None) for number in (0, 1, 2)])
""")
    assert set(told) == {"ENOTDIR"}, told


async def test_core_dumps_are_off(agent: Cell) -> None:
    told = await agent.python("import resource\ntell(resource.getrlimit(resource.RLIMIT_CORE))")
    assert told == [0, 0]
    await agent.sh("sh -c 'kill -SEGV $$'")
    assert not list(agent.folder.glob("core*"))


async def test_its_mounts_tell_no_names_of_other_folders(agent: Cell, neighbour: Cell) -> None:
    """Paths of other agents and of the operator's home are no secret of the first order, but nobody needs them."""
    seen = (await agent.sh("cat /proc/self/mountinfo")).content
    assert str(neighbour.folder) not in seen
    assert "overlay" not in (await agent.sh("cat /proc/self/mounts")).content or "upperdir=/root" not in seen
