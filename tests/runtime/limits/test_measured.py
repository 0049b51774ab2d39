"""What is measured where the kernel does not count: processor time, storage, memory, and the kernel's own words."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toka_runtime.limits.disk import MAX_DEPTH, DiskGauge, measure
from toka_runtime.limits.duty_cycle import BURST_S, DutyCycle
from toka_runtime.limits.enforcer import Held
from toka_runtime.limits.kernel_log import KernelLog
from toka_runtime.limits.proc_files import parse_stat
from toka_runtime.limits.tree_watch import CALM_S, TENSE_S, Folders, TreeWatch, command_of
from toka_runtime.protocol.ids import ProcessRef
from toka_runtime.protocol.limits import LimitName, LimitOutcome
from toka_runtime.protocol.usage import ResourceLimits

MIB = 1 << 20

# -- processor time ---------------------------------------------------------------------------------------------------


@given(
    fraction=st.floats(0.05, 1.5),
    demand=st.floats(0.0, 4.0),
    looks=st.lists(st.floats(0.02, 0.4), min_size=40, max_size=60),
)
def test_the_share_holds_on_average_whoever_asks_for_how_much(
    fraction: float, demand: float, looks: list[float]
) -> None:
    duty, now, used = DutyCycle(fraction, 0.0), 0.0, 0.0
    for passed in looks:
        now += passed
        used += 0.0 if duty.still else demand * passed
        duty.step(now, used)
    # At most what it was stopped too late for, once.
    assert used <= fraction * (now + BURST_S) + 0.4 * demand
    if demand <= fraction:
        assert not duty.still
        assert duty.still_s == 0


def test_a_hog_gets_its_share_and_not_less() -> None:
    duty, now, used = DutyCycle(0.25, 0.0), 0.0, 0.0
    for _ in range(400):
        now += 0.05
        used += 0.0 if duty.still else 2 * 0.05
        duty.step(now, used)
    assert 0.24 < used / now < 0.28


# -- storage ----------------------------------------------------------------------------------------------------------


def test_links_and_second_names_count_once_and_holes_not_at_all(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "big").write_bytes(b"x" * 8 * MIB)
    folder = tmp_path / "folder"
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/file").write_bytes(b"x" * 2 * MIB)
    os.link(folder / "a/b/file", folder / "again")
    (folder / "link").symlink_to(outside)
    os.truncate(os.open(folder / "hole", os.O_CREAT | os.O_WRONLY), 64 * MIB)
    total, complete = measure([str(folder)])
    assert complete
    assert 2 * MIB <= total < 3 * MIB


def test_a_tree_deeper_than_anyone_needs_is_not_complete(tmp_path: Path) -> None:
    descriptors = [os.open(tmp_path, os.O_RDONLY)]
    for _ in range(MAX_DEPTH + 20):
        os.mkdir("d" * 100, dir_fd=descriptors[-1])
        descriptors.append(os.open("d" * 100, os.O_RDONLY, dir_fd=descriptors[-1]))
    for descriptor in descriptors:
        os.close(descriptor)
    assert not measure([str(tmp_path)])[1]


def test_what_was_written_where_nobody_may_look_counts(tmp_path: Path) -> None:
    gauge = DiskGauge([str(tmp_path / "gone")], 10 * MIB)
    assert gauge.used(0.0, 0) == 0
    assert gauge.used(1.0, 11 * MIB) > 10 * MIB


def test_writing_the_same_file_again_and_again_is_not_growth(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * MIB)
    gauge = DiskGauge([str(tmp_path)], 10 * MIB)
    for second in range(100):
        assert gauge.used(float(second), second * 5 * MIB) < 2 * MIB


def test_space_taken_without_writing_is_found(tmp_path: Path) -> None:
    gauge = DiskGauge([str(tmp_path)], 10 * MIB)
    assert gauge.used(0.0, 0) < MIB
    with (tmp_path / "file").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 20 * MIB)
    assert gauge.used(60.0, 0) > 10 * MIB


def test_the_operators_own_files_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"x" * 20 * MIB)
    gauge = DiskGauge([str(tmp_path)], 10 * MIB, growth_only=True)
    assert gauge.used(0.0, 0) == 0
    (tmp_path / "new").write_bytes(b"x" * 4 * MIB)
    assert 4 * MIB <= gauge.used(60.0, 4 * MIB) < 5 * MIB


# -- one tree ---------------------------------------------------------------------------------------------------------


@contextmanager
def tree(program: str) -> Iterator[ProcessRef]:
    process = subprocess.Popen(
        [sys.executable, "-c", program + "\nprint('on', flush=True)\nimport signal\nsignal.pause()"],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"on\n"
        stat = parse_stat(Path(f"/proc/{process.pid}/stat").read_bytes())
        assert stat is not None
        yield ProcessRef(pid=process.pid, started_ticks=stat.started_ticks)
    finally:
        subprocess.run(["pkill", "-9", "-P", str(process.pid)], check=False)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def watch(process: ProcessRef, limits: ResourceLimits, folder: Path, *, processes_held: bool = False) -> TreeWatch:
    return TreeWatch(
        process,
        limits,
        Held({}),
        Folders((str(folder),)),
        processes_held=processes_held,
        kernel_log=KernelLog("/dev/null/none"),
        now=0.0,
    )


EATERS = {
    "its own": "held = bytearray(b'x' * (80 << 20))",
    "shared": "import mmap\nheld = mmap.mmap(-1, 80 << 20)\nheld.write(b'x' * (80 << 20))",
    "in a descriptor": "import os\nos.write(os.memfd_create('x'), b'x' * (80 << 20))",
}


@pytest.mark.parametrize("how", EATERS)
def test_memory_of_every_kind_is_seen_with_its_eater(tmp_path: Path, how: str) -> None:
    with tree(EATERS[how]) as process:
        looked = watch(process, ResourceLimits(memory_bytes=64 * MIB), tmp_path)
        (event,) = looked.look(1.0)
        assert (event.limit, event.outcome) == (LimitName.MEMORY, LimitOutcome.EXCEEDED)
        assert 80 * MIB < event.used < 120 * MIB
        assert event.culprit is not None
        assert event.culprit.pid == process.pid
        assert event.culprit.command.startswith(sys.executable)
        assert looked.interval_s == TENSE_S
        looked.close()


def test_within_its_limits_nothing_is_told_and_it_is_looked_at_seldom(tmp_path: Path) -> None:
    with tree("") as process:
        limits = ResourceLimits(memory_bytes=1024 * MIB, processes=50, disk_bytes=64 * MIB, cpu_fraction=1.0)
        looked = watch(process, limits, tmp_path)
        assert looked.look(10.0) == []
        assert looked.interval_s == CALM_S
        assert not looked.still
        looked.close()


def test_too_many_processes_are_seen_where_nothing_holds_them(tmp_path: Path) -> None:
    with tree("import os, time\nfor _ in range(8):\n    if os.fork() == 0: time.sleep(60)") as process:
        limits = ResourceLimits(processes=5)
        (event,) = watch(process, limits, tmp_path).look(1.0)
        assert (event.limit, event.used, event.outcome) == (LimitName.PROCESSES, 9, LimitOutcome.EXCEEDED)
        held = watch(process, limits, tmp_path, processes_held=True)
        assert not held.needed


def test_without_limits_there_is_nothing_to_watch(tmp_path: Path) -> None:
    with tree("") as process:
        assert not watch(process, ResourceLimits(timeout_s=5), tmp_path).needed


def test_a_command_is_one_printable_line() -> None:
    hostile = "\x1b[2Jx\ny" + "z" * 1000
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()", hostile]) as process:
        command = command_of(process.pid)
        process.kill()
    assert command.isprintable()
    assert len(command) <= 200
    assert command_of(2**22 + 5) == "?"


# -- the kernel's words -----------------------------------------------------------------------------------------------

CHOSEN = (
    "6,440,15267087436,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
    "oom_memcg=/a/toka-1-2-3/4-r9,task_memcg=/a/toka-1-2-3/4-r9,task={name},pid={pid},uid=0\n"
)
KILLED = (
    "3,441,15267087504,-;Memory cgroup out of memory: Killed process {pid} (x) total-vm:9kB, anon-rss:65280kB, "
    "file-rss:6592kB, shmem-rss:256kB, UID:0 pgtables:184kB oom_score_adj:0\n"
)


class Spoken(KernelLog):
    """What the kernel would say, line by line."""

    def __init__(self, *lines: str) -> None:
        super().__init__("/dev/null/none")
        self._lines = list(lines)

    def _record(self) -> bytes | None:
        return self._lines.pop(0).encode() if self._lines else None


def test_the_victim_is_known_by_its_group() -> None:
    log = Spoken(CHOSEN.format(name="python3", pid=77), KILLED.format(pid=77), CHOSEN.format(name="sh", pid=1))
    assert log.killed("toka-1-2-3/5-other") is None
    culprit = log.killed("toka-1-2-3/4-r9")
    assert culprit is not None
    assert (culprit.pid, culprit.command, culprit.known_by) == (1, "sh", "kernel")
    assert log.killed("toka-1-2-3/4-r9") is None
    log = Spoken(CHOSEN.format(name="python3", pid=77), KILLED.format(pid=77))
    culprit = log.killed("toka-1-2-3/4-r9")
    assert culprit is not None
    assert culprit.memory_bytes == (65280 + 256) * 1024


@pytest.mark.parametrize("name", ["a,pid=1,uid=0", "x,task=y", ""])
def test_a_name_that_looks_like_a_field_is_a_name(name: str) -> None:
    culprit = Spoken(CHOSEN.format(name=name, pid=77)).killed("toka-1-2-3/4-r9")
    assert culprit is not None
    assert (culprit.pid, culprit.command) == (77, name)


def test_what_a_process_says_there_is_not_the_kernels_word() -> None:
    line = CHOSEN.format(name="innocent", pid=77)
    assert Spoken("14," + line.partition(",")[2]).killed("toka-1-2-3/4-r9") is None
