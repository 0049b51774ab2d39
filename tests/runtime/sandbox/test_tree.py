"""Stopping, continuing and killing trees: the details. The root is a process of the test's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.agents import FAKES, running, states
from fakes.child import in_child
from toka_runtime.sandbox import tree
from toka_runtime.sandbox.tree import (
    children,
    continue_tree,
    kill_children,
    kill_strays,
    kill_subtree,
    members,
    proc_stat,
    signal_tree,
    stop_tree,
)

TREE = """
import sys
sys.path.insert(0, sys.argv[1])
from toka_runtime.sandbox.kernel import adopt_orphans
import toy_tools
adopt_orphans()
getattr(toy_tools, "tool_" + sys.argv[2])({}, lambda stream, data: print(data.decode(), flush=True))
"""


class Root:
    """A process that adopts its orphans, and the pids below it."""

    def __init__(self, tool: str = "tree") -> None:
        self.process = subprocess.Popen([sys.executable, "-c", TREE, FAKES, tool], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        told = self.process.stdout.readline()
        self.pid = self.process.pid
        self.below = [pid for pid in json.loads(told) if pid != self.pid] if told.startswith("[") else []

    def end(self) -> None:
        kill_subtree(self.pid)
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def root() -> Iterator[Root]:
    root = Root()
    yield root
    root.end()


@pytest.fixture(params=["lists", "scan"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With /proc/PID/task/TID/children, and without (kernels built without CONFIG_PROC_CHILDREN)."""
    monkeypatch.setattr(tree, "_HAS_CHILDREN_FILES", request.param == "lists")


@pytest.mark.usefixtures("either_way")
def test_a_tree_is_found_stopped_continued_and_killed(root: Root) -> None:
    found = members(root.pid)
    assert set(root.below) <= set(found)
    assert set(children(root.pid)) <= set(found)
    stopped = stop_tree(root.pid)
    assert stopped.confirmed
    assert stopped.processes == len(found)
    assert not running(found)
    assert states([root.pid])[root.pid] == "S", "the root itself goes on"
    went_on = continue_tree(root.pid)
    assert went_on.confirmed
    assert "T" not in states(found).values()
    killed = kill_subtree(root.pid)
    assert killed.confirmed
    assert killed.processes == len(found) + 1
    assert not running([root.pid, *found])


def test_what_cannot_be_stopped_is_named(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_send", lambda *arguments: True)
    swept = stop_tree(root.pid, timeout_s=0.02)
    assert not swept.confirmed
    assert set(root.below) <= set(swept.survivors)
    swept = kill_subtree(root.pid, timeout_s=0.02)
    assert {root.pid, *root.below} <= set(swept.survivors)


def test_a_signal_never_goes_to_a_stranger_with_a_used_number(root: Root) -> None:
    member = root.below[0]
    stat = proc_stat(member)
    assert stat is not None
    earlier = stat._replace(started_ticks=stat.started_ticks - 1)
    assert not tree._signal_member(member, earlier, signal.SIGKILL)
    assert states([member])[member] != "Z"
    assert tree._signal_member(member, stat, signal.SIGKILL)
    assert not tree._signal_member(2**22 + 1, stat, signal.SIGKILL)


def test_a_sibling_is_no_member(root: Root) -> None:
    other = Root()
    try:
        assert not set(other.below) & set(members(root.pid))
        assert stop_tree(root.pid).confirmed
        assert kill_subtree(root.pid).confirmed
        assert len(running(other.below)) == len(other.below)
    finally:
        other.end()


def test_every_living_member_gets_a_signal_once(root: Root) -> None:
    found = members(root.pid)
    assert signal_tree(root.pid, signal.SIGTERM) == len(found)
    daemon = root.below[-1]
    assert proc_stat(daemon) is not None, "it ignores the signal"


def test_a_process_whose_first_thread_has_ended_is_stopped_too() -> None:
    script = (
        "import ctypes, threading, time\n"
        "def spin():\n"
        "    print('spinning', flush=True)\n"
        "    while True: time.sleep(0.0001)\n"
        "threading.Thread(target=spin).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    wrapper = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {script!r}]).wait()"
    process = subprocess.Popen([sys.executable, "-c", wrapper], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        (pid,) = members(process.pid)
        until = time.monotonic() + 5
        while states([pid])[pid] != "Z" and time.monotonic() < until:
            os.sched_yield()
        stat = proc_stat(pid)
        assert stat is not None
        assert (stat.state, stat.threads) == ("Z", 2)
        swept = stop_tree(process.pid)
        assert (swept.confirmed, swept.processes) == (True, 1)
        threads = [Path(entry).read_text().rpartition(") ")[2][0] for entry in Path(f"/proc/{pid}/task").glob("*/stat")]
        assert sorted(threads) == ["T", "Z"]
        assert kill_subtree(process.pid).processes == 2
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_kill_children_reaps_all_and_tells_how_they_ended() -> None:
    def act() -> str:
        sys.path.insert(0, FAKES)
        import toy_tools

        from toka_runtime.sandbox.kernel import adopt_orphans

        adopt_orphans()
        ended: dict[int, int] = {}
        pids = [subprocess.Popen(["sleep", "1000"]).pid, toy_tools.daemon()]
        exits = os.fork()
        if exits == 0:
            os._exit(7)
        swept = kill_children(ended.__setitem__)
        assert swept.confirmed
        assert [ended[pid] for pid in pids] == [-9, -9]
        assert ended[exits] in {7, -9}
        return str(swept.processes >= 2)

    assert in_child(act) == "True"


def test_kill_strays_spares_the_known() -> None:
    def act() -> str:
        sys.path.insert(0, FAKES)
        import toy_tools

        from toka_runtime.sandbox.kernel import adopt_orphans

        adopt_orphans()
        known = subprocess.Popen(["sleep", "1000"]).pid
        stray = toy_tools.daemon()
        assert kill_strays({known}).processes == 1
        found = states([known, stray])
        kill_children(lambda pid, status: None)
        return f"{found[known]}{found[stray]}"

    assert in_child(act) in {"SZ", "RZ", "DZ"}


@pytest.mark.parametrize("name", ["a) b (c", "((((", ") S 1 1", "x y"])
def test_any_name_is_parsed(name: str) -> None:
    def act() -> str:
        import ctypes

        buffer = ctypes.create_string_buffer(name.encode())
        ctypes.CDLL(None).prctl(15, ctypes.byref(buffer), 0, 0, 0)
        stat = proc_stat(os.getpid())
        assert stat is not None
        return f"{stat.parent == os.getppid()} {stat.state} {stat.threads}"

    assert in_child(act) == "True R 1"


def test_more_children_than_one_page_of_the_kernel_holds() -> None:
    script = (
        "import os, signal\nfor n in range(900): os.fork() or signal.pause()\nprint('up', flush=True)\nsignal.pause()\n"
    )
    process = subprocess.Popen([sys.executable, "-S", "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        assert len(children(process.pid)) == 900
        stopped = stop_tree(process.pid, timeout_s=10)
        assert (stopped.confirmed, stopped.processes) == (True, 900)
    finally:
        killed = kill_subtree(process.pid, timeout_s=20)
        process.wait()
        process.stdout.close()
    assert killed.confirmed
    assert killed.processes == 901
