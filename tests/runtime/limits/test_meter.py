from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from toka_runtime.limits import meter as meter_module
from toka_runtime.limits.host import HostMeter
from toka_runtime.limits.meter import TreeMeter
from toka_runtime.limits.proc_files import DescriptorBudget, ProcFile, parse_stat
from toka_runtime.protocol.ids import ProcessRef
from toka_runtime.protocol.usage import Usage
from toka_runtime.sandbox.tree import kill_subtree

CHILD = """
import json, os, subprocess, sys, threading
for line in sys.stdin:
    word, _, argument = line.strip().partition(" ")
    if word == "burn":
        # Processor time of a child that has ended and was waited for.
        subprocess.run([sys.executable, "-S", "-c", "import time\\nwhile time.process_time() < " + argument + ": pass"])
    elif word == "hold":
        held = bytearray(os.urandom(1)) * (int(argument) << 20)
    elif word == "child":
        started = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    elif word == "thread":
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    elif word == "end":
        started.kill(); started.wait()
    elif word == "write":
        with open(argument, "wb") as file:
            file.write(os.urandom(1 << 20)); file.flush(); os.fsync(file.fileno())
    print("done", flush=True)
"""


class Child:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        stat = parse_stat(Path(f"/proc/{self.process.pid}/stat").read_bytes())
        assert stat is not None
        self.ref = ProcessRef(pid=self.process.pid, started_ticks=stat.started_ticks)
        self.do("nothing")

    def do(self, words: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        kill_subtree(self.process.pid)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.end()


@pytest.fixture
def meter(child: Child) -> Iterator[TreeMeter]:
    meter = TreeMeter(child.ref)
    yield meter
    meter.close()


def test_processes_and_threads_come_and_go(child: Child, meter: TreeMeter) -> None:
    assert (meter.sample().processes, meter.sample().threads) == (1, 1)
    child.do("child")
    child.do("thread")
    usage = meter.sample()
    assert (usage.processes, usage.threads) == (2, 3)
    child.do("end")
    assert meter.sample().processes == 1


def test_time_of_ended_children_counts(child: Child, meter: TreeMeter) -> None:
    before = meter.sample()
    assert before.cpu_fraction == 0
    began = time.monotonic()
    child.do("burn 0.25")
    usage = meter.sample()
    passed = time.monotonic() - began
    assert 0.2 <= usage.cpu_s - before.cpu_s <= passed + 0.05
    assert usage.cpu_fraction == pytest.approx((usage.cpu_s - before.cpu_s) / passed, rel=0.2)
    assert usage.processes == 1
    assert meter.sample().cpu_s >= usage.cpu_s


def test_memory_is_the_proportional_size_and_follows_what_is_held(child: Child, meter: TreeMeter) -> None:
    before = meter.sample()
    assert before.memory_is_pss
    child.do("hold 40")
    after = meter.sample()
    gained = after.memory_bytes - before.memory_bytes
    assert 38 << 20 < gained < 60 << 20
    resident = parse_stat(Path(f"/proc/{child.ref.pid}/stat").read_bytes())
    assert resident is not None
    assert after.memory_bytes < resident.resident_bytes, "libraries are shared"


def test_a_small_change_is_followed_without_asking_again(
    child: Child, meter: TreeMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    child.do("hold 60")
    before = meter.sample()
    asked: list[str] = []
    read = ProcFile.read

    def counted(file: ProcFile) -> bytes:
        asked.append(file._path)
        return read(file)

    monkeypatch.setattr(ProcFile, "read", counted)
    child.do("hold 55")
    after = meter.sample()
    assert not [path for path in asked if "smaps" in path]
    # The new block is made before the old one goes, so that only the allocator knows the end of it.
    assert abs(after.memory_bytes - before.memory_bytes) < 20 << 20


def test_big_processes_are_counted_by_resident_size(
    child: Child, meter: TreeMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter_module, "MAX_PSS_RESIDENT_BYTES", 10 << 20)
    child.do("hold 40")
    usage = meter.sample()
    assert not usage.memory_is_pss
    assert usage.memory_bytes > 40 << 20


def test_bytes_written_are_counted(child: Child, meter: TreeMeter, tmp_path: Path) -> None:
    before = meter.sample().written_bytes
    child.do(f"write {tmp_path / 'file'}")
    written = meter.sample().written_bytes - before
    # A tmpfs has no storage behind it and counts nothing.
    assert written >= 1 << 20 or _is_tmpfs(tmp_path)


def _is_tmpfs(path: Path) -> bool:
    found = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=True)
    return "tmpfs" in found.stdout or "ramfs" in found.stdout


def test_after_the_end_there_are_no_processes_and_the_totals_stay(child: Child, meter: TreeMeter) -> None:
    child.do("burn 0.1")
    last = meter.sample()
    child.process.kill()
    child.process.wait()
    for _ in range(2):
        usage = meter.sample()
        assert usage == Usage(
            cpu_s=last.cpu_s, read_bytes=usage.read_bytes, written_bytes=usage.written_bytes, memory_is_pss=False
        )


def test_a_later_process_with_the_same_number_is_not_measured(child: Child) -> None:
    other = TreeMeter(ProcessRef(pid=child.ref.pid, started_ticks=child.ref.started_ticks - 1))
    assert other.sample() == Usage()


@pytest.mark.parametrize("most", [0, 1, 5, 1000])
def test_descriptors_are_bounded_and_given_back(child: Child, most: int) -> None:
    child.do("child")
    budget = DescriptorBudget(most)
    meter = TreeMeter(child.ref, budget=budget)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        assert meter.sample().processes == 2
    assert len(os.listdir("/proc/self/fd")) - before <= most
    assert budget.free == max(0, most - 8)
    child.do("end")
    meter.sample()
    assert budget.free == max(0, most - 4)
    del meter
    assert budget.free == most
    assert len(os.listdir("/proc/self/fd")) <= before


def test_without_lists_of_children_the_host_is_scanned(
    child: Child, meter: TreeMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter_module, "_HAS_CHILDREN_FILES", False)
    child.do("child")
    assert meter.sample().processes == 2


def test_names_with_parentheses_are_parsed(child: Child) -> None:
    plain = Path(f"/proc/{child.ref.pid}/stat").read_bytes()
    name = plain[plain.index(b"(") : plain.rindex(b")") + 1]
    assert parse_stat(plain.replace(name, b"(a) S (1 2)")) == parse_stat(plain)
    assert parse_stat(b"") is None


# -- the host ---------------------------------------------------------------------------------------------------------


def host_files(folder: Path, busy: int, idle: int) -> None:
    (folder / "stat").write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1\ncpu1 1\ncpu2 1\nintr 5\n")
    (folder / "meminfo").write_text("MemTotal:  1000 kB\nMemFree:  100 kB\nMemAvailable:  400 kB\n")
    (folder / "loadavg").write_text("1.25 0 0 1/2 3\n")


def test_the_host_is_measured_between_samples(tmp_path: Path) -> None:
    host_files(tmp_path, 100, 900)
    meter = HostMeter(str(tmp_path))
    host_files(tmp_path, 175, 925)
    usage = meter.sample()
    assert usage.cpu_fraction == 0.75
    assert usage.cores == 3
    assert (usage.memory_total_bytes, usage.memory_used_bytes) == (1_024_000, 614_400)
    assert meter.memory_total_bytes == 1_024_000
    assert usage.load_1m == 1.25
    assert meter.sample().cpu_fraction == 0


def test_a_host_that_says_nothing_is_no_error(tmp_path: Path) -> None:
    usage = HostMeter(str(tmp_path)).sample()
    assert (usage.cpu_fraction, usage.memory_total_bytes, usage.load_1m) == (0, 0, 0)
    assert usage.cores >= 1


def test_the_real_host() -> None:
    usage = HostMeter().sample()
    assert 0 <= usage.cpu_fraction <= 1
    assert 0 < usage.memory_used_bytes < usage.memory_total_bytes
    assert usage.cores == os.cpu_count()
