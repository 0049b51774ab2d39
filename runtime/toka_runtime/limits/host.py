"""What the whole host uses."""

from __future__ import annotations

import os

from toka_runtime.protocol.usage import HostUsage


class HostMeter:
    """Samples the host: a few file reads, about 100 µs."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._busy, self._total, self._cores = self._times()

    @property
    def memory_total_bytes(self) -> int:
        """0 where the host does not say."""
        return self._memory()[0]

    def sample(self) -> HostUsage:
        """The processor's share is that since the sample before, or since the meter was made."""
        busy, total, cores = self._times()
        passed = total - self._total
        fraction = min(1.0, max(0.0, (busy - self._busy) / passed)) if passed > 0 else 0.0
        self._busy, self._total, self._cores = busy, total, cores
        memory_total, memory_free = self._memory()
        return HostUsage(
            cpu_fraction=fraction,
            cores=cores,
            memory_total_bytes=memory_total,
            memory_used_bytes=max(0, memory_total - memory_free),
            load_1m=self._load(),
        )

    def _times(self) -> tuple[int, int, int]:
        """(busy ticks, all ticks, cores)."""
        lines = self._read("stat").splitlines()
        fields = [int(field) for field in lines[0].split()[1:9]] if lines else []
        cores = sum(line.startswith(b"cpu") for line in lines) - 1
        if len(fields) < 8:
            return 0, 0, os.cpu_count() or 1
        # user nice system idle iowait irq softirq steal; guest time is in user already.
        idle = fields[3] + fields[4]
        return sum(fields) - idle, sum(fields), max(1, cores)

    def _memory(self) -> tuple[int, int]:
        """(total, available) bytes."""
        figures: dict[bytes, int] = {}
        for line in self._read("meminfo").splitlines():
            name, _, rest = line.partition(b":")
            if name in {b"MemTotal", b"MemAvailable", b"MemFree"}:
                figures[name] = int(rest.split()[0]) * 1024
        return figures.get(b"MemTotal", 0), figures.get(b"MemAvailable", figures.get(b"MemFree", 0))

    def _load(self) -> float:
        fields = self._read("loadavg").split()
        return float(fields[0]) if fields else 0.0

    def _read(self, name: str) -> bytes:
        try:
            with open(f"{self._proc}/{name}", "rb") as file:  # noqa: PTH123  # three small files a second
                return file.read()
        except OSError:
            return b""
