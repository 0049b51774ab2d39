"""The probe tries what it says: as root, as an ordinary user, and where pieces of the kernel are gone."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.child import in_child
from fakes.processes import processes_naming
from toka_runtime.limits import cgroup_files
from toka_runtime.sandbox import bwrap, landlock, namespaces, probe_badges, seccomp, view
from toka_runtime.sandbox.namespaces import PrimitiveMissing
from toka_runtime.sandbox.probe import Area, Check, HostProbe, Strength, Tier, probe_host
from toka_runtime.sandbox.probe_badges import Evidence, badges_of, tier_of
from toka_runtime.sandbox.probe_children import Seen, attempt, attempts
from toka_runtime.sandbox.probe_inside import BY_BWRAP
from toka_runtime.sandbox.probe_primitives import NAMESPACES, unused_user

NOBODY = 61000


def probed(folder: Path, broken: Callable[[], None] | None = None, *, user: int | None = None) -> HostProbe:
    """`probe_host` in a child, after `broken` has taken a piece away there; as `user` when this is root."""
    folder.chmod(0o777)
    for parent in folder.parents:
        if parent != Path("/") and parent.stat().st_uid == os.getuid() and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o111)

    def act() -> str:
        tempfile.tempdir = str(folder)
        if user is not None:
            # The interpreter that runs the tests may lie where nobody else may look.
            view._interpreter = list  # type: ignore[attr-defined]
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        if broken is not None:
            broken()
        return probe_host().model_dump_json()

    return HostProbe.model_validate_json(in_child(act))


@pytest.fixture(params=["self", "ordinary user"])
def user(request: pytest.FixtureRequest) -> int | None:
    if request.param == "self":
        return None
    if os.getuid() != 0:
        pytest.skip("already an ordinary user")
    return NOBODY


def test_this_host(tmp_path: Path, user: int | None) -> None:
    probe = probed(tmp_path, user=user)
    if not probe.sandbox:
        pytest.skip(f"no confinement here: {probe.reason}")
    assert probe.tier in (Tier.A, Tier.B)
    assert probe.uid == (os.getuid() if user is None else user)
    assert [badge.area for badge in probe.badges] == list(Area)
    strength = {badge.area: badge.strength for badge in probe.badges}

    def held(controller: str) -> Strength:
        names = ("cgroup.v2", f"cgroup.v1.{controller}")
        grouped = any(check.ok for check in probe.checks if check.name in names)
        return Strength.ENFORCED if grouped else Strength.APPROXIMATE

    assert strength == {
        Area.FS: Strength.ENFORCED,
        Area.NET: Strength.ENFORCED,
        Area.KILL: Strength.ENFORCED,
        Area.PROCS: Strength.ENFORCED,
        Area.MEM: held("memory"),
        Area.CPU: held("cpu"),
    }
    for badge in probe.badges:
        assert badge.effect
        assert bool(badge.reason) == (badge.strength is not Strength.ENFORCED)
        assert bool(badge.mechanism) == (badge.strength is not Strength.NONE)
    for name in (
        "confinement",
        *probe_badges.NEEDED,
        *(f"namespace.{name}" for name in NAMESPACES),
        "root_view",
        "observer",
    ):
        check = probe.check(name)
        assert check is not None, name
        assert check.ok, check


def test_nothing_is_left_behind(tmp_path: Path, user: int | None) -> None:
    def groups() -> list[Path]:
        return [path for path in Path("/sys/fs/cgroup").rglob(f"toka-probe-{'*'}") if path.is_dir()]

    before = groups()
    probed(tmp_path, user=user)
    assert list(tmp_path.iterdir()) == []
    assert processes_naming(str(tmp_path)) == []
    assert [group for group in groups() if group not in before] == []


def unshare_refused() -> None:
    class Libc:
        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def unshare(self, flags: object) -> int:
            import ctypes

            ctypes.set_errno(errno.EPERM)
            return -1

    real = namespaces._libc  # type: ignore[attr-defined]
    namespaces._libc = Libc()  # type: ignore[attr-defined]


def nobody_makes_namespaces() -> None:
    unshare_refused()
    bwrap.find = lambda: None


def no_landlock() -> None:
    landlock.abi = lambda: 0


def no_seccomp() -> None:
    def install(machine: str = "") -> None:
        raise OSError(errno.EINVAL, "seccomp filter: Invalid argument")

    seccomp.install = install


def no_listener() -> None:
    def listen(numbers: tuple[int, ...]) -> int:
        raise OSError(errno.EINVAL, "seccomp listener: Invalid argument")

    seccomp.listen = listen


def test_without_a_listener_agents_start_and_the_badge_says_what_is_lost(tmp_path: Path) -> None:
    probe = probed(tmp_path, no_listener)
    if not probe.sandbox:
        pytest.skip(f"no confinement here: {probe.reason}")
    check = probe.check("observer")
    assert check is not None
    assert not check.ok
    assert "brokered only" in next(badge.effect for badge in probe.badges if badge.area is Area.FS)


def no_proc() -> None:
    real = namespaces._mount  # type: ignore[attr-defined]

    def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
        if kind == "proc":
            raise PrimitiveMissing(errno.EPERM, f"mount proc on {target}")
        real(source, target, kind, flags, data)

    namespaces._mount = mount  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("broken", "tiers", "said"),
    [
        (nobody_makes_namespaces, {Tier.D}, ("unshare", "EPERM")),
        (no_landlock, {Tier.E}, ("landlock", "ENOSYS")),
        (no_seccomp, {Tier.A, Tier.B}, ("seccomp", "EINVAL")),
        (no_proc, {Tier.D}, ("mount proc", "EPERM")),
    ],
)
def test_what_is_missing_is_named_and_nothing_is_promised(
    tmp_path: Path, broken: Callable[[], None], tiers: set[Tier], said: tuple[str, ...]
) -> None:
    probe = probed(tmp_path, broken)
    assert not probe.sandbox
    assert probe.tier in tiers
    for word in said:
        assert word in probe.reason
    assert probe.fix
    assert {badge.strength for badge in probe.badges} <= {Strength.NONE, Strength.APPROXIMATE}
    assert {badge.reason for badge in probe.badges} == {probe.reason}


@pytest.mark.skipif(bwrap.find() is None, reason="no bwrap here")
def test_where_only_bwrap_makes_namespaces_everything_holds_and_that_is_told(tmp_path: Path) -> None:
    probe = probed(tmp_path, unshare_refused)
    assert probe.sandbox, probe.reason
    assert probe.tier is Tier.C
    assert "bwrap" in probe.reason
    assert "Operation not permitted" in probe.reason
    assert probe.fix
    badges = {badge.area: badge for badge in probe.badges}
    for area in (Area.FS, Area.NET, Area.KILL):
        assert badges[area].strength is Strength.ENFORCED
        assert "made by bwrap" in badges[area].mechanism
    assert processes_naming(str(tmp_path)) == []


def test_a_wall_that_stands_and_does_not_hold_is_found(tmp_path: Path) -> None:
    def nothing_forbidden() -> None:
        seccomp.install = lambda machine="": None

    probe = probed(tmp_path, nothing_forbidden)
    assert not probe.sandbox
    assert "confined.seccomp" in probe.reason


def evidence(
    *failed: str, root: bool = False, by_bwrap: bool = False, sysctls: dict[str, str] | None = None
) -> Evidence:
    names = ("confinement", *probe_badges.NEEDED, "landlock", "bwrap", "cgroup.v2", "root_view", "namespace.user")
    names = (*names, "confined.memory", "confined.processes", *(f"namespace.{name}" for name in NAMESPACES))
    names = (*names, BY_BWRAP) if by_bwrap else names
    checks = [
        Check(name=name, ok=name not in failed, detail="tried", errno="EPERM" if name in failed else "")
        for name in names
    ]
    return Evidence(checks, root=root, sysctls=sysctls or {})


@pytest.mark.parametrize(
    ("failed", "tier"),
    [
        ((), Tier.A),
        (("cgroup.v2",), Tier.B),
        (("confinement", "namespace.pid"), Tier.D),
        (("confinement", "root_view", "bwrap"), Tier.D),
        (("landlock", "confinement"), Tier.E),
    ],
)
def test_the_ladder(failed: tuple[str, ...], tier: Tier) -> None:
    assert tier_of(evidence(*failed)) is tier


def test_what_bwrap_makes_is_the_third_tier_and_the_setting_behind_it_is_named() -> None:
    file = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
    found = evidence("namespace.user", by_bwrap=True, sysctls={file: "1"})
    assert tier_of(found) is Tier.C
    assert not found.problem
    assert "kernel.apparmor_restrict_unprivileged_userns = 1" in found.second_best
    assert "AppArmor profile" in found.fix
    assert evidence(by_bwrap=True).fix
    assert tier_of(evidence("landlock", by_bwrap=True)) is Tier.E
    assert not evidence().second_best


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone"),
        ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor"),
    ],
)
def test_the_setting_that_forbids_is_named_with_its_fix(path: str, value: str, word: str) -> None:
    forbidden = evidence("confinement", "namespace.user", sysctls={path: value})
    assert word in forbidden.fix
    assert path.rpartition("/")[2] in forbidden.problem
    assert not evidence("confinement", root=True, sysctls={path: value}).problem.endswith(value)


@pytest.mark.parametrize("name", probe_badges.NEEDED)
def test_each_needed_check_alone_closes_the_door(name: str) -> None:
    assert name in evidence(name).problem
    assert badges_of(evidence(name))[0].strength is Strength.NONE


def test_limits_that_have_no_effect_are_badges_not_doors() -> None:
    loose = evidence("confined.memory", "confined.processes", "cgroup.v2")
    assert not loose.problem
    badges = {badge.area: badge for badge in badges_of(loose)}
    assert badges[Area.PROCS].strength is Strength.NONE
    assert badges[Area.MEM].strength is badges[Area.CPU].strength is Strength.APPROXIMATE
    assert badges[Area.MEM].mechanism == "a watchdog for the tree"
    assert "Delegate=yes" in badges[Area.MEM].fix


@pytest.mark.parametrize(
    ("failed", "held", "memory"),
    [((), (), "cgroup v2 memory.max"), (("cgroup.v2",), ("memory", "cpu"), "cgroup v1 memory.limit_in_bytes")],
)
def test_what_a_control_group_holds_is_enforced_and_named(
    failed: tuple[str, ...], held: tuple[str, ...], memory: str
) -> None:
    found = evidence(*failed)
    found.checks |= {f"cgroup.v1.{name}": Check(name=f"cgroup.v1.{name}", ok=True, detail="") for name in held}
    badges = {badge.area: badge for badge in badges_of(found)}
    assert badges[Area.MEM].strength is badges[Area.CPU].strength is Strength.ENFORCED
    assert badges[Area.MEM].mechanism == memory
    assert not badges[Area.MEM].reason


def test_a_try_that_hangs_or_dies_is_a_no() -> None:
    def hang() -> dict[str, Seen]:
        import signal

        signal.pause()
        return {}

    (hung,) = attempts("hangs", hang, deadline_s=0.05)
    assert not hung.ok
    assert "0.05 s" in hung.detail
    died = attempt("dies", lambda: os._exit(3))
    assert not died.ok
    assert "ended" in died.detail
    refused = attempt("refused", lambda: (_ for _ in ()).throw(OSError(errno.EPERM, "no")))
    assert (refused.ok, refused.errno) == (False, "EPERM")


def test_reading_where_control_groups_are() -> None:
    mounts = (
        "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
        "35 31 0:32 /docker/1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        "broken line\n"
    )
    found = cgroup_files.mount_points(mounts)
    assert found["memory"] == ("/sys/fs/cgroup/memory", "/docker/1")
    assert found["cpu"][0] == "/sys/fs/cgroup/cpu,cpuacct"
    assert found[""][0] == "/sys/fs/cgroup/unified"
    assert cgroup_files.own_groups("4:memory:/a:b\n1:cpu,cpuacct:/\n0::/x\n") == {
        "memory": "/a:b",
        "cpu": "/",
        "cpuacct": "/",
        "": "/x",
    }


def test_the_user_that_is_tried_with_is_one_of_the_agents() -> None:
    assert view.FIRST_USER <= unused_user() <= view.LAST_USER
