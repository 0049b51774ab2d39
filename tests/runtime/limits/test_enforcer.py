"""Which mechanism holds the limits: version 2 by its file protocol, and whatever this host has for real."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.cgroup import FakeCgroup2
from toka_runtime.limits.cgroup_files import Places, own_places
from toka_runtime.limits.enforcer import Enforcer, Held, branch_name, remove_stale
from toka_runtime.protocol.ids import RunId
from toka_runtime.protocol.limits import LimitName
from toka_runtime.protocol.usage import ResourceLimits

MIB = 1 << 20
OWN = Path("/cg/user.slice/toka.scope")
ALL = {LimitName.MEMORY, LimitName.CPU, LimitName.PROCESSES}
LIMITS = ResourceLimits(memory_bytes=64 * MIB, cpu_fraction=0.25)


def opened(files: FakeCgroup2) -> Enforcer:
    return Enforcer.open(Places(OWN, {}), files)


# -- version 2 --------------------------------------------------------------------------------------------------------


def test_a_delegated_group_is_divided_and_left_as_it_was() -> None:
    files = FakeCgroup2(OWN)
    enforcer = opened(files)
    assert enforcer.problem == ""
    assert {limit for limit in LimitName if enforcer.mechanism(limit)} == ALL
    assert files.all[OWN].procs == set()
    held = enforcer.prepare(RunId("r1"), LIMITS, processes=48)
    (folder,) = map(Path, held.groups)
    written = files.all[folder].files
    assert written["memory.max"] == str(64 * MIB)
    assert written["memory.swap.max"] == "0"
    assert written["memory.oom.group"] == "1"
    assert written["pids.max"] == "48"
    assert written["cpu.max"] == "25000 100000"
    assert held.close()
    enforcer.close()
    assert list(files.all) == [OWN]
    assert files.all[OWN].procs == {os.getpid()}
    assert files.all[OWN].given == set()


def test_one_process_goes_where_the_agent_is_to_be_paused() -> None:
    files = FakeCgroup2(OWN)
    held = opened(files).prepare(RunId("r1"), LIMITS, processes=48, whole=False)
    assert files.all[Path(held.groups[0])].files["memory.oom.group"] == "0"


def test_a_group_shared_with_others_gives_no_limits_but_freezes_and_kills() -> None:
    files = FakeCgroup2(OWN, procs=(4242,))
    enforcer = opened(files)
    assert "other processes" in enforcer.problem
    assert not any(enforcer.mechanism(limit) for limit in LimitName)
    held = enforcer.prepare(RunId("r1"), LIMITS, processes=48)
    assert held.limits == frozenset()
    assert held.freezer is not None
    assert held.freezer.freeze(1.0)
    assert held.freezer.frozen()
    enforcer.close()
    assert files.all[OWN].procs == {os.getpid(), 4242}
    assert list(files.all) == [OWN]


def test_only_what_is_offered_is_held() -> None:
    enforcer = opened(FakeCgroup2(OWN, "memory pids"))
    assert enforcer.mechanism(LimitName.CPU) == ""
    assert enforcer.mechanism(LimitName.MEMORY) == "cgroup v2 memory.max"


def test_what_the_kernel_counts_is_read() -> None:
    files = FakeCgroup2(OWN)
    held = opened(files).prepare(RunId("r1"), LIMITS, processes=48)
    group = files.all[Path(held.groups[0])]
    group.files |= {
        "memory.events": "low 0\nmax 7\noom 1\noom_kill 3",
        "memory.peak": "1000",
        "pids.events": "max 5",
        "cpu.stat": "usage_usec 9\nthrottled_usec 2500000",
    }
    counts = held.counts()
    assert counts == (3, 5, 2.5)
    assert held.memory_peak_bytes() == 1000


def test_a_group_that_still_holds_processes_is_left_and_then_killed() -> None:
    files = FakeCgroup2(OWN)
    enforcer = opened(files)
    held = enforcer.prepare(RunId("r1"), LIMITS, processes=48)
    (folder,) = map(Path, held.groups)
    files.all[folder].procs = {4242}
    enforcer.close()
    assert list(files.all) == [OWN]


def test_what_the_run_is_called_is_no_path() -> None:
    files = FakeCgroup2(OWN)
    enforcer = opened(files)
    for hostile in ("../../x", "a/b", "", "x" * 300, "ü\n"):
        (folder,) = map(Path, enforcer.prepare(RunId(hostile), LIMITS, processes=48).groups)
        assert folder.parent == OWN / branch_name(os.getpid())
        assert len(folder.name) < 80


def test_what_a_dead_runtime_left_goes_and_a_living_ones_stays() -> None:
    files = FakeCgroup2(OWN)
    namespace = os.stat("/proc/self/ns/pid").st_ino
    dead, reused, alive = f"toka-{namespace}-4000000-1", f"toka-{namespace}-1-1", branch_name(os.getppid())
    elsewhere, other = f"toka-{namespace + 1}-4000000-1", "system.slice"
    for name in (dead, reused, alive, elsewhere, other):
        files.make(OWN / name)
    files.make(OWN / dead / "3-r1")
    files.all[OWN / dead / "3-r1"].procs = {4242}
    assert sorted(remove_stale(OWN, files)) == sorted([dead, reused])
    assert {path.name for path in files.groups(OWN)} == {alive, elsewhere, other}


def test_without_control_groups_nothing_is_held_and_nothing_breaks(tmp_path: Path) -> None:
    enforcer = Enforcer.open(Places(tmp_path / "missing", {"memory": tmp_path / "missing"}))
    assert enforcer.problem
    held = enforcer.prepare(RunId("r1"), LIMITS, processes=48)
    assert (held.groups, held.limits, held.freezer, held.killer) == ((), frozenset(), None, None)
    assert held.close()
    enforcer.close()


# -- this host --------------------------------------------------------------------------------------------------------


@pytest.fixture
def enforcer() -> Iterator[Enforcer]:
    found = Enforcer.open()
    yield found
    found.close()


def inside(held: Held, program: str) -> subprocess.Popen[bytes]:
    """It has entered its groups when it says so."""
    enter = f"for place in {held.groups!r}: open(place + '/cgroup.procs', 'w').write('0')\nprint('in', flush=True)\n"
    process = subprocess.Popen([sys.executable, "-c", enter + program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"in\n"
    return process


def needs(enforcer: Enforcer, *limits: LimitName) -> None:
    for limit in limits:
        if not enforcer.mechanism(limit):
            pytest.skip(f"no control group holds {limit} here: {enforcer.problem}")


def test_memory_is_held_by_the_kernel(enforcer: Enforcer) -> None:
    needs(enforcer, LimitName.MEMORY)
    held = enforcer.prepare(RunId("r1"), ResourceLimits(memory_bytes=64 * MIB), processes=48)
    process = inside(held, "import os\nfile = os.memfd_create('x')\nwhile True: os.write(file, b'x' * (1 << 20))")
    assert process.wait(timeout=20) == -9
    counts = held.counts()
    assert counts.memory_kills == 1
    assert 60 * MIB < held.memory_peak_bytes() <= 64 * MIB
    assert held.close()


def test_processes_are_held_and_refusals_counted(enforcer: Enforcer) -> None:
    needs(enforcer, LimitName.PROCESSES)
    held = enforcer.prepare(RunId("r1"), ResourceLimits(), processes=5)
    process = inside(
        held,
        """
