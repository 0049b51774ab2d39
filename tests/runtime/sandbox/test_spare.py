"""A sandbox that was made before there was an agent: as good as one made for it, or not used."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import pytest

from fakes.agents import Watched
from fakes.child import in_child
from fakes.processes import alive
from toka_runtime.errors import SandboxUnavailable
from toka_runtime.protocol.capability import PathRule, Rights
from toka_runtime.protocol.ids import AgentName, RunId
from toka_runtime.sandbox import landlock, namespaces
from toka_runtime.sandbox.launcher import ForkServer
from toka_runtime.sandbox.namespaces import PrimitiveMissing
from toka_runtime.sandbox.plan import SandboxPlan
from toka_runtime.sandbox.spare import SpareSandbox
from toka_runtime.sandbox.tree import children

pytestmark = pytest.mark.skipif(landlock.abi() == 0, reason="no Landlock here")
WAIT_S = 10.0
NAMESPACES = ("mnt", "net", "ipc", "uts", "pid", "cgroup")


def plan(folder: Path) -> SandboxPlan:
    rule = PathRule(id="all", capability="all", glob="**")
    folder.mkdir()
    rights = Rights(read=(rule,), write=(rule,))
    return SandboxPlan(agent=AgentName(folder.name), run=RunId("r"), root=str(folder), rights=rights)


async def spare_of(server: ForkServer, *others: int) -> int:
    """The child of the fork server that no agent has, once there is one."""
    assert server.zygote_pid is not None
    async with asyncio.timeout(WAIT_S):
        while not (found := alive(set(children(server.zygote_pid))) - set(others)):
            await asyncio.sleep(0.005)
    assert len(found) == 1
    return found.pop()


async def test_the_next_agent_gets_it_with_all_that_the_first_one_has(tmp_path: Path) -> None:
    server = ForkServer(confine=True)
    try:
        first = await server.launch(plan(tmp_path / "first"))
        spare = await spare_of(server, first.process.pid)
        second = await server.launch(plan(tmp_path / "second"))
        assert second.process.pid == spare
        assert second.protections == first.protections
        statuses = [Path(f"/proc/{agent.worker_pid}/status").read_text().splitlines() for agent in (first, second)]
        for field in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Seccomp_filters"):
            one, other = ([line for line in status if line.startswith(f"{field}:")] for status in statuses)
            assert one == other
        if os.getuid() == 0:
            assert not {os.readlink(f"/proc/{first.process.pid}/ns/{name}") for name in NAMESPACES} & {
                os.readlink(f"/proc/{second.process.pid}/ns/{name}") for name in NAMESPACES
            }
            seen = [
                {line.split(" ")[4] for line in Path(f"/proc/{agent.process.pid}/mountinfo").read_text().splitlines()}
                for agent in (first, second)
            ]
            assert seen[0] - {str(tmp_path / "first")} == seen[1] - {str(tmp_path / "second")}
        assert await spare_of(server, first.process.pid, second.process.pid) != spare
    finally:
        await server.aclose()


async def test_it_ends_with_the_fork_server(tmp_path: Path) -> None:
    server = ForkServer(confine=True)
    try:
        agent = await server.launch(plan(tmp_path / "agent"))
        spare = await spare_of(server, agent.process.pid)
        assert server.zygote_pid is not None
        watched = Watched(spare)
        os.kill(server.zygote_pid, 9)
        await watched.all_gone()
    finally:
        await server.aclose()


async def test_one_that_has_died_is_missed_by_nobody(tmp_path: Path) -> None:
    server = ForkServer(confine=True)
    try:
        agent = await server.launch(plan(tmp_path / "agent"))
        os.kill(await spare_of(server, agent.process.pid), 9)
        assert (await server.launch(plan(tmp_path / "next"))).protections == agent.protections
    finally:
        await server.aclose()


BROKEN = """
import os
from toka_runtime.sandbox import namespaces
whole = namespaces.fill_root
def fill(view):
    if os.path.exists("/old%s"):
        raise namespaces.PrimitiveMissing(1, "fill")
    whole(view)
namespaces.fill_root = fill
def main(descriptor):
    return 0
"""


async def test_a_wall_that_fails_there_stops_the_agent(tmp_path: Path) -> None:
    code, broken = tmp_path / "code", tmp_path / "broken"
    code.mkdir()
    (code / "broken_later.py").write_text(BROKEN % broken)
    server = ForkServer(worker_main="broken_later:main", import_paths=[str(code)], confine=True)
    try:
        agent = await server.launch(plan(tmp_path / "agent"))
        spare = await spare_of(server, agent.process.pid)
        broken.touch()
        with pytest.raises(SandboxUnavailable, match="fill: Operation not permitted"):
            await server.launch(plan(tmp_path / "next"))
        assert not Path(f"/proc/{spare}").exists()
    finally:
        await server.aclose()


def ends(confinement: dict[str, Any], descriptors: list[int], listener: int) -> NoReturn:
    os._exit(0)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to mount without namespaces for it")
def test_what_was_mounted_since_is_not_missed() -> None:
    def act() -> str:
        namespaces.isolate_forked(None)
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        spare = SpareSandbox(lambda: None, ends)
        spare.fill(user=False)
        assert spare.pid
        subprocess.run(["mount", "-t", "tmpfs", "x", "/mnt"], check=True)
        return f"{spare.take({'user': False}, [], [])}, {spare.pid}"

    assert in_child(act) == "None, 0"


def test_control_groups_that_cannot_be_entered_stop_the_agent() -> None:
    def act() -> str:
        spare = SpareSandbox(lambda: None, ends)
        user = os.getuid() != 0
        spare.fill(user=user)
        pid = spare.pid
        try:
            spare.take({"user": user}, [], ["/not/there"])
        except PrimitiveMissing as error:
            return f"{error.primitive}, {spare.pid}, {alive({pid})}"
        return "taken"

    assert in_child(act) == "control group /not/there, 0, set()"
