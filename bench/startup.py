"""What it costs to type a command: from nothing to its end, beside the bare interpreter and bwrap.

    python bench/startup.py [ROUNDS]

Every command is a new process, with its byte code cached. Rounds of all commands are taken in turn, so that noise hits
each alike. CPU is user and system time of the command and of all that it waited for; on a machine that does other
things, quote that, or the ratios of the best. `ps` finds no runtime: its imports and its search for one are measured.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from toka_runtime.cli.exit_codes import ExitCode
from toka_runtime.paths import shipped_configs
from toka_runtime.sandbox.view import FIRST_USER, give_to

ROUNDS = 15
TRUE = "/usr/bin/true"
FLOOR = "python -c pass"


class Command(NamedTuple):
    argv: list[str]
    code: int = ExitCode.OK


class Cost(NamedTuple):
    wall_ms: float
    cpu_ms: float


def cost_of(command: Command, environment: dict[str, str]) -> Cost:
    before = os.times()
    began = time.perf_counter()
    ended = subprocess.run(command.argv, env=environment, capture_output=True, check=False)
    wall = time.perf_counter() - began
    after = os.times()
    assert ended.returncode == command.code, (command.argv, ended.returncode, ended.stderr.decode())
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return Cost(wall * 1000, cpu * 1000)


def commands(workspace: Path, spec: Path) -> dict[str, Command]:
    ours = [sys.executable, "-m", "toka_runtime.cli.main"]
    found = {
        FLOOR: Command([sys.executable, "-c", "pass"]),
        "toka-runtime --version": Command([*ours, "--version"]),
        "toka-runtime ps, no runtime there": Command([*ours, "ps"], ExitCode.USAGE),
        "toka-runtime validate, one spec": Command([*ours, "validate", str(spec)]),
        "toka-runtime exec -- true": Command([*ours, "exec", "--workspace", str(workspace), "--", TRUE]),
    }
    if (path := shutil.which("bwrap")) is not None:
        found["bwrap --unshare-all --ro-bind / / true"] = Command([path, "--unshare-all", "--ro-bind", "/", "/", TRUE])
    return found


def main(rounds: int) -> None:
    load = os.getloadavg()[0]
    print(f"Linux {os.uname().release}, {os.cpu_count()} cores, load {load:.1f}, Python {sys.version.split()[0]}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        workspace = folder / "workspace"
        workspace.mkdir()
        if os.getuid() == 0:
            # Nothing in a sandbox is root.
            give_to(FIRST_USER, [str(workspace)])
        # No runtime of the operator's is to be found, and no catalogue.
        own = {name: str(folder) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")}
        environment = os.environ | own
        spec = shipped_configs() / "agents" / "project-survey.yaml"
        rows = commands(workspace, spec)
        costs: dict[str, list[Cost]] = {title: [] for title in rows}
        for _ in range(rounds):
            for title, command in rows.items():
                costs[title].append(cost_of(command, environment))
    floor = min(cost.wall_ms for cost in costs[FLOOR])
    print(f"\nbest of {rounds} rounds{'':<28}{'until it ended, ms':>20}{'ratio to the floor':>20}{'CPU, ms':>10}")
    for title, found in costs.items():
        wall, cpu = min(cost.wall_ms for cost in found), min(cost.cpu_ms for cost in found)
        print(f"  {title:<40}{wall:>20.0f}{wall / floor:>18.1f} ×{cpu:>10.0f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