import os, time
born = 0
try:
    while born < 50:
        if os.fork() == 0:
            time.sleep(60)
        born += 1
except BlockingIOError:
    print(born, flush=True)
    time.sleep(60)
""",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"4\n"
    assert (held.counts().refused_processes or 0) >= 1
    if held.killer is not None:
        assert held.killer.kill(2.0) == ()
    else:
        subprocess.run(["pkill", "-9", "-P", str(process.pid)], check=False)
        process.kill()
    assert process.wait(timeout=5) == -9
    assert held.close()


def test_processor_time_is_held(enforcer: Enforcer) -> None:
    needs(enforcer, LimitName.CPU)
    held = enforcer.prepare(RunId("r1"), ResourceLimits(cpu_fraction=0.2), processes=48)
    program = (
        "import os, time\nend = time.monotonic() + 2\nwhile time.monotonic() < end: pass\nprint(time.process_time())"
    )
    process = inside(held, program)
    said, _ = process.communicate(timeout=30)
    assert float(said) < 0.2 * 2 * 1.5
    assert (held.counts().held_back_s or 0) > 0.5
    assert held.close()


def test_a_whole_tree_stands_still_and_dies_while_it_does(enforcer: Enforcer) -> None:
    held = enforcer.prepare(RunId("r1"), ResourceLimits(), processes=48)
    if held.freezer is None or held.killer is None:
        pytest.skip(f"no control group freezes here: {enforcer.problem}")
    process = inside(
        held,
        """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()
if os.fork() == 0:
    os.setsid()
while True:
    pass
""",
    )
    assert held.freezer.freeze(2.0)
    before = _ticks(process.pid)
    time.sleep(0.1)  # what is measured is that nothing happens
    assert _ticks(process.pid) == before
    assert held.freezer.frozen()
    assert held.killer.kill(2.0) == ()
    assert process.wait(timeout=5) == -9
    assert held.close()


def test_thawed_it_goes_on(enforcer: Enforcer) -> None:
    held = enforcer.prepare(RunId("r1"), ResourceLimits(), processes=48)
    if held.freezer is None or held.killer is None:
        pytest.skip(f"no control group freezes here: {enforcer.problem}")
    process = inside(held, "print('on', flush=True)\nimport signal\nsignal.pause()")
    assert held.freezer.freeze(2.0)
    assert held.freezer.thaw(2.0)
    assert process.stdout is not None
    assert process.stdout.readline() == b"on\n"
    assert held.killer.kill(2.0) == ()
    process.wait()


def test_a_real_delegated_version_2_group() -> None:
    places = own_places()
    found = Enforcer.open(Places(places.v2, {}))
    try:
        if found.problem:
            pytest.skip(f"this host delegates no version 2 controllers: {found.problem}")
        test_memory_is_held_by_the_kernel(found)
        test_processes_are_held_and_refusals_counted(found)
        test_processor_time_is_held(found)
    finally:
        found.close()


def test_a_runtime_that_was_killed_leaves_nothing_behind_for_long(enforcer: Enforcer) -> None:
    if enforcer.prepare(RunId("r0"), ResourceLimits(), processes=8).freezer is None:
        pytest.skip(f"no control groups here: {enforcer.problem}")
    program = (
        "from toka_runtime.limits.enforcer import Enforcer\nfrom toka_runtime.protocol.usage import ResourceLimits\n"
        "import os, subprocess, sys\nheld = Enforcer.open().prepare('r1', ResourceLimits(), processes=8)\n"
        "child = subprocess.Popen(['sleep', '60'], stdout=-3, stderr=-3)\n"
        "for place in held.groups: open(place + '/cgroup.procs', 'w').write(str(child.pid))\n"
        "print(held.groups[0], child.pid, flush=True)\nos.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    group, pid = done.stdout.split()
    child = os.pidfd_open(int(pid))
    assert Path(group).exists()
    Enforcer.open().close()
    assert not Path(group).exists()
    assert not Path(group).parent.exists()
    assert select.select([child], [], [], 5.0)[0] == [child]
    os.close(child)


def _ticks(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
