"""Watches one agent's tree for reached limits: reads what the kernel counts where groups hold them, and measures the
tree itself where none do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from toka_runtime.limits.disk import DiskGauge
from toka_runtime.limits.duty_cycle import DutyCycle
from toka_runtime.limits.enforcer import Held
from toka_runtime.limits.kernel_log import KernelLog
from toka_runtime.limits.meter import TreeMeter
from toka_runtime.protocol.events import LimitReached
from toka_runtime.protocol.ids import ProcessRef
from toka_runtime.protocol.limits import Culprit, LimitName, LimitOutcome
from toka_runtime.protocol.usage import ResourceLimits, Usage

COUNTED_S, CALM_S, TENSE_S = 0.5, 0.25, 0.05
"""Between two looks: where the kernel holds what it counts, where something is measured here, and while more than half
of a measured limit is used."""
HELD_BACK_S = 1.0
"""Held back for less, an agent has not reached its share of the processor in any sense worth telling."""
WATCHDOG, DUTY_CYCLE = "watchdog", "stop and go"
MAX_COMMAND = 200


class Folders(NamedTuple):
    paths: Sequence[str]
    growth_only: bool = False
    """They are the operator's: what was there does not count."""


class TreeWatch:
    """Blocking; `look` may be called from any thread. Never raises for what the agent does."""

    def __init__(
        self,
        process: ProcessRef,
        limits: ResourceLimits,
        held: Held,
        folders: Folders,
        *,
        processes_held: bool,
        kernel_log: KernelLog,
        now: float,
    ) -> None:
        """`processes_held`: RLIMIT_NPROC holds their number, where no group does."""
        self._limits = limits
        self._held = held
        self._log = kernel_log
        self._lock = Lock()
        self._meter = TreeMeter(process)
        measured = {LimitName.MEMORY, LimitName.CPU, LimitName.PROCESSES} - held.limits
        self._memory = limits.memory_bytes if LimitName.MEMORY in measured else None
        self._processes = limits.processes if LimitName.PROCESSES in measured and not processes_held else None
        braked = LimitName.CPU in measured and limits.cpu_fraction is not None
        self._duty = DutyCycle(limits.cpu_fraction, now) if braked and limits.cpu_fraction is not None else None
        self._disk = None
        if limits.disk_bytes is not None:
            self._disk = DiskGauge(folders.paths, limits.disk_bytes, growth_only=folders.growth_only)
        self._told = {LimitName.MEMORY: 0.0, LimitName.PROCESSES: 0.0, LimitName.CPU: 0.0}
        self._culprit: Culprit | None = None
        self.interval_s = CALM_S
        """When to look next."""

    @property
    def needed(self) -> bool:
        """False: there is no limit to watch."""
        return bool(self._held.limits or self._memory or self._processes or self._duty or self._disk)

    @property
    def still(self) -> bool:
        """The tree is to stand still until the next look: it has had its share of the processor."""
        return self._duty is not None and self._duty.still

    def look(self, now: float) -> list[LimitReached]:
        """What was reached since the last look. One that is only measured is told at every look while it lasts."""
        with self._lock:
            found = self._counted()
            self.interval_s = COUNTED_S
            if self._measures():
                self.interval_s = CALM_S
                found += self._measured(now, self._meter.sample())
            return found

    def close(self) -> None:
        with self._lock:
            self._meter.close()

    # -- what the kernel counts -----------------------------------------------------------------------------------

    def _counted(self) -> list[LimitReached]:
        if not self._held.limits:
            return []
        counts, found = self._held.counts(), list[LimitReached]()
        if (kills := counts.memory_kills or 0) > self._told[LimitName.MEMORY]:
            self._told[LimitName.MEMORY] = kills
            # The kernel names whom it has killed ten times in five seconds at most: else the largest that is left.
            culprit = self._log.killed(self._held.name) or self._culprit or self._largest()
            used = self._held.memory_peak_bytes()
            found += self._at(LimitName.MEMORY, self._limits.memory_bytes, LimitOutcome.KILLED, kills, culprit, used)
        refused = counts.refused_processes or 0
        if refused > 2 * self._told[LimitName.PROCESSES]:
            self._told[LimitName.PROCESSES] = refused
            # The default where none was declared: the group knows.
            found += self._at(LimitName.PROCESSES, self._held.processes, LimitOutcome.REFUSED, refused, self._busiest())
        held_back = counts.held_back_s or 0.0
        if held_back > max(HELD_BACK_S, 2 * self._told[LimitName.CPU]):
            self._told[LimitName.CPU] = held_back
            found += self._at(LimitName.CPU, self._limits.cpu_fraction, LimitOutcome.SLOWED, 1, None)
        return found

    def _at(
        self,
        limit: LimitName,
        allowed: float | None,
        outcome: LimitOutcome,
        count: int,
        culprit: Culprit | None,
        used: float | None = None,
    ) -> list[LimitReached]:
        if allowed is None:
            return []
        mechanism = self._held.mechanism(limit)
        return [
            LimitReached(
                limit=limit,
                used=allowed if used is None else used,
                allowed=allowed,
                outcome=outcome,
                mechanism=mechanism,
                culprit=culprit,
                count=count,
            )
        ]

    def _largest(self) -> Culprit | None:
        self._meter.sample()
        self._suspect(*self._meter.heaviest)
        return self._culprit

    def _busiest(self) -> Culprit | None:
        """Of a crowd the parent of most: whoever forks."""
        self._meter.sample()
        pid = self._meter.prolific
        return _culprit(pid, 0) if pid else None

    # -- what is measured here ------------------------------------------------------------------------------------

    def _measures(self) -> bool:
        # Without the kernel's word the last sample must tell who it was.
        witness = LimitName.MEMORY in self._held.limits and not self._log.readable
        return bool(self._memory or self._processes or self._duty or self._disk or witness)

    def _measured(self, now: float, usage: Usage) -> list[LimitReached]:
        found: list[LimitReached] = []
        self._suspect(*self._meter.heaviest)
        if self._memory is not None:
            used = usage.memory_bytes + _unmapped_bytes(self._meter.pids)
            found += self._compare(LimitName.MEMORY, used, self._memory, self._culprit)
        if self._processes is not None and usage.threads > self._processes:
            found += self._compare(LimitName.PROCESSES, usage.threads, self._processes, self._busiest())
        if self._disk is not None and self._limits.disk_bytes is not None:
            used = self._disk.used(now, usage.written_bytes)
            self._tense(self._disk.possible(usage.written_bytes), self._limits.disk_bytes)
            found += self._compare(LimitName.DISK, used, self._limits.disk_bytes, self._culprit)
        if self._duty is not None and self._limits.cpu_fraction is not None:
            found += self._braked(self._duty, self._limits.cpu_fraction, now, usage)
        return found

    def _suspect(self, pid: int, memory: int) -> None:
        """Know whoever may turn out to be the culprit while it still can be asked for its command."""
        before = self._culprit
        known = before is not None and before.pid == pid and memory <= before.memory_bytes
        if pid and not known:
            self._culprit = _culprit(pid, memory)

    def _compare(self, limit: LimitName, used: float, allowed: float, culprit: Culprit | None) -> list[LimitReached]:
        self._tense(used, allowed)
        if used <= allowed:
            return []
        return [
            LimitReached(
                limit=limit,
                used=used,
                allowed=allowed,
                outcome=LimitOutcome.EXCEEDED,
                mechanism=WATCHDOG,
                culprit=culprit,
            )
        ]

    def _braked(self, duty: DutyCycle, allowed: float, now: float, usage: Usage) -> list[LimitReached]:
        duty.step(now, usage.cpu_s)
        self._tense(usage.cpu_fraction if not duty.still else allowed, allowed)
        if duty.still_s <= max(HELD_BACK_S, 2 * self._told[LimitName.CPU]):
            return []
        self._told[LimitName.CPU] = duty.still_s
        return [
            LimitReached(
                limit=LimitName.CPU,
                used=allowed,
                allowed=allowed,
                outcome=LimitOutcome.SLOWED,
                mechanism=DUTY_CYCLE,
            )
        ]

    def _tense(self, used: float, allowed: float) -> None:
        if used > allowed / 2:
            self.interval_s = TENSE_S


