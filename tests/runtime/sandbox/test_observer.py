"""The observer beside real confined commands: what the kernel refuses is told, while it happens, and nothing else."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.cell import Cell, can_confine, cell, place, system_python
from fakes.processes import alive
from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.protocol.capability import Layer
from toka_runtime.protocol.ids import CallId
from toka_runtime.sandbox import landlock
from toka_runtime.sandbox.launcher import ForkServer
from toka_runtime.sandbox.observer import KERNEL_OBSERVED
from toka_runtime.sandbox.observer_report import DISTINCT
from toka_runtime.sandbox.plan import KernelRefusal, ToolOutcome, ToolRequest
from toka_runtime.sandbox.tree import children

pytestmark = pytest.mark.skipif(not can_confine(), reason="no user namespaces or no Landlock here")

Told = tuple[str, str, str]


@pytest.fixture
async def base() -> AsyncIterator[Path]:
    async with place() as folder:
        yield folder


@pytest.fixture
async def agent(base: Path) -> AsyncIterator[Cell]:
    server = ForkServer(confine=True)
    try:
        async with cell(server, base) as found:
            yield found
    finally:
        await server.aclose()


class _Heard:
    """One command, and what its observer told."""

    def __init__(self, agent: Cell) -> None:
        self._agent = agent
        self.refusals: list[KernelRefusal] = []
        self.came = asyncio.Event()

    async def _take(self, refusal: KernelRefusal) -> None:
        self.refusals.append(refusal)
        self.came.set()

    async def run(self, command: str, *, timeout_s: float = 60.0) -> ToolOutcome:
        request = ToolRequest(
            call=CallId("c"),
            tool="run_command",
            arguments={"command": command},
            root=self._agent.plan.root,
            timeout_s=timeout_s,
        )
        return await self._agent.agent.run_tool(request, lambda stream, data: None, self._take)

    async def python(self, source: str) -> ToolOutcome:
        script = self._agent.folder / "program.py"
        script.write_text(source)
        script.chmod(0o644)
        return await self.run(f"{system_python()} -I program.py")

    @property
    def told(self) -> set[Told]:
        return {(refusal.kind.value, refusal.target, refusal.rule) for refusal in self.refusals}


async def test_a_secret_of_the_host_is_one_denial_with_target_call_and_layer(agent: Cell) -> None:
    await agent.ask("run_command", command=f"{system_python()} -I -c \"open('/etc/shad' + 'ow')\"")
    (event,) = agent.denials()
    assert event.denial.operation.target == "/etc/shadow"
    assert event.denial.operation.kind.value == "fs.read"
    assert (event.denial.operation.tool, event.denial.operation.call) == ("run_command", "c1")
    assert (event.denial.layer, event.denial.rule, event.count) == (Layer.SANDBOX, "sandbox:view", 1)


async def test_what_the_agent_has_is_said_at_its_start(agent: Cell) -> None:
    assert KERNEL_OBSERVED in agent.agent.protections


async def test_each_kind_of_refusal_has_its_exact_target(agent: Cell, base: Path) -> None:
    heard = _Heard(agent)
    outcome = await heard.python(
        f"""
import os, shutil, socket, subprocess
def refused(act, *arguments):
    try:
        act(*arguments)
    except OSError:
        return
    print("WENT THROUGH", act, arguments)
