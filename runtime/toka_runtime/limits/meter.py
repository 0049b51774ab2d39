"""What one agent's process tree uses: time, memory, processes, bytes read and written."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable

from toka_runtime.limits.proc_files import (
    SHARED_BUDGET,
    TICKS_PER_S,
    DescriptorBudget,
    ProcFile,
    Stat,
    parse_stat,
)
from toka_runtime.protocol.ids import ProcessRef
from toka_runtime.protocol.usage import Usage

MAX_PSS_RESIDENT_BYTES = 192 * 1024 * 1024
"""A process with more resident memory is counted by its resident size: adding up its proportional size walks all its
page tables (about 10 ms a GiB, holding a lock that it needs for itself), and hardly any of so much is shared."""

PSS_REUSED = 20
"""About so many samples apart the kernel is asked for a process's proportional size: the question costs 0.4 ms (a
hundred times as much as any other file), so between two answers the change of the resident size is added."""


class TreeMeter:
    """Samples one tree. Blocking file reads, about 30 µs a process: for a hundred trees use a thread. Not to be used
    from two threads at once. `close` gives its descriptors back; so does forgetting it."""

    def __init__(self, process: ProcessRef, *, budget: DescriptorBudget = SHARED_BUDGET) -> None:
        self._root = process
        self._budget = budget
        self._known: dict[int, _Process] = {}
        self._cpu_s = 0.0
        self._read_bytes = self._written_bytes = 0
        self._sampled_at: float | None = None
        self._heaviest = (0, 0)
        self._prolific = 0

    def sample(self) -> Usage:
        """Never raises. When the tree has ended: no processes, and the last known totals."""
        tree = self._walk()
        for pid in self._known.keys() - tree.keys():
            self._known.pop(pid).close()
        now = time.monotonic()
        # Time of ended processes is in their parents' figures only after these have waited for them: never go back.
        cpu_s = max(self._cpu_s, sum(stat.cpu_ticks for stat in tree.values()) / TICKS_PER_S)
        passed = 0.0 if self._sampled_at is None else now - self._sampled_at
        fraction = (cpu_s - self._cpu_s) / passed if passed > 0 else 0.0
        self._cpu_s, self._sampled_at = cpu_s, now
        memory, is_pss = self._memory(tree)
        families = Counter(stat.parent for stat in tree.values() if stat.parent != self._root.pid)
        self._prolific = families.most_common(1)[0][0] if families else 0
        self._count_bytes(tree)
        return Usage(
            cpu_fraction=fraction,
            cpu_s=cpu_s,
            memory_bytes=memory,
            memory_is_pss=is_pss,
            processes=len(tree),
            threads=sum(stat.threads for stat in tree.values()),
            read_bytes=self._read_bytes,
            written_bytes=self._written_bytes,
        )

    @property
    def heaviest(self) -> tuple[int, int]:
        """(pid, bytes) of the process that had most memory at the last sample; pid 0: there was none."""
        return self._heaviest

    @property
    def prolific(self) -> int:
        """Pid of the process that had most children at the last sample, the root aside; 0: there was none."""
        return self._prolific

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the last sample."""
        return tuple(self._known)

    def close(self) -> None:
        """Safe to call twice; a later `sample` opens what it needs again."""
        for known in self._known.values():
            known.close()
        self._known.clear()

    def __del__(self) -> None:
        self.close()

    def _walk(self) -> dict[int, Stat]:
        """The living processes of the tree; unreaped ones count until they are reaped, for their time."""
        tree: dict[int, Stat] = {}
        root = self._process(self._root.pid).stat()
        if root is None or root.started_ticks != self._root.started_ticks:
            return tree
        tree[self._root.pid] = root
        list_children = _scan_children() if not _HAS_CHILDREN_FILES else None
        for pid in (queue := [self._root.pid]):
            known = self._known[pid]
            found = list_children(pid) if list_children is not None else known.children(tree[pid].threads)
            for child in found:
                if child in tree:
                    continue
                stat = self._process(child).stat()
                if stat is None:
                    # Ended, or a later process has its number: what was open is of no use.
                    self._known.pop(child).close()
                    stat = self._process(child).stat()
                if stat is not None and stat.parent in tree:
                    tree[child] = stat
                    queue.append(child)
        return tree

    def _process(self, pid: int) -> _Process:
        known = self._known.get(pid)
        if known is None:
            known = self._known[pid] = _Process(pid, self._budget)
        return known

    def _memory(self, tree: dict[int, Stat]) -> tuple[int, bool]:
        total, all_proportional = 0, bool(tree)
        self._heaviest = (0, 0)
        for pid, stat in tree.items():
            if stat.state in "ZX":
                continue
            proportional = self._known[pid].pss(stat) if stat.resident_bytes <= MAX_PSS_RESIDENT_BYTES else None
            all_proportional = all_proportional and proportional is not None
            memory = stat.resident_bytes if proportional is None else proportional
            total += memory
            self._heaviest = max(self._heaviest, (pid, memory), key=lambda found: found[1])
        return total, all_proportional

    def _count_bytes(self, tree: dict[int, Stat]) -> None:
        """Like processor time, a process's figure goes to the parent that waits for it."""
        counts = [self._known[pid].io() for pid in tree]
        self._read_bytes = max(self._read_bytes, sum(read for read, _ in counts))
        self._written_bytes = max(self._written_bytes, sum(written for _, written in counts))


