"""Chooses what holds the limits on this host, by doing it, and makes each agent's control groups."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from toka_runtime.limits.cgroup_branch import Branch, BranchV1, BranchV2, Counts, Figures, remove_groups
from toka_runtime.limits.cgroup_control import Freezer, Killer, KillerV1, KillerV2
from toka_runtime.limits.cgroup_files import KERNEL, CgroupFiles, Places, own_places
from toka_runtime.limits.proc_files import parse_stat
from toka_runtime.protocol.limit_name import LimitName

if TYPE_CHECKING:
    # For a fork server that is to load beside the models, this is imported before them.
    from toka_runtime.protocol.ids import RunId
    from toka_runtime.protocol.usage import ResourceLimits

FIX = "start the runtime with control groups of its own: systemd-run --user --scope -p Delegate=yes toka-runtime …"
_NAME = re.compile(r"toka-(\d+)-(\d+)-(\d+)(-runtime)?")


class Held:
    """The control groups of one run. Without any (nothing to hold, or nothing here to hold it) all is empty."""

    def __init__(self, groups: dict[Branch, Path], files: CgroupFiles = KERNEL, *, processes: int = 0) -> None:
        self._groups = groups
        self.processes = processes
        """The figure for LimitName.PROCESSES."""
        self._files = files
        controlled = next(((branch, group) for branch, group in groups.items() if branch.controls), None)
        self.freezer: Freezer | None = controlled[0].freezer(controlled[1]) if controlled else None
        """Stops all of the tree, its shim included."""
        self.killer: Killer | None = controlled[0].killer(controlled[1]) if controlled else None

    @property
    def groups(self) -> tuple[str, ...]:
        """Folders: the first process of the tree writes itself into their `cgroup.procs`, before anything else."""
        return tuple(str(group) for group in self._groups.values())

    @property
    def name(self) -> str:
        """The last two parts of the groups' paths: the same in every hierarchy, and nobody else's."""
        group = next(iter(self._groups.values()), None)
        return "" if group is None else "/".join(group.parts[-2:])

    @property
    def limits(self) -> frozenset[LimitName]:
        return frozenset(limit for branch in self._groups for limit in branch.holds)

    def mechanism(self, limit: LimitName) -> str:
        """ "" when no group holds it."""
        return next((branch.mechanism(limit) for branch in self._groups if limit in branch.holds), "")

    def counts(self) -> Counts:
        """What the kernel has counted. Blocking, about 20 µs a group. What can't be read counts as not held."""
        found = Counts()
        for branch, group in self._groups.items():
            if not branch.holds:
                continue
            try:
                counts = branch.counts(group)
            except (OSError, ValueError):
                continue
            found = Counts(
                memory_kills=_known(found.memory_kills, counts.memory_kills),
                refused_processes=_known(found.refused_processes, counts.refused_processes),
                held_back_s=_known(found.held_back_s, counts.held_back_s),
            )
        return found

    def memory_peak_bytes(self) -> int:
        """The most that the tree has had at once; 0 where no group knows. Blocking."""
        for branch, group in self._groups.items():
            if LimitName.MEMORY in branch.holds:
                with suppress(OSError, ValueError):
                    return branch.memory_peak_bytes(group)
        return 0

    def close(self) -> bool:
        """After the tree has ended. False: processes are left in a group; it is removed when the runtime ends, or by
        the next one. Blocking. Safe to call twice."""
        # A new mapping: a look at the counts may be under way in another thread.
        self._groups = {branch: group for branch, group in self._groups.items() if not branch.remove(group)}
        return not self._groups


def _known(first: float | None, second: float | None) -> Any:
    return first if second is None else second