os.chdir("/usr")
refused(open, "{base}/secret.txt")
refused(open, "made", "w")
refused(os.mkdir, "/usr/folder")
refused(os.unlink, "bin/env")
refused(os.rename, "/usr/bin/env", "/usr/env")
refused(os.listdir, "/")
shutil.copy("/bin/true", "/tmp/mine")
os.chmod("/tmp/mine", 0o755)
refused(subprocess.run, ["/tmp/mine"])
refused(socket.socket().connect, ("10.0.0.1", 80))
refused(socket.socket().bind, ("127.0.0.1", 8080))
refused(socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto, b"x", ("192.0.2.1", 53))
"""
    )
    assert outcome.content == "(no output)"
    assert heard.told >= {
        ("fs.read", f"{base}/secret.txt", "sandbox:view"),
        ("fs.write", "/usr/made", "sandbox:landlock"),
        ("fs.write", "/usr/folder", "sandbox:landlock"),
        ("fs.write", "/usr/bin/env", "sandbox:landlock"),
        ("fs.write", "/usr/env", "sandbox:landlock"),
        ("fs.list", "/", "sandbox:landlock"),
        ("process.execute", "/tmp/mine", "sandbox:landlock"),
        ("network.connect", "10.0.0.1:80", "sandbox:network"),
        ("network.listen", "127.0.0.1:8080", "sandbox:landlock"),
        ("network.connect", "192.0.2.1:53", "sandbox:network"),
    }
    assert len(heard.told) == 10


async def test_it_is_told_while_the_command_runs(agent: Cell, base: Path) -> None:
    heard = _Heard(agent)
    running = spawn(heard.run(f"cat {base}/secret.txt; sleep 600"))
    try:
        async with asyncio.timeout(20):
            await heard.came.wait()
        assert not running.done()
    finally:
        await cancel_and_wait(running)
    assert heard.told == {("fs.read", f"{base}/secret.txt", "sandbox:view")}


async def test_ten_thousand_targets_are_bounded_and_none_is_lost(agent: Cell) -> None:
    heard = _Heard(agent)
    source = """
for number in range(10_000):
    try:
        open(f"/usr/no-{number}", "w")
    except OSError:
        pass
"""
    await heard.python(source)
    # Some of the places are taken by what is looked at and not told: it is missing for everybody.
    assert DISTINCT - 20 < len(heard.told) <= DISTINCT + 1
    assert sum(refusal.count for refusal in heard.refusals) == 10_000
    (rest,) = {refusal.target for refusal in heard.refusals} - {f"/usr/no-{number}" for number in range(10_000)}
    assert rest == ""


async def test_the_same_again_is_counted(agent: Cell) -> None:
    source = """
for number in range(1000):
    try:
        open("/usr/no", "w")
    except OSError:
        pass
"""
    heard = _Heard(agent)
    await heard.python(source)
    assert heard.told == {("fs.write", "/usr/no", "sandbox:landlock")}
    assert sum(refusal.count for refusal in heard.refusals) == 1000
    assert len(heard.refusals) < 100


_GIT = "git -c user.name=a -c user.email=a@b"


@pytest.mark.parametrize(
    ("needs", "command"),
    [
        ("ls", "ls -la && cat hello.txt | sort > out.txt && mv out.txt other.txt && rm other.txt && mkdir -p a/b"),
        (
            "find",
            "find . -name '*.txt' | xargs grep hello && sed -i s/h/j/ hello.txt && mktemp && tar cf x.tar hello.txt",
        ),
        (
            "git",
            f"git init -q . && git add -A && {_GIT} commit -qm x && git status && git log && git diff HEAD && git gc",
        ),
        ("make", "printf 'all:\\n\\techo made > made.txt\\n' > Makefile && make && make -n"),
        ("cc", "printf 'int main(void){return 0;}' > a.c && cc -o a.out a.c && ./a.out"),
        (
            "bash",
            "bash -lc 'echo hi' > /dev/null; cat < /dev/stdin; cat <(echo 1); id; date; locale; env; no-such-program",
        ),
        ("python3", "python3 -c 'import asyncio, json, multiprocessing, sqlite3, ssl, subprocess, tempfile' 2>&1"),
        ("python3", "python3 -c 'import socket; print(socket.getaddrinfo(\"localhost\", 80))'"),
    ],
)
async def test_ordinary_work_tells_nothing(agent: Cell, needs: str, command: str) -> None:
    if shutil.which(needs, path="/usr/bin:/bin") is None:
        pytest.skip(f"no {needs} here")
    heard = _Heard(agent)
    await heard.run(command)
    assert heard.told == set()


async def test_a_run_of_pytest_tells_nothing(agent: Cell) -> None:
    for name in ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments"):
        found = importlib.util.find_spec(name)
        assert found is not None
        assert found.origin is not None
        shutil.copytree(Path(found.origin).parent, agent.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    # What pytest asks for where the package of that name is not installed.
    (agent.folder / "py.py").write_text("import _pytest._py.error as error\nimport _pytest._py.path as path\n")
    (agent.folder / "test_it.py").write_text("def test_it(tmp_path):\n    (tmp_path / 'x').write_text('y')\n")
    heard = _Heard(agent)
    outcome = await heard.run(f"{system_python()} -m pytest -q test_it.py")
    assert "1 passed" in outcome.content
    assert heard.told == set()


async def test_an_observer_that_is_killed_ends_the_call_with_a_clear_error(agent: Cell) -> None:
    heard = _Heard(agent)
    running = spawn(heard.run("touch began; sleep 600"))
    async with asyncio.timeout(20):
        while not (agent.folder / "began").exists():
            await asyncio.sleep(0.01)
        observers = [pid for pid in _below(agent) if _title(pid).endswith("observer")]
        os.kill(observers[0], signal.SIGKILL)
        outcome = await running
    assert (outcome.ok, outcome.code) == (False, "tool.crashed")
    assert "SIGKILL" in outcome.content
    assert await agent.answers()


async def test_odd_arguments_do_not_end_the_observer(agent: Cell) -> None:
    heard = _Heard(agent)
    outcome = await heard.python(
        """
