"""Using up the machine: processes, memory, descriptors, disk, output. Bounded in count and time even where they win."""

from __future__ import annotations

import asyncio
import hashlib
import resource
from pathlib import Path

import pytest

from fakes.cell import Cell, cell
from toka_runtime.aio import spawn
from toka_runtime.protocol.limits import LimitName, LimitOutcome
from toka_runtime.protocol.usage import ResourceLimits
from toka_runtime.sandbox.launcher import ForkServer
from toka_runtime.sandbox.tree import members

MIB = 1 << 20
LIMITS = ResourceLimits(processes=48, memory_bytes=256 * MIB, disk_bytes=16 * MIB)


async def test_a_fork_bomb_meets_the_limit(server: ForkServer, base: Path, neighbour: Cell) -> None:
    async with cell(server, base, limits=LIMITS) as agent:
        held = agent.agent.held.mechanism(LimitName.PROCESSES)
        told = await agent.python("""
born, problem = 0, ""
for _ in range(200):
    try:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        born += 1
    except OSError as error:
        problem = errno.errorcode[error.errno]
        break
tell([born, problem])
""")
        assert told[1] == "EAGAIN"
        assert told[0] < 48
        assert await agent.answers()
        assert len(members(agent.agent.process.pid)) == 1
    if held:
        assert [(event.limit, event.outcome) for event in agent.reached] == [
            (LimitName.PROCESSES, LimitOutcome.REFUSED)
        ]


async def test_the_shells_fork_bomb_can_be_killed(server: ForkServer, base: Path, neighbour: Cell) -> None:
    async with cell(server, base, limits=LIMITS) as agent:
        call = spawn(agent.sh("echo GO; bomb() { bomb | bomb & }; bomb; sleep 30", timeout_s=20))
        while "GO" not in "".join(agent.text):
            await agent.heard()
        assert await neighbour.answers()
        assert len(members(agent.agent.process.pid)) <= 48
        assert (await agent.agent.kill()).confirmed
        call.cancel()


async def test_the_shells_fork_bomb_ends_with_its_call(server: ForkServer, base: Path, neighbour: Cell) -> None:
    async with cell(server, base, limits=LIMITS) as agent:
        await agent.sh("bomb() { bomb | bomb & }; bomb; sleep 1", timeout_s=3)
        assert await agent.answers()
        assert len(members(agent.agent.process.pid)) == 1


@pytest.mark.parametrize(
    "eat",
    [
        "bytearray(512 << 20)",
        "[bytearray(1 << 20) for _ in range(512)]",
        "__import__('mmap').mmap(-1, 512 << 20, 0x22).write(b'x' * (300 << 20))",
    ],
)
async def test_a_memory_bomb_meets_the_limit(server: ForkServer, base: Path, neighbour: Cell, eat: str) -> None:
    async with cell(server, base, limits=LIMITS) as agent:
        told = await agent.python(f"""
try:
    tell(attempt(lambda: {eat} and None))
except MemoryError:
    tell("MemoryError")
""")
        assert told in {"MemoryError", "ENOMEM"}
        assert await agent.answers()


SHARED = {
    "mapped": """
held = mmap.mmap(-1, 400 << 20, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
for page in range(0, 400 << 20, 4096):
    held[page] = 1
""",
    "descriptors": """
for _ in range(28):
    os.write(os.memfd_create("x"), b"x" * (15 << 20))
""",
    "processes": """
for _ in range(4):
    if os.fork() == 0:
        # In one piece: a second copy would meet the limit of its own process, and end it before the others come.
        held = bytearray(100 << 20)
        held[::4096] = b"x" * (len(held) // 4096)
        time.sleep(60)
""",
}


@pytest.mark.parametrize("how", SHARED)
async def test_memory_of_a_whole_tree_meets_the_limit(
    server: ForkServer, base: Path, neighbour: Cell, how: str
) -> None:
    """What counts for no process's own limit counts for its agent: it ends, and the culprit is named."""
    async with cell(server, base, limits=LIMITS) as agent:
        held = agent.agent.held.mechanism(LimitName.MEMORY)
        eating = spawn(agent.python(f"import mmap\n{SHARED[how]}\ntime.sleep(60)"))
        async with asyncio.timeout(20):
            await agent.ended.wait()
        eating.cancel()
        assert await neighbour.answers()
    event = agent.reached[0]
    assert (event.limit, event.allowed) == (LimitName.MEMORY, 256 * MIB)
    assert event.culprit is not None
    assert "python" in event.culprit.command
    assert event.mechanism == (held or "watchdog")
    assert event.used <= 256 * MIB if held else event.used > 256 * MIB


async def test_no_process_leaves_its_control_groups(agent: Cell) -> None:
    told = await agent.python("""
mounts = open("/proc/self/mountinfo").read()
tell([os.path.exists("/sys/fs/cgroup"), "cgroup" in mounts, attempt(lambda: open("/sys/fs/cgroup/cgroup.procs", "w"))])
""")
    assert told == [False, False, "ENOENT"]


async def test_open_files_meet_the_limit(agent: Cell, neighbour: Cell) -> None:
    told = await agent.python("""
held, problem = [], ""
while len(held) < 20000:
    try:
        held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        problem = errno.errorcode[error.errno]
        break
tell([len(held), problem])
""")
    assert told[1] == "EMFILE"
    assert told[0] <= 4096
    assert await agent.answers()