def _culprit(pid: int, memory: int) -> Culprit:
    return Culprit(pid=pid, command=command_of(pid), memory_bytes=memory, known_by="sample")


def command_of(pid: int) -> str:
    """Its command line in one printable line, cut; "?" when it has ended."""
    try:
        text = (
            Path(f"/proc/{pid}/cmdline").read_bytes()[: 4 * MAX_COMMAND].replace(b"\0", b" ").decode(errors="replace")
        )
        if not text.strip():
            text = Path(f"/proc/{pid}/comm").read_text(errors="replace")
    except OSError:
        return "?"
    return "".join(mark if mark.isprintable() else " " for mark in text).strip()[:MAX_COMMAND]


def _unmapped_bytes(pids: Sequence[int]) -> int:
    """Memory in files that exist only as descriptors (memfd) and that nobody has mapped: in no process's size. Mapped
    ones are in it, so only what goes beyond the shared memory that is seen there counts."""
    files: dict[tuple[int, int], int] = {}
    seen = 0
    for pid in pids:
        held = _memory_files(pid)
        files |= held
        if held:
            seen += _shared_bytes(pid)
    return max(0, sum(files.values()) - seen)


def _memory_files(pid: int) -> dict[tuple[int, int], int]:
    found: dict[tuple[int, int], int] = {}
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)  # noqa: PTH208  # no Path object for each of many processes
    except OSError:
        return found
    for name in names:
        try:
            if not os.readlink(f"{folder}/{name}").startswith("/memfd:"):  # noqa: PTH115  # as above
                continue
            status = os.stat(f"{folder}/{name}")  # noqa: PTH116  # as above
        except OSError:
            continue
        found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return found


def _shared_bytes(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("RssShmem:"):
            return int(line.split()[1]) * 1024
    return 0
