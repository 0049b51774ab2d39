"""Processes that try to stay, to hide, or to touch those that guard them."""

from __future__ import annotations

import asyncio
import os

import pytest

from fakes.cell import Cell
from fakes.processes import alive, processes_naming
from toka_runtime.aio import spawn
from toka_runtime.sandbox.tree import members

STAY = """
import pathlib
for number in range(15):
    signal.signal(number, signal.SIG_IGN) if number not in (0, 9) else None
def daemon():
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    os.setsid()
    print("STAYED", os.getpid(), flush=True)
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    for _ in range(600):
        time.sleep(0.1)
    os._exit(0)
"""


async def test_what_a_call_leaves_behind_ends_with_it(agent: Cell, neighbour: Cell) -> None:
    before = _tree(agent)
    await agent.python(STAY + "for _ in range(20): daemon()\ntime.sleep(0.5)\ntell('left')")
    assert _tree(agent) == before
    assert await agent.answers()


async def test_nothing_survives_a_kill(agent: Cell, neighbour: Cell) -> None:
    call = spawn(agent.python(STAY + "for _ in range(20): daemon()\nprint('HERE', flush=True)\ntime.sleep(60)"))
    async with asyncio.timeout(60):
        while "".join(agent.text).count("STAYED") < 20:
            await agent.heard()
    pids = _tree(agent)
    assert len(pids) > 20
    proof = await agent.agent.kill()
    await asyncio.wait([call])
    call.exception()
    assert proof.confirmed
    assert alive(pids) == set()
    assert processes_naming(str(agent.folder)) == []


async def test_a_process_that_forks_faster_than_one_can_look_is_killed(agent: Cell, neighbour: Cell) -> None:
    """Each child forks the next and ends: any list of processes is old when it is read."""
    chase = (
        "print('RUNS', flush=True)\nfor _ in range(200000):\n    if os.fork():\n        os._exit(0)\n    os.setsid()\n"
    )
    call = spawn(agent.python(chase))
    async with asyncio.timeout(60):
        while "RUNS" not in "".join(agent.text):
            await agent.heard()
    proof = await agent.agent.kill()
    await asyncio.wait([call])
    call.exception()
    assert proof.confirmed
    assert processes_naming(str(agent.folder)) == []


GUARDS = {
    "kill": "os.kill(PID, 9)",
    "stop": "os.kill(PID, 19)",
    "terminate": "os.kill(PID, 15)",
    "pidfd signal": "signal.pidfd_send_signal(os.pidfd_open(PID), 9)",
    "queue": "call(129, PID, 9, ctypes.addressof(ctypes.create_string_buffer(128)))",
    "one thread": "call(234, PID, PID, 9)",
    "memory": "open('/proc/PID/mem', 'rb+')",
    "memory, reading": "open('/proc/PID/mem', 'rb')",
    "environment": "open('/proc/PID/environ', 'rb')",
    "map": "open('/proc/PID/maps').read(1) and None",
    "descriptors": "os.listdir('/proc/PID/fd') and None",
    "root": "os.listdir('/proc/PID/root/') and None",
    "folder": "os.listdir('/proc/PID/cwd/') and None",
    "adjusting": "open('/proc/PID/oom_score_adj', 'w').write('1000')",
    "name": "open('/proc/PID/comm', 'w').write('x')",
    "stack": "open('/proc/PID/stack').read()",
    "namespaces": "os.readlink('/proc/PID/ns/mnt') and None",
    "attach": "call(101, 0x4206, PID, 0, 0)",
    "descriptor": "call(438, os.pidfd_open(PID), 3, 0)",
}


ENDING = {"kill", "stop", "terminate", "pidfd signal", "queue", "one thread"}
"""A program may end the call that it belongs to: that is no attack."""
TARGETS = [
    (who, name)
    for who in ("process 1", "the worker", "the tool")
    for name in GUARDS
    if who != "the tool" or name not in ENDING
]


@pytest.mark.parametrize(("who", "name"), TARGETS)
async def test_its_guards_are_out_of_reach(agent: Cell, who: str, name: str) -> None:
    find = {"process 1": "1", "the worker": "2", "the tool": "os.getppid()"}[who]
    told = await agent.python(f"""
pid = {find}
if {who == "the tool"!r}:
    # Above the shell: the process that holds the line to the runtime.
    while open(f"/proc/{{pid}}/status").read().split("Name:")[1].split()[0] in ("bash", "sh"):
        pid = int(open(f"/proc/{{pid}}/status").read().split("PPid:")[1].split()[0])
act = {GUARDS[name]!r}.replace("PID", str(pid))
tell(attempt(lambda: eval(act)))
""")
    assert told in {"EPERM", "EACCES", "ESRCH", "ENOENT"}, told
    assert await agent.answers()
    assert alive({agent.agent.process.pid, agent.agent.worker_pid}) == {
        agent.agent.process.pid,
        agent.agent.worker_pid,
    }


async def test_process_1_is_deaf_to_its_own(agent: Cell, neighbour: Cell) -> None:
    """All signals there are, and to everybody at once: only the caller's own call ends."""
    await agent.python("for number in range(1, 65): attempt(lambda: os.kill(1, number))")
    await agent.python("for number in range(1, 65): attempt(lambda: os.kill(2, number))")
    await agent.python("os.kill(-1, 9)")
    assert await agent.answers()
    assert alive({agent.agent.worker_pid, os.getpid()}) == {agent.agent.worker_pid, os.getpid()}


async def test_the_runtime_and_other_agents_have_no_number_inside(agent: Cell, neighbour: Cell) -> None:
    strangers = [os.getpid(), os.getppid(), neighbour.agent.process.pid, neighbour.agent.worker_pid]
    told = await agent.python(f"""
tell({{pid: [attempt(lambda: os.kill(pid, 0)), attempt(lambda: os.pidfd_open(pid) and None),
             attempt(lambda: os.stat(f"/proc/{{pid}}/mem") and None), call(302, pid, 7, 0, 0),
             call(310, pid, 0, 0, 0, 0, 0), attempt(lambda: os.setpriority(0, pid, 19)),
             open("/proc/self/cmdline").read()] for pid in {strangers} if pid > 200}})
""")
    for answers in told.values():
        assert "done" not in answers, answers
    listed = (await agent.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")).content
    assert "pytest" not in listed
    assert f"toka:{neighbour.plan.agent}" not in listed.replace("toka:a", "")


async def test_no_descriptor_of_proc_leads_outside(agent: Cell) -> None:
    told = await agent.python(f"""
found = set()
for pid in [name for name in os.listdir("/proc") if name.isdigit()] + ["self", "thread-self"]:
    for way in ("root", "cwd", f"task/{{pid}}/root", "fd/0", "fd/3", "map_files"):
        for path in ("etc/shadow", "{agent.outside}/secret.txt", "../secret.txt"):
            found.add(attempt(lambda: os.close(os.open(f"/proc/{{pid}}/{{way}}/{{path}}", os.O_RDONLY))))
tell(sorted(found))
""")
    assert set(told) <= {"EACCES", "EPERM", "ENOENT", "ENOTDIR", "ENXIO", "ELOOP"}
    assert await agent.answers()


def _tree(cell: Cell) -> set[int]:
    return set(members(cell.agent.process.pid))
