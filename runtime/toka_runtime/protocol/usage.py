"""Resources: what is used, what is allowed. Units are in the names."""

from __future__ import annotations

from toka_runtime.protocol.model import Model


class ResourceLimits(Model):
    """What an agent may use; None: no limit declared."""

    memory_bytes: int | None = None
    cpu_fraction: float | None = None
    """Of one core: 0.75 is three quarters of a core, 2.0 two cores."""
    timeout_s: float | None = None
    disk_bytes: int | None = None
    network_bytes_per_s: int | None = None
    processes: int | None = None


class Usage(Model):
    """One sample of an agent's whole process tree."""

    cpu_fraction: float = 0.0
    """Of one core, since the sample before."""
    cpu_s: float = 0.0
    """Consumed since the run began."""
    memory_bytes: int = 0
    """Sum of proportional or resident set sizes; `memory_is_pss` says which."""
    memory_is_pss: bool = False
    processes: int = 0
    threads: int = 0
    read_bytes: int = 0
    written_bytes: int = 0


class HostUsage(Model):
    cpu_fraction: float = 0.0
    """Of all cores, 0..1."""
    cores: int = 1
    memory_total_bytes: int = 0
    memory_used_bytes: int = 0
    load_1m: float = 0.0


class TokenUsage(Model):
    """Tokens of one model call or a sum of calls."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    estimated: bool = False
    """True where a cancelled or broken stream left part of the figure to an estimate."""

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens + self.cache_read_tokens + self.cache_write_tokens

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            estimated=self.estimated or other.estimated,
        )


class ModelPrice(Model):
    """US dollars a million tokens."""

    model: str
    input: float
    output: float
    cache_read: float | None = None
    """None: as input."""
    cache_write: float | None = None

    def cost_usd(self, usage: TokenUsage) -> float:
        cache_read = self.input if self.cache_read is None else self.cache_read
        cache_write = self.input if self.cache_write is None else self.cache_write
        dear = usage.input_tokens * self.input + usage.output_tokens * self.output
        return (dear + usage.cache_read_tokens * cache_read + usage.cache_write_tokens * cache_write) / 1e6


class Budget(Model):
    max_tokens: int | None = None
    max_cost_usd: float | None = None
