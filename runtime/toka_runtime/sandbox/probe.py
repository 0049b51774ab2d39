"""What this host's kernel lets the runtime enforce: every protection is tried in a throw-away process, none is guessed
from a version. `toka-runtime doctor` prints it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from functools import partial

from toka_runtime.protocol.limits import Strength
from toka_runtime.protocol.protections import TIER_MEANING, Area, Badge, Tier
from toka_runtime.sandbox.probe_badges import Evidence, badges_of, tier_of
from toka_runtime.sandbox.probe_cgroups import cgroups
from toka_runtime.sandbox.probe_children import attempts
from toka_runtime.sandbox.probe_confined import try_confinement
from toka_runtime.sandbox.probe_inside import WHOLE
from toka_runtime.sandbox.probe_model import Check, HostProbe
from toka_runtime.sandbox.probe_primitives import primitives

__all__ = ["Area", "Badge", "Check", "HostProbe", "Strength", "Tier", "probe_host"]


def probe_host() -> HostProbe:
    """Blocking, a few hundred milliseconds. It forks: call it while this process has a single thread, or in one of its
    own (`toka-runtime doctor --json`). Raises OSError when it can't even make a folder for temporary files or a
    process. Nothing is left behind."""
    began = time.perf_counter()
    checks = [*_confinement(), *primitives(), *cgroups()]
    evidence = Evidence(checks, root=os.getuid() == 0)
    tier = tier_of(evidence)
    machine = os.uname()
    return HostProbe(
        sandbox=not evidence.problem,
        reason=evidence.problem or evidence.second_best,
        fix=evidence.fix,
        tier=tier,
        tier_meaning=TIER_MEANING[tier],
        badges=badges_of(evidence),
        checks=tuple(checks),
        uid=os.getuid(),
        kernel=machine.release,
        machine=machine.machine,
        duration_ms=round((time.perf_counter() - began) * 1000, 1),
    )


def _confinement() -> tuple[Check, ...]:
    folder = tempfile.mkdtemp(prefix="toka-probe-")
    try:
        return attempts(WHOLE, partial(try_confinement, folder), deadline_s=10.0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