@pytest.mark.parametrize("how", ["head -c 64M /dev/zero > big", "truncate -s 64M big", "fallocate -l 64M big"])
async def test_a_file_cannot_fill_the_disk(server: ForkServer, base: Path, how: str) -> None:
    async with cell(server, base, limits=LIMITS) as agent:
        outcome = await agent.sh(how)
        assert not outcome.ok
        assert (agent.folder / "big").stat().st_size <= 16 * MIB
        assert await agent.answers()


async def test_many_files_cannot_fill_the_disk(server: ForkServer, base: Path, neighbour: Cell) -> None:
    async with cell(server, base, limits=LIMITS) as agent:
        filling = spawn(
            agent.sh("n=0; while n=$((n+1)); [ $n -lt 400 ]; do head -c 10M /dev/zero > big$n || break; done")
        )
        async with asyncio.timeout(20):
            await agent.ended.wait()
        filling.cancel()
        assert await neighbour.answers()
        # 4 GB were meant; what was written until somebody looked is there.
        assert sum(path.stat().st_size for path in agent.folder.iterdir()) < 2000 * MIB
    event = agent.reached[0]
    assert (event.limit, event.outcome, event.allowed) == (LimitName.DISK, LimitOutcome.EXCEEDED, 16 * MIB)


async def test_a_processor_hog_keeps_to_its_share(server: ForkServer, base: Path, neighbour: Cell) -> None:
    async with cell(server, base, limits=ResourceLimits(cpu_fraction=0.25)) as agent:
        told = await agent.python("""
began = time.monotonic()
for _ in range(3):
    if os.fork() == 0:
        while True:
            pass
while time.monotonic() - began < 4:
    time.sleep(0.1)
os.killpg(0, 0)
used = 0.0
for pid in os.listdir("/proc"):
    if pid.isdecimal():
        fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
        used += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
tell(used / (time.monotonic() - began))
""")
        assert await neighbour.answers()
    assert told < 0.4
    assert [(event.limit, event.outcome) for event in agent.reached[:1]] == [(LimitName.CPU, LimitOutcome.SLOWED)]


@pytest.mark.parametrize("place", ["/dev/shm", "/tmp"])
async def test_private_scratch_is_small_and_goes_with_the_agent(agent: Cell, place: str) -> None:
    outcome = await agent.sh(f"head -c 400M /dev/zero > {place}/big; stat -c %s {place}/big; rm {place}/big")
    assert "No space left" in outcome.content
    assert f"\n{256 * MIB}\n" in f"\n{outcome.content}\n"
    assert not Path(place, "big").exists()
    assert await agent.answers()


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


FLOODS = {
    "a gigabyte": ("head -c 1000000000 /dev/zero", 1_000_000_000, b"\0" * 1_000_000, 1000),
    "ten million lines": ("yes x | head -n 10000000", 20_000_000, b"x\n" * 1_000_000, 10),
    "one line of 100 MB": ("head -c 100000000 /dev/zero | tr '\\0' a", 100_000_000, b"a" * 1_000_000, 100),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_of_output_is_cut(agent: Cell, neighbour: Cell, name: str) -> None:
    command, size, part, parts = FLOODS[name]
    digest = hashlib.sha256()
    for _ in range(parts):
        digest.update(part)
    before = _peak_bytes()
    flood = spawn(agent.sh(command, timeout_s=100))
    assert await neighbour.answers()
    outcome = await flood
    assert outcome.ok, outcome.content[-500:]
    assert len(outcome.content) <= 64_000
    assert (outcome.result_bytes, outcome.digest) == (size, digest.hexdigest())
    assert sum(len(text) for text in agent.text) < 10 * MIB
    assert _peak_bytes() - before < 64 * MIB
    assert await agent.answers()


@pytest.mark.parametrize("tool", ["read_file", "search_text"])
async def test_a_file_of_one_long_line_is_cut(agent: Cell, tool: str) -> None:
    with (agent.folder / "long.txt").open("wb") as file:
        for _ in range(100):
            file.write(b"a" * 1_000_000)
    (agent.folder / "long.txt").chmod(0o644)
    before = _peak_bytes()
    named: dict[str, object] = {"pattern": "a"} if tool == "search_text" else {}
    outcome = await agent.request(tool, {"path": "long.txt", **named})
    assert len(outcome.content) <= 70_000
    assert _peak_bytes() - before < 64 * MIB
    assert await agent.answers()


async def test_a_pattern_that_backtracks_for_ever_is_stopped(agent: Cell) -> None:
    (agent.folder / "a.txt").write_text("a" * 60 + "!\n")
    (agent.folder / "a.txt").chmod(0o644)
    outcome = await agent.tool("search_text", pattern="(a+)+$", path="a.txt", timeout_s=1.0)
    assert outcome.code == "tool.timeout"
    assert await agent.answers()


async def test_a_deep_tree_and_a_crowd_of_names_are_listed_in_bounds(agent: Cell) -> None:
    await agent.python("""
os.makedirs("crowd")
for number in range(5000):
    os.close(os.open(f"crowd/{number}" + "x" * 200, os.O_CREAT))
for _ in range(800):
    os.mkdir("deep")
    os.chdir("deep")
tell("made")
""")
    for pattern in ("**", "crowd/**"):
        outcome = await agent.tool("list_files", glob=pattern, limit=10_000)
        assert len(outcome.content) <= 64_000
    assert await agent.answers()
