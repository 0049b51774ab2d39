"""The whole confinement, built as for an agent by the same code, and then attacked from the inside."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

from toka_runtime.protocol.capability import PathRule, Rights
from toka_runtime.protocol.ids import AgentName, RunId
from toka_runtime.protocol.usage import ResourceLimits
from toka_runtime.sandbox import bwrap, probe_inside
from toka_runtime.sandbox.confine import Confinement
from toka_runtime.sandbox.plan import SandboxPlan
from toka_runtime.sandbox.probe_inside import DATA_BYTES, WHOLE, Inside
from toka_runtime.sandbox.probe_primitives import unused_user
from toka_runtime.sandbox.probe_seen import Seen, read_all, refused
from toka_runtime.sandbox.view import confinement_of, give_to

KILLED = "confined.kill"
_ANSWER_S, _END_S = 4.0, 2.0


def try_confinement(folder: str) -> dict[str, Seen]:
    """Run in a throw-away process that adopts orphans. `folder` is an empty one that may be given away. The result has
    only `confinement` when that could not be built."""
    root = Path(folder, "agent")
    (root / "given").mkdir(parents=True)
    (root / "kept").mkdir()
    (root / "kept/secret").write_text("canary")
    secret = Path(folder, "secret")
    secret.write_text("canary")
    user = unused_user() if os.getuid() == 0 else None
    if user is not None:
        give_to(user, [str(root)])
    rule = PathRule(id="probe", capability="probe", glob="**")
    plan = SandboxPlan(
        agent=AgentName("probe"),
        run=RunId("probe"),
        root=str(root),
        rights=Rights(read=(rule,), write=(rule,)),
        limits=ResourceLimits(memory_bytes=DATA_BYTES),
    )
    with socket.create_server(("127.0.0.1", 0)) as host:
        settings = {"root": str(root), "secret": str(secret), "host_port": host.getsockname()[1]}
        return _Attempt(confinement_of(plan, user), settings).run()


class _Attempt:
    def __init__(self, confinement: Confinement, settings: dict[str, str | int]) -> None:
        self._confinement, self._settings = confinement, settings
        self._facts, self._facts_end = os.pipe()
        self._alive, self._alive_end = os.pipe()
        # Process 1 ends when this is closed: with whatever holds the other end.
        self._held, self._hold = os.pipe()

    def run(self) -> dict[str, Seen]:
        ends = (self._facts_end, self._alive_end, self._held)
        inside = Inside(self._confinement, self._settings, ends, (self._facts, self._alive, self._hold))
        there = bwrap.Inside(f"{probe_inside.__name__}:in_bwrap", self._settings, ends)
        try:
            first = bwrap.fork_first_or_bwrap(self._confinement, inside.last_walls, inside.process_one, there)
        except OSError as error:
            return {WHOLE: refused(error)}
        os.close(self._facts_end)
        os.close(self._alive_end)
        text = read_all(self._facts, _ANSWER_S)
        if not text:
            os.kill(first, signal.SIGKILL)
            return {WHOLE: Seen(False, "built, but nothing answered from the inside")}
        seen = {name: Seen(*value) for name, value in json.loads(text).items()}
        if seen[WHOLE].ok:
            seen[KILLED] = self._kill(first)
        os.close(self._hold)
        return seen

    def _kill(self, first: int) -> Seen:
        began = time.perf_counter()
        os.kill(first, signal.SIGKILL)
        ended = read_all(self._alive, _END_S) is not None
        took = (time.perf_counter() - began) * 1000
        detail = f"a grandchild that left the session and ignores SIGTERM was gone after {took:.1f} ms"
        return Seen(ended, detail if ended else f"a grandchild was still there after {_END_S:g} s")