class Enforcer:
    """Of one runtime. Blocking calls of a few file operations; thread-safe."""

    def __init__(self, branches: Iterable[Branch] = (), files: CgroupFiles = KERNEL, problem: str = "") -> None:
        """Without branches: no control groups. Use `open`."""
        self._branches = tuple(branches)
        self._files = files
        self.problem = problem
        """Why no group holds memory, CPU and processes; "" when all three are held."""
        self._names = 0
        self._lock = Lock()

    @classmethod
    def open(cls, places: Places | None = None, files: CgroupFiles = KERNEL) -> Enforcer:
        """Call before any process is started: what is started later follows this one into its group. Never raises:
        where no group can be had, the others hold what they can. Groups that a dead runtime left are removed."""
        try:
            places = own_places() if places is None else places
        except OSError as error:
            return cls(problem=f"no control groups here: {error.strerror}")
        for folder in (places.v2, *places.v1.values()):
            if folder is not None:
                remove_stale(folder, files)
        name = branch_name(os.getpid())
        branches: list[Branch] = []
        problems: list[str] = []
        if places.v2 is None:
            problems.append("cgroup v2 is not mounted")
        else:
            try:
                v2 = BranchV2(places.v2, name, files)
                branches.append(_tried(v2))
                problems += [v2.problem] if v2.problem else []
            except OSError as error:
                problems.append(f"{places.v2}: {error.strerror}")
        for controller, folder in places.v1.items():
            if controller == "freezer" and branches:
                # Version 2 freezes and kills without any controller.
                continue
            try:
                branches.append(_tried(BranchV1(folder, name, controller, files)))
            except OSError as error:
                problems.append(f"{folder}: {error.strerror}")
        held = {limit for branch in branches for limit in branch.holds}
        whole = held >= {LimitName.MEMORY, LimitName.CPU, LimitName.PROCESSES}
        return cls(branches, files, "" if whole else "; ".join(problems))

    def mechanism(self, limit: LimitName) -> str:
        """What would hold it: "" when no control group can."""
        return next((branch.mechanism(limit) for branch in self._branches if limit in branch.holds), "")

    def prepare(self, run: RunId, limits: ResourceLimits, *, processes: int, whole: bool = True) -> Held:
        """Groups for one run, with its limits in force, still empty. `processes`: the declared number, or the default.
        Raises OSError; nothing is left then."""
        figures = Figures(limits.memory_bytes, limits.cpu_fraction, processes, whole)
        with self._lock:
            self._names += 1
            # What is in a name is the runtime's own, whoever made up the run's.
            name = f"{self._names}-{re.sub('[^A-Za-z0-9_-]', '_', run)[:64]}"
        groups: dict[Branch, Path] = {}
        try:
            for branch in self._branches:
                if branch.controls or _wanted(branch, figures):
                    groups[branch] = branch.add(name, figures)
        except OSError:
            Held(groups, self._files).close()
            raise
        return Held(groups, self._files, processes=processes)

    def close(self) -> None:
        """Remove the runtime's branches; what still runs in them is killed. Safe to call twice."""
        branches, self._branches = self._branches, ()
        for branch in branches:
            with suppress(OSError):
                branch.close()


def _tried(branch: Branch) -> Branch:
    """It holds what it says: a group was made and limited. Raises OSError; nothing is left then."""
    try:
        branch.remove(branch.add("probe", Figures(1 << 30, 1.0, 100)))
    except OSError:
        branch.close()
        raise
    return branch


def _wanted(branch: Branch, figures: Figures) -> bool:
    asked = {
        LimitName.MEMORY: figures.memory_bytes,
        LimitName.CPU: figures.cpu_fraction,
        LimitName.PROCESSES: figures.processes,
    }
    return any(asked[limit] is not None for limit in branch.holds)


# -- names, and what a dead runtime left ------------------------------------------------------------------------------


def branch_name(pid: int) -> str:
    """Tells whose it is: PID namespace, pid and start time of the runtime. Raises OSError for one that has ended."""
    return f"toka-{_pid_namespace()}-{pid}-{_started_ticks(pid)}"


def is_branch(name: str) -> bool:
    """A runtime's own branch, or the group that it has moved into itself."""
    return _NAME.fullmatch(name) is not None


def remove_stale(own: Path, files: CgroupFiles = KERNEL) -> list[str]:
    """Branches below `own` whose runtime is dead: what is left in them is killed, and they are removed. Names of what
    was found. Another PID namespace's are left alone: nobody here can tell whether it lives."""
    found: list[str] = []
    try:
        groups = files.groups(own)
    except OSError:
        return found
    for group in groups:
        match = _NAME.fullmatch(group.name)
        if match is None or int(match[1]) != _pid_namespace():
            continue
        with suppress(OSError):
            if _started_ticks(int(match[2])) == int(match[3]):
                continue
        found.append(group.name)
        with suppress(OSError):
            remove_groups(group, _killer_for(group, files), files)
    return found


def _killer_for(group: Path, files: CgroupFiles) -> Callable[[Path], Killer] | None:
    """By what the hierarchy offers."""
    for name, killer in (("cgroup.events", KillerV2), ("freezer.state", KillerV1)):
        with suppress(OSError):
            files.read(group / name)
            return lambda group, killer=killer: killer(group, files)
    return None


def _pid_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


def _started_ticks(pid: int) -> int:
    stat = parse_stat(Path(f"/proc/{pid}/stat").read_bytes())
    if stat is None:
        raise ProcessLookupError(f"no process {pid}")
    return stat.started_ticks
