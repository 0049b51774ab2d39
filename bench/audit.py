"""What the audit chain costs: records a second with and without it, in one run; verifying, and how it grows.

    .venv/bin/python bench/audit.py [--scale 0.1] [--kills 200] [--json]

"Without" is the same store with hashing, sealing and signing left out. Each figure is the best of three rounds. The
records are tool calls of some 300 bytes; committed to the write-ahead log, as the store promises. Verifying grows from
10,000 records to 100,000 and, at scale 1 and above, to 1,000,000. `--kills N`: that many rounds of kill -9 at random
moments, each followed by a full verification.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from toka_runtime.clock import SystemClock
from toka_runtime.protocol.events import ToolCallStarted
from toka_runtime.protocol.ids import AgentName, CallId, HostId, RunId
from toka_runtime.store.chained import ChainKeeper
from toka_runtime.store.events import EventStore
from toka_runtime.store.proof import verify_log

ROUNDS = 3
Row = tuple[str, float, str, str]
"""What, figure, unit, remark."""


@contextmanager
def no_chain() -> Generator[None]:
    with (
        mock.patch.object(ChainKeeper, "extend", return_value=None),
        mock.patch.object(ChainKeeper, "save", return_value=None),
    ):
        yield


@contextmanager
def as_it_is() -> Generator[None]:
    yield


async def written(folder: Path, count: int) -> float:
    """Posts `count` records and waits for the last; seconds."""
    store = await EventStore.open(folder, host=HostId("bench"), clock=SystemClock())
    began = time.perf_counter()
    for number in range(count):
        event = ToolCallStarted(
            call=CallId(f"c{number}"), task=0, turn=1, tool="read", arguments={"path": "src/main.py"}, target="a" * 100
        )
        store.post(event, agent=AgentName(f"agent-{number % 9}"), run=RunId("r1"))
        if number % 500 == 0:
            await asyncio.sleep(0)
    await store.append(ToolCallStarted(call=CallId("end"), task=0, turn=1, tool="x", arguments={}, target=""))
    took = time.perf_counter() - began
    await store.aclose()
    return took


def writing(count: int) -> list[Row]:
    best = {"with the chain": 0.0, "without": 0.0}
    for _ in range(ROUNDS):
        for name, mode in (("with the chain", as_it_is), ("without", no_chain)):
            with tempfile.TemporaryDirectory() as folder, mode():
                best[name] = max(best[name], count / asyncio.run(written(Path(folder), count)))
    rows: list[Row] = [(f"written, {name}", figure, "records/s", f"{count:,} posted") for name, figure in best.items()]
    return [*rows, ("cost of the chain", 100 * (1 - best["with the chain"] / best["without"]), "%", "fewer records/s")]


def verifying(count: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(written(Path(folder), count))
        took = float("inf")
        for _ in range(ROUNDS):
            began = time.perf_counter()
            report = verify_log(Path(folder))
            took = min(took, time.perf_counter() - began)
        assert report.good, report.problems
        return f"verified, {count:,} records", report.records / took, "records/s", f"{took:.2f} s"


def killing(rounds: int) -> Row:
    """The store's own test of it, again and again with other seeds."""
    tests = Path(__file__).parents[1] / "tests"
    sys.path.insert(0, str(tests / "runtime/store"))
    from test_kill import SCRIPT  # pyright: ignore[reportMissingImports]

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", SCRIPT, str(Path(folder) / "state"), str(rounds), str(time.time_ns())]
        done = subprocess.run(command, cwd=tests, capture_output=True, text=True, check=True)
    *found, summary = [json.loads(line) for line in done.stdout.splitlines()]
    bad = sum(map(bool, found)) + len(summary["bad"])
    return f"kill -9, {len(found)} times", bad, "rounds with anything wrong", f"{summary['acknowledged']} acknowledged"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = writing(int(50_000 * args.scale))
    sizes = [10_000, 100_000, 1_000_000] if args.scale >= 1 else [10_000, 100_000]
    rows += [verifying(size) for size in sizes]
    if args.kills:
        rows.append(killing(args.kills))
    if args.json:
        print(json.dumps([dict(zip(("what", "figure", "unit", "remark"), row, strict=True)) for row in rows]))
        return
    for what, figure, unit, remark in rows:
        print(f"{what:<36}{figure:>12,.0f} {unit:<28}{remark}")


if __name__ == "__main__":
    main()
