"""A confined agent, whole: launched, worked with, paused, killed; and what its tools can't do."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.processes import alive
from toka_runtime.errors import SandboxUnavailable
from toka_runtime.policy.catalogue import load_catalogue
from toka_runtime.policy.rules import compile_rights
from toka_runtime.protocol.ids import AgentName, CallId, RunId
from toka_runtime.protocol.spec import AgentSpec, ScopedGrant, Security
from toka_runtime.sandbox import landlock
from toka_runtime.sandbox.launcher import ForkServer
from toka_runtime.sandbox.plan import AgentProcess, SandboxPlan, ToolOutcome, ToolRequest


def can_confine() -> bool:
    user = os.getuid() == 0 or subprocess.run(["unshare", "--user", "true"], check=False).returncode == 0
    return user and landlock.abi() > 0


pytestmark = pytest.mark.skipif(not can_confine(), reason="no user namespaces or no Landlock here")
ALL = ("filesystem-read", "filesystem-write", "script-execution")


@pytest.fixture
async def server() -> AsyncIterator[ForkServer]:
    server = ForkServer(confine=True)
    yield server
    await server.aclose()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # Below a folder that only its owner may enter, as homes are: the view must not depend on the way there.
    tmp_path.chmod(0o700)
    folder = tmp_path / "agent"
    (folder / "docs").mkdir(parents=True)
    (folder / "hello.txt").write_text("hello\n")
    (tmp_path / "secret.txt").write_text("canary\n")
    (folder / "link").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "scratch").mkdir()
    return folder


def plan(folder: Path, *capabilities: str, grants: tuple[ScopedGrant, ...] = ()) -> SandboxPlan:
    spec = AgentSpec(name=AgentName("a"), security=Security(capabilities_required=capabilities or ALL), grants=grants)
    scratch = folder.parent / "scratch"
    return SandboxPlan(
        agent=spec.name,
        run=RunId("r1"),
        root=str(folder),
        rights=compile_rights(spec, load_catalogue()),
        environment={"PATH": "/usr/bin:/bin", "HOME": str(scratch), "TMPDIR": str(scratch)},
        scratch=(str(scratch),),
    )


async def sh(agent: AgentProcess, folder: Path, command: str) -> ToolOutcome:
    request = ToolRequest(call=CallId("c"), tool="run_command", arguments={"command": command}, root=str(folder))
    return await agent.run_tool(request, lambda stream, data: None)


async def tool(agent: AgentProcess, folder: Path, name: str, **arguments: object) -> ToolOutcome:
    request = ToolRequest(call=CallId("c"), tool=name, arguments=dict(arguments), root=str(folder))
    return await agent.run_tool(request, lambda stream, data: None)


async def test_its_own_folder_works(server: ForkServer, folder: Path) -> None:
    agent = await server.launch(plan(folder))
    assert (await tool(agent, folder, "read_file", path="hello.txt")).ok
    assert (await tool(agent, folder, "write_file", path="new.txt", content="new\n")).ok
    outcome = await sh(agent, folder, "cat hello.txt new.txt; echo more >> new.txt; echo x > $HOME/x && echo scratch")
    assert outcome.ok, outcome
    assert "hello\nnew\nscratch" in outcome.content
    assert (folder / "new.txt").read_text() == "new\nmore\n"


@pytest.mark.parametrize(
    "command",
    [
        "cat ../secret.txt",
        "cat link",
        "cat /etc/shadow",
        "cat ~root/.bashrc",
        "ls ../secret.txt",
        "ls /home /root /var /run /sys",
        "cat /proc/1/environ",
        "cat /proc/1/mem",
        "ls /proc/1/fd /proc/1/root/",
        "touch /usr/bin/x",
        "touch /etc/x",
        "mount -t tmpfs none /mnt",
        "unshare --user true",
        "chroot /usr true",
        "mknod dev c 1 1",
        "kill -9 1; kill -0 1; kill -STOP 1",
        "sysctl -w kernel.hostname=x",
        "sh -c 'echo x > /proc/sys/kernel/core_pattern'",
        "su root -c true",
        "chown 0 hello.txt",
        "ping -c1 127.0.0.1",
        "bash -c 'echo > /dev/tcp/127.0.0.1/22'",
        "python3 -c 'import socket; socket.socket(socket.AF_UNIX)'",
        "python3 -c 'import socket; socket.create_server((\"127.0.0.1\", 0))'",
    ],
)
async def test_nothing_else_does(server: ForkServer, folder: Path, command: str) -> None:
    agent = await server.launch(plan(folder))
    outcome = await sh(agent, folder, f"( {command} ) && echo WENT-THROUGH")
    assert "WENT-THROUGH" not in outcome.content, outcome.content
    assert "canary" not in outcome.content
    assert (await sh(agent, folder, "echo alive")).content.startswith("alive")


async def test_a_file_tool_can_neither_run_programs_nor_write_where_only_reading_was_allowed(
    server: ForkServer, folder: Path
) -> None:
    agent = await server.launch(plan(folder, "filesystem-read"))
    outcome = await tool(agent, folder, "write_file", path="new.txt", content="x")
    assert not outcome.ok
    assert not (folder / "new.txt").exists()


async def test_a_scope_is_a_wall_too(server: ForkServer, folder: Path) -> None:
    docs = ScopedGrant(capability="filesystem-write", scopes=("docs/**",))
    agent = await server.launch(plan(folder, *ALL, grants=(docs,)))
    outcome = await sh(agent, folder, "echo in > docs/in.txt; echo out > out.txt; rm hello.txt; cat docs/in.txt")
    assert (folder / "docs/in.txt").read_text() == "in\n", outcome
    assert not (folder / "out.txt").exists()
    assert (folder / "hello.txt").exists()


async def test_a_scope_whose_folder_is_not_there_yet_can_be_written(server: ForkServer, folder: Path) -> None:
    deep = ScopedGrant(capability="filesystem-write", scopes=("notes/today/**",))
    agent = await server.launch(plan(folder, *ALL, grants=(deep,)))
    outcome = await tool(agent, folder, "write_file", path="notes/today/a.md", content="a\n")
    assert outcome.ok, outcome
    assert (folder / "notes/today/a.md").read_text() == "a\n"
    assert not (await tool(agent, folder, "write_file", path="notes/b.md", content="b\n")).ok


async def test_a_planted_link_does_not_widen_a_scope(server: ForkServer, folder: Path) -> None:
    (folder / "notes").symlink_to(folder.parent)
    scope = ScopedGrant(capability="filesystem-write", scopes=("notes/**",))
    agent = await server.launch(plan(folder, *ALL, grants=(scope,)))
    await sh(agent, folder, "echo x > notes/planted; echo y > ../planted; echo z > notes/secret.txt")
    assert not (folder.parent / "planted").exists()
    assert (folder.parent / "secret.txt").read_text() == "canary\n"


async def test_two_agents_do_not_see_each_other(server: ForkServer, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine").write_text("canary\n")
    first = await server.launch(plan(folder))
    second = await server.launch(plan(other).model_copy(update={"agent": AgentName("b")}))
    outcome = await sh(first, folder, f"cat {other}/mine; ls /proc | grep -c '^[0-9]'; ps ax | grep -c worker")
    assert "canary" not in outcome.content
    assert (await sh(second, other, "cat mine")).content.startswith("canary")


async def test_pause_and_kill_reach_all_of_it(server: ForkServer, folder: Path) -> None:
    agent = await server.launch(plan(folder))
    assert alive({agent.process.pid, agent.worker_pid}) == {agent.process.pid, agent.worker_pid}
    paused = await agent.pause()
    assert paused.confirmed
    stat = Path(f"/proc/{agent.worker_pid}/stat").read_text()
    assert stat.rpartition(")")[2].split()[0] == "T"
    assert (await agent.resume()).confirmed
    proof = await agent.kill()
    assert proof.confirmed
    assert alive({agent.process.pid, agent.worker_pid}) == set()


async def test_protections_are_told(server: ForkServer, folder: Path) -> None:
    agent = await server.launch(plan(folder))
    assert any("namespaces" in line for line in agent.protections)
    assert any("Landlock" in line for line in agent.protections)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
async def test_as_root_each_agent_is_a_user_of_its_own(server: ForkServer, folder: Path, tmp_path: Path) -> None:
    agent = await server.launch(plan(folder))
    memory = Path(f"/proc/{agent.worker_pid}/mem").stat()
    status = Path(f"/proc/{agent.worker_pid}/status").read_text()
    uid = int(next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1])
    assert 61184 <= uid <= 65519
    assert memory.st_uid == 0  # not its own user's: no process of that user may look into it
    assert (folder / "hello.txt").stat().st_uid == uid
    assert (tmp_path / "secret.txt").stat().st_uid == 0


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
async def test_as_root_the_operators_own_folder_is_refused(server: ForkServer, folder: Path) -> None:
    with pytest.raises(SandboxUnavailable, match="belongs to root"):
        await server.launch(plan(folder).model_copy(update={"own_folder": False}))
    assert (folder / "hello.txt").stat().st_uid == 0


async def test_what_cannot_be_confined_is_not_started(server: ForkServer, folder: Path) -> None:
    shutil.rmtree(folder.parent / "scratch")
    with pytest.raises(SandboxUnavailable, match="scratch"):
        await server.launch(plan(folder).model_copy(update={"scratch": (str(folder.parent / "scratch"),)}))
