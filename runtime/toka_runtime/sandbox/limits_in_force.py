"""Which mechanism holds each limit of a run, said before it starts."""

from __future__ import annotations

from toka_runtime.limits import defaults
from toka_runtime.limits.enforcer import FIX, Enforcer
from toka_runtime.protocol.limits import LimitInForce, LimitName, Strength
from toka_runtime.protocol.usage import ResourceLimits
from toka_runtime.sandbox.shim import OPEN_FILES

UNCONFINED = "the agent runs unconfined"


def limits_in_force(limits: ResourceLimits, enforcer: Enforcer, *, confined: bool) -> tuple[LimitInForce, ...]:
    """Declared ones first; then the defaults."""
    found = [
        _memory(limits.memory_bytes, enforcer, confined),
        _cpu(limits.cpu_fraction, enforcer),
        _processes(limits.processes, enforcer, confined),
        _exact(LimitName.TIMEOUT, limits.timeout_s, "the runtime's clock, which stands still in a pause"),
        _disk(limits.disk_bytes),
        _network(limits.network_bytes_per_s, confined),
        LimitInForce(
            limit=LimitName.FILE_SIZE,
            figure=limits.disk_bytes or defaults.FILE_BYTES,
            declared=False,
            strength=Strength.ENFORCED if confined else Strength.NONE,
            mechanism="RLIMIT_FSIZE" if confined else "",
            reason="" if confined else UNCONFINED,
        ),
        LimitInForce(
            limit=LimitName.DESCRIPTORS,
            figure=OPEN_FILES,
            declared=False,
            strength=Strength.ENFORCED,
            mechanism="RLIMIT_NOFILE, for each process",
        ),
        LimitInForce(
            limit=LimitName.OUTPUT,
            figure=defaults.OUTPUT_BYTES,
            declared=False,
            strength=Strength.ENFORCED,
            mechanism="the runtime keeps head and tail",
        ),
    ]
    return tuple(sorted((limit for limit in found if limit is not None), key=lambda limit: not limit.declared))


def _exact(limit: LimitName, figure: float | None, mechanism: str) -> LimitInForce | None:
    if figure is None:
        return None
    return LimitInForce(limit=limit, figure=figure, declared=True, strength=Strength.ENFORCED, mechanism=mechanism)


def _memory(figure: float | None, enforcer: Enforcer, confined: bool) -> LimitInForce | None:
    if (mechanism := enforcer.mechanism(LimitName.MEMORY)) or figure is None:
        return _exact(LimitName.MEMORY, figure, mechanism)
    return LimitInForce(
        limit=LimitName.MEMORY,
        figure=figure,
        declared=True,
        strength=Strength.APPROXIMATE,
        mechanism="RLIMIT_DATA for each process, watchdog for the tree" if confined else "watchdog",
        reason=f"processes together may pass it for a quarter of a second; {_missing(enforcer)}",
    )


def _cpu(figure: float | None, enforcer: Enforcer) -> LimitInForce | None:
    if (mechanism := enforcer.mechanism(LimitName.CPU)) or figure is None:
        return _exact(LimitName.CPU, figure, mechanism)
    return LimitInForce(
        limit=LimitName.CPU,
        figure=figure,
        declared=True,
        strength=Strength.APPROXIMATE,
        mechanism="stopped and let go in turn, by what it has used",
        reason=f"it holds on average, not at each moment; {_missing(enforcer)}",
    )


def _processes(figure: float | None, enforcer: Enforcer, confined: bool) -> LimitInForce | None:
    mechanism = enforcer.mechanism(LimitName.PROCESSES) or ("RLIMIT_NPROC, a user of its own" if confined else "")
    if not mechanism and figure is None:
        return None
    return LimitInForce(
        limit=LimitName.PROCESSES,
        figure=figure or defaults.PROCESSES,
        declared=figure is not None,
        strength=Strength.ENFORCED if mechanism else Strength.APPROXIMATE,
        mechanism=mechanism or "watchdog",
        reason="" if mechanism else f"{UNCONFINED}; {_missing(enforcer)}",
    )


def _disk(figure: float | None) -> LimitInForce | None:
    if figure is None:
        return None
    return LimitInForce(
        limit=LimitName.DISK,
        figure=figure,
        declared=True,
        strength=Strength.APPROXIMATE,
        mechanism="watchdog, RLIMIT_FSIZE for each file",
        reason="its folders are measured, not bounded: what is written until then is there",
    )


def _network(figure: float | None, confined: bool) -> LimitInForce | None:
    if confined or figure is None:
        return _exact(LimitName.NETWORK, figure, "the proxy, its only way out")
    return LimitInForce(
        limit=LimitName.NETWORK, figure=figure, declared=True, strength=Strength.NONE, mechanism="", reason=UNCONFINED
    )


def _missing(enforcer: Enforcer) -> str:
    return f"{enforcer.problem}; {FIX}" if enforcer.problem else "no control group"
