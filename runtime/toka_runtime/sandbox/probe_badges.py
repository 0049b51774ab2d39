"""From what was tried to what an operator reads: the tier, the six badges, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from toka_runtime.limits.enforcer import FIX
from toka_runtime.protocol.limits import Strength
from toka_runtime.protocol.protections import Area, Badge, Tier
from toka_runtime.sandbox.in_force import unheld
from toka_runtime.sandbox.observer import BROKERED_ONLY, KERNEL_OBSERVED
from toka_runtime.sandbox.observer_probe import OBSERVER
from toka_runtime.sandbox.probe_cgroups import V2
from toka_runtime.sandbox.probe_confined import KILLED
from toka_runtime.sandbox.probe_inside import BY_BWRAP, WHOLE
from toka_runtime.sandbox.probe_model import Check
from toka_runtime.sandbox.probe_primitives import NAMESPACES

SYSCTLS: dict[str, tuple[str, str]] = {
    "/proc/sys/kernel/unprivileged_userns_clone": ("0", "sysctl kernel.unprivileged_userns_clone=1"),
    "/proc/sys/user/max_user_namespaces": ("0", "sysctl user.max_user_namespaces=15000"),
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
        "1",
        "an AppArmor profile that allows `userns` for this Python, or "
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
}
"""File → (the value that forbids user namespaces, what allows them)."""

NEEDED = (
    "confined.view",
    "confined.network",
    "confined.capabilities",
    "confined.seccomp",
    "confined.paths",
    KILLED,
)
"""Without any of these an agent with `sandbox: true` must not run."""


class Evidence:
    """Checks by name, and what a failed one means on this host."""

    def __init__(self, checks: Sequence[Check], *, root: bool, sysctls: Mapping[str, str] | None = None) -> None:
        """`sysctls`: file → value; read from this host when it is None."""
        self.checks = {check.name: check for check in checks}
        self.root = root
        self._sysctls = _read_sysctls() if sysctls is None else dict(sysctls)

    def ok(self, name: str) -> bool:
        check = self.checks.get(name)
        return check is not None and check.ok

    def why(self, name: str) -> str:
        """`check: what was seen (EPERM)`."""
        check = self.checks.get(name)
        if check is None:
            return f"{name}: not tried"
        number = f" ({check.errno})" if check.errno else ""
        return f"{name}: {check.detail}{number}"

    @property
    def problem(self) -> str:
        """ "" when agents with `sandbox: true` start."""
        if not self.ok(WHOLE):
            return self._told(WHOLE)
        broken = [name for name in NEEDED if not self.ok(name)]
        return "; ".join(self.why(name) for name in broken)

    @property
    def second_best(self) -> str:
        """Why bwrap makes the namespaces; "" where the runtime does."""
        return self._told(BY_BWRAP) if self.ok(BY_BWRAP) else ""

    @property
    def fix(self) -> str:
        """For `problem`, else for `second_best`."""
        if not self.problem and not self.second_best:
            return ""
        forbidding = self._forbidding()
        if forbidding is not None:
            return forbidding[1]
        if not self.problem:
            return "allow this user to make user namespaces: agents start faster then"
        if not self.ok("landlock"):
            return "a kernel with Landlock (5.13 or later), and landlock in the lsm= list of its command line"
        if not self.ok("seccomp"):
            return "a kernel with CONFIG_SECCOMP_FILTER, and a container whose profile allows seccomp"
        if not self.ok("namespace.user") and not self.root:
            return "run outside of a container that forbids user namespaces, or allow them in its profile"
        return "what the reason names must be allowed here; in a container: its seccomp profile and capabilities"

    def _told(self, name: str) -> str:
        forbidding = self._forbidding()
        return self.why(name) + (f"; {forbidding[0]}" if forbidding else "")

    def _forbidding(self) -> tuple[str, str] | None:
        """(the setting, what allows it) when a setting of the host forbids user namespaces to an ordinary user."""
        if self.root:
            return None
        for path, (value, fix) in SYSCTLS.items():
            if self._sysctls.get(path) == value:
                return f"{path.removeprefix('/proc/sys/').replace('/', '.')} = {value}", fix
        return None


def _read_sysctls() -> dict[str, str]:
    found: dict[str, str] = {}
    for path in SYSCTLS:
        try:
            found[path] = Path(path).read_text().strip()
        except OSError:
            continue
    return found


def tier_of(evidence: Evidence) -> Tier:
    if not evidence.ok("landlock"):
        return Tier.E
    if evidence.ok(BY_BWRAP):
        return Tier.C
    pieces = all(evidence.ok(f"namespace.{name}") for name in NAMESPACES) and evidence.ok("root_view")
    if evidence.ok(WHOLE) or pieces:
        return Tier.A if evidence.ok(V2) else Tier.B
    return Tier.D


def badges_of(evidence: Evidence) -> tuple[Badge, ...]:
    """One for each area, of what the runtime uses today."""
    if evidence.problem:
        return unheld(evidence.problem, fix=evidence.fix, effect="no agent with `sandbox: true` starts; without walls ")
    return (
        _files(evidence),
        _network(evidence),
        _kill(evidence),
        _processes(evidence),
        _memory(evidence),
        _cpu(evidence),
    )


def _maker(evidence: Evidence) -> str:
    return " made by bwrap" if evidence.second_best else ""


def _files(evidence: Evidence) -> Badge:
    user = ", own user" if evidence.root else ""
    return Badge(
        area=Area.FS,
        strength=Strength.ENFORCED,
        mechanism=f"mount namespace with a root of its own{_maker(evidence)}, Landlock for each call{user}",
        effect="an agent sees system programs, its own folder and its scratch; a tool call only what it was allowed; "
        + (KERNEL_OBSERVED if evidence.ok(OBSERVER) else BROKERED_ONLY),
    )


def _network(evidence: Evidence) -> Badge:
    second = ", Landlock's TCP rules" if evidence.ok("confined.tcp") else ""
    return Badge(
        area=Area.NET,
        strength=Strength.ENFORCED,
        mechanism=f"network namespace{_maker(evidence)}, seccomp{second}",
        effect="no way out but the runtime's proxy, which lets allowed hosts through",
    )


def _kill(evidence: Evidence) -> Badge:
    return Badge(
        area=Area.KILL,
        strength=Strength.ENFORCED,
        mechanism=f"PID namespace{_maker(evidence)}",
        effect="pause and kill reach every process of an agent, wherever it went",
    )


def _processes(evidence: Evidence) -> Badge:
    held = evidence.ok("confined.processes")
    whose = "an agent's own user" if evidence.root else "your user in an agent's user namespace"
    holders = [_group_limit(evidence, "pids", "pids.max"), f"RLIMIT_NPROC, {whose}" if held else ""]
    mechanism = " and ".join(filter(None, holders))
    return Badge(
        area=Area.PROCS,
        strength=Strength.ENFORCED if mechanism else Strength.NONE,
        mechanism=mechanism,
        reason="" if mechanism else evidence.why("confined.processes"),
        effect="a fork bomb stops at the limit of its agent" if mechanism else "a fork bomb takes the whole machine",
        fix="" if mechanism else "run each runtime as a user of its own with a limit (ulimit -u)",
    )


def _memory(evidence: Evidence) -> Badge:
    if mechanism := _group_limit(evidence, "memory", "memory.max", "memory.limit_in_bytes"):
        return _held(
            Area.MEM, mechanism, "an agent's processes together, with all that they share, keep to its max_memory"
        )
    each = "RLIMIT_DATA for each process, " if evidence.ok("confined.memory") else ""
    return Badge(
        area=Area.MEM,
        strength=Strength.APPROXIMATE,
        mechanism=f"{each}a watchdog for the tree",
        reason=evidence.why(V2),
        effect="an agent that passes its max_memory is ended a quarter of a second later, at most",
        fix=FIX,
    )


def _cpu(evidence: Evidence) -> Badge:
    if mechanism := _group_limit(evidence, "cpu", "cpu.max", "cpu.cfs_quota_us"):
        return _held(Area.CPU, mechanism, "an agent gets its max_cpu and no more")
    return Badge(
        area=Area.CPU,
        strength=Strength.APPROXIMATE,
        mechanism="stopped and let go in turn, by what it has used",
        reason=evidence.why(V2),
        effect="an agent keeps to its max_cpu on average, not at each moment",
        fix=FIX,
    )


def _held(area: Area, mechanism: str, effect: str) -> Badge:
    return Badge(area=area, strength=Strength.ENFORCED, mechanism=mechanism, effect=effect)


def _group_limit(evidence: Evidence, controller: str, file: str, file_v1: str = "") -> str:
    """ "" when no control group holds it here."""
    if evidence.ok(V2):
        return f"cgroup v2 {file}"
    return f"cgroup v1 {file_v1 or file}" if evidence.ok(f"cgroup.v1.{controller}") else ""