import ctypes, os
libc = ctypes.CDLL(None)
for pointer in (0, 1, 2**47, 2**63, 2**64 - 1):
    for number in (2, 257, 437, 59, 42, 49):
        libc.syscall(number, *[ctypes.c_ulong(pointer)] * 4)
for name in (b"\\xff\\xfe", b"a\\nb", b"", b"x" * 5000):
    try:
        os.open(b"/usr/" + name, os.O_CREAT | os.O_WRONLY)
    except OSError:
        pass
print("went on")
"""
    )
    assert outcome.content == "went on"
    assert len(heard.refusals) >= 2


async def test_a_command_cannot_reach_its_observer(agent: Cell) -> None:
    if landlock.abi() < 6:
        pytest.skip("no scope for signals in this kernel's Landlock")
    observer = "$(sed -n 's/^PPid:[^0-9]*//p' /proc/$PPID/status)"
    outcome = await _Heard(agent).run(f"cat /proc/{observer}/comm; kill -9 {observer} && echo reached; echo went on")
    assert "observer" in outcome.content
    assert "went on" in outcome.content
    assert "reached" not in outcome.content


async def test_a_tool_that_is_killed_is_told_as_before(agent: Cell) -> None:
    outcome = await _Heard(agent).run("kill -9 $PPID; sleep 600")
    assert (outcome.ok, outcome.code) == (False, "tool.crashed")
    assert "SIGKILL" in outcome.content


async def test_commands_are_paused_killed_and_counted_as_before(agent: Cell) -> None:
    heard = _Heard(agent)
    script = "while True:\n    open('hello.txt').close()\n"
    running = spawn(heard.python(script))
    async with asyncio.timeout(20):
        while len(_below(agent)) < 4:
            await asyncio.sleep(0.01)
        for _ in range(5):
            proof = await agent.agent.pause()
            assert proof.confirmed, proof
            assert (await agent.agent.resume()).confirmed
        tree = _below(agent)
        await cancel_and_wait(running)
        assert not alive(set(tree) - {agent.agent.worker_pid})


def _below(agent: Cell) -> list[int]:
    found: list[int] = []
    waiting = [agent.agent.process.pid]
    while waiting:
        below = children(waiting.pop())
        found += below
        waiting += below
    return found


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