class _Process:
    """The files of one process."""

    def __init__(self, pid: int, budget: DescriptorBudget) -> None:
        self._pid = pid
        self._budget = budget
        self._stat = ProcFile(f"/proc/{pid}/stat", budget)
        self._children = ProcFile(f"/proc/{pid}/task/{pid}/children", budget)
        self._rollup = ProcFile(f"/proc/{pid}/smaps_rollup", budget)
        self._io = ProcFile(f"/proc/{pid}/io", budget)
        self._pss: int | None = None
        self._pss_resident = self._pss_left = 0

    def stat(self) -> Stat | None:
        return parse_stat(self._stat.read())

    def children(self, threads: int) -> list[int]:
        data = self._children.read()
        if threads > 1:
            # Other threads come and go: their lists are not kept open.
            for thread in _threads(self._pid):
                if thread != str(self._pid):
                    data += b" " + _read_once(f"/proc/{self._pid}/task/{thread}/children")
        return [int(pid) for pid in data.split()]

    def pss(self, stat: Stat) -> int | None:
        """None when it may not be read (another user's, or protected). Between two readings of the kernel's figure,
        what the process has gained or lost since counts as its own."""
        gained = stat.resident_bytes - self._pss_resident
        if self._pss is not None and self._pss_left > 0 and abs(gained) <= self._pss // 4:
            self._pss_left -= 1
            return self._pss + gained
        data = self._rollup.read()
        start = data.find(b"\nPss:")
        self._pss = int(data[start + 5 : data.index(b"kB", start)]) * 1024 if start >= 0 else None
        self._pss_resident = stat.resident_bytes
        # Not all at once: processes that were born together are read again in different samples.
        self._pss_left = PSS_REUSED // 2 + self._pid % PSS_REUSED
        return self._pss

    def io(self) -> tuple[int, int]:
        """(read, written) bytes that reached storage; with those of children that it has waited for."""
        fields = self._io.read().split()
        if len(fields) < 14:
            return 0, 0
        return int(fields[9]), int(fields[11])

    def close(self) -> None:
        for file in (self._stat, self._children, self._rollup, self._io):
            file.close()


def _threads(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  # no Path object for each reading
    except OSError:
        return []


def _read_once(path: str) -> bytes:
    file = ProcFile(path, DescriptorBudget(0))
    return file.read()


def _scan_children() -> Callable[[int], list[int]]:
    """For kernels without CONFIG_PROC_CHILDREN: everybody's parent, read once."""
    families: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  # no Path object for each process
        if name.isdecimal() and (stat := parse_stat(_read_once(f"/proc/{name}/stat"))) is not None:
            families.setdefault(stat.parent, []).append(int(name))
    return lambda pid: families.get(pid, [])


_HAS_CHILDREN_FILES = os.path.exists(f"/proc/self/task/{os.getpid()}/children")  # noqa: PTH110  # as above
