"""Speed of the event store, the fold and the bus, beside the floor that SQLite itself sets in the same run.

    .venv/bin/python bench/store.py [--scale 0.2] [--json]

Each figure is the best of three rounds on a fresh store in a temporary folder (pass --folder for another disk), because
a shared machine only ever makes a round slower. "Durable" is what the store promises: committed to the write-ahead log
(synchronous=NORMAL), so that it survives a kill of the process; the rows marked fsync commit with synchronous=FULL.
Compare figures of one run with each other, and not with those of another machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from toka_runtime.clock import SystemClock
from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.events import (
    AgentSampled,
    Envelope,
    Event,
    OutputAppended,
    SpecLoaded,
    Stream,
    ToolCallEnded,
    ToolCallStarted,
)
from toka_runtime.protocol.fold import fold
from toka_runtime.protocol.ids import AgentName, CallId, HostId, RunId
from toka_runtime.protocol.snapshot import FleetState
from toka_runtime.protocol.spec import AgentSpec, TaskSpec
from toka_runtime.protocol.stream import Resync
from toka_runtime.protocol.usage import Usage
from toka_runtime.store.events import EventStore
from toka_runtime.supervisor.bus import Bus
from toka_runtime.supervisor.output import OutputMerger

HOST, RUN = HostId("bench"), RunId("r1")
ROUNDS = 3

Row = tuple[str, float, str, str]
"""What, how many a second, unit, remark."""


def tool(number: int) -> Event:
    return ToolCallStarted(
        call=CallId(f"c{number}"), task=0, turn=1, tool="read", arguments={"path": "src/main.py"}, target="src/main.py"
    )


def agent(number: int) -> AgentName:
    return AgentName(f"agent-with-a-name-{number}")


async def opened(folder: Path, *, fsync: bool = False) -> EventStore:
    store = await EventStore.open(Path(tempfile.mkdtemp(dir=folder)), host=HOST, clock=SystemClock())
    bus = Bus(store, await store.latest_state())
    store.on_commit = bus.publish
    if fsync:
        # On the writing connection, outside a transaction: what a promise to survive power loss would cost.
        store._writer._connection.execute("PRAGMA synchronous=FULL")
    return store


def floor(folder: Path, count: int, *, batch: int, full: bool) -> float:
    """executemany into the same table, one transaction a batch, nothing else: rows a second."""
    body = tool(1).model_dump_json()
    with tempfile.TemporaryDirectory(dir=folder) as place:
        database = sqlite3.connect(Path(place) / "floor.db", isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute(f"PRAGMA synchronous={'FULL' if full else 'NORMAL'}")
        database.execute("CREATE TABLE events(seq INTEGER PRIMARY KEY, at, host, agent, run, kind TEXT, body TEXT)")
        database.execute("CREATE INDEX events_kind ON events(kind, seq)")
        began = time.perf_counter()
        for first in range(1, count + 1, batch):
            rows = [
                (seq, 0, HOST, agent(seq % batch), RUN, "tool.call_started", body)
                for seq in range(first, first + batch)
            ]
            database.execute("BEGIN IMMEDIATE")
            database.executemany("INSERT INTO events VALUES (?,?,?,?,?,?,?)", rows)
            database.execute("COMMIT")
        took = time.perf_counter() - began
        database.close()
    return count / took


async def appending(folder: Path, writers: int, count: int, *, fsync: bool) -> float:
    store = await opened(folder, fsync=fsync)

    async def write(number: int) -> None:
        for turn in range(count // writers):
            await store.append(tool(turn), agent=agent(number), run=RUN)

    began = time.perf_counter()
    await asyncio.gather(*(write(number) for number in range(writers)))
    took = time.perf_counter() - began
    await store.aclose()
    return count // writers * writers / took


async def latency(folder: Path, count: int) -> tuple[float, float]:
    """Microseconds of one append when nothing else is written: median and 99th percentile."""
    store = await opened(folder)
    times: list[float] = []
    for number in range(count):
        began = time.perf_counter()
        await store.append(tool(number), agent=agent(0), run=RUN)
        times.append(time.perf_counter() - began)
    await store.aclose()
    times.sort()
    return times[len(times) // 2] * 1e6, times[len(times) * 99 // 100] * 1e6


async def posting(folder: Path, count: int) -> float:
    store = await opened(folder)
    began = time.perf_counter()
    for number in range(count):
        store.post(tool(number), agent=agent(number % 9), run=RUN)
        if number % 500 == 0:
            await asyncio.sleep(0)
    await store.append(tool(0))
    took = time.perf_counter() - began
    await store.aclose()
    return count / took


async def filled(folder: Path, count: int) -> EventStore:
    store = await opened(folder)
    for number in range(count):
        store.post(tool(number), agent=agent(number % 9), run=RUN)
        if number % 500 == 0:
            await asyncio.sleep(0)
    await store.append(tool(0))
    return store


async def reading(folder: Path, count: int) -> float:
    store = await filled(folder, count)
    began = time.perf_counter()
    after = read = 0
    while batch := await store.read(after_seq=after):
        after, read = batch[-1].seq, read + len(batch)
    took = time.perf_counter() - began
    await store.aclose()
    return read / took


async def opening(folder: Path, count: int) -> float:
    """Milliseconds to open a log of so many events and have its state."""
    store = await filled(folder, count)
    await store.aclose()
    began = time.perf_counter()
    again = await EventStore.open(store.state_dir, host=HOST, clock=SystemClock())
    await again.latest_state()
    took = time.perf_counter() - began
    await again.aclose()
    return took * 1000


def history(agents: int, count: int) -> tuple[FleetState, list[Envelope]]:
    """A quarter each of samples, output, tool calls begun and ended."""
    now = datetime.now(UTC)
    specs = [
        AgentSpec(name=agent(n), tasks=tuple(TaskSpec(description=f"task {t}") for t in range(6)))
        for n in range(agents)
    ]
    known = [
        Envelope(seq=n + 1, at=now, host=HOST, agent=spec.name, event=SpecLoaded(spec=spec, rights=Rights()))
        for n, spec in enumerate(specs)
    ]
    sample, output = (
        AgentSampled(usage=Usage(cpu_s=1.0)),
        OutputAppended(stream=Stream.STDOUT, text="a line of output\n"),
    )
    seq = agents
    envelopes: list[Envelope] = []
    for n in range(count):
        ended = ToolCallEnded(call=CallId(f"c{n - n % 4}"), tool="read", outcome="ok", duration_s=0.1)
        event: Event = (sample, output, tool(n - n % 4), ended)[n % 4]
        seq += type(event).durable
        envelopes.append(
            Envelope(seq=seq, at=now, host=HOST, agent=agent(n // 4 % agents), durable=type(event).durable, event=event)  # pyright: ignore[reportArgumentType]
        )
    return fold(FleetState(), known), envelopes


def folding(agents: int, count: int, batch: int) -> float:
    state, envelopes = history(agents, count)
    began = time.perf_counter()
    for first in range(0, count, batch):
        state = fold(state, envelopes[first : first + batch])
    return count / (time.perf_counter() - began)


class NoLog:
    """The bus alone: nothing falls off its ring far enough to be read again."""

    state_source: Callable[[], FleetState] | None = None

    async def read(self, *, after_seq: int = 0, before_seq: int | None = None, limit: int = 1000) -> list[Envelope]:
        return []


async def bus_speed(subscribers: int, paused: int, count: int) -> tuple[float, int]:
    """Events a second through the bus into that many readers (of which some never read), folding included."""
    state, envelopes = history(9, count)
    bus = Bus(NoLog(), state)
    seen = [0] * subscribers

    async def follow(number: int) -> None:
        async for batch in bus.subscribe(state.seq):
            seen[number] += 0 if isinstance(batch, Resync) else len(batch)

    idle = [bus.subscribe(state.seq) for _ in range(paused)]
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(subscribers - paused):
            group.create_task(follow(number))
        await asyncio.sleep(0)
        for first in range(0, count, 200):
            bus.publish(envelopes[first : first + 200])
            await asyncio.sleep(0)
        bus.snapshot()
        bus.close()
    took = time.perf_counter() - began
    resyncs = 0
    for subscription in idle:
        async for batch in subscription:
            resyncs += isinstance(batch, Resync)
    return count / took, resyncs


async def merging(count: int) -> float:
    posted: list[OutputAppended] = []
    merger = OutputMerger(lambda event, agent, run: posted.append(event), burst_bytes=10**12)
    began = time.perf_counter()
    for number in range(count):
        merger.append(agent(number % 9), RUN, Stream.MODEL, "token ")
        if number % 200 == 0:
            await asyncio.sleep(0)
    await merger.aclose()
    return count / (time.perf_counter() - began)


async def dropping(count: int) -> float:
    """Gigabytes a second of a flood that is left out."""
    merger = OutputMerger(lambda event, agent, run: None)
    chunk = b"x" * 65536
    began = time.perf_counter()
    for number in range(count):
        merger.append(agent(0), RUN, Stream.STDOUT, chunk)
        if number % 200 == 0:
            await asyncio.sleep(0)
    took = time.perf_counter() - began
    await merger.aclose()
    return count * len(chunk) / took / 1e9


async def best(measure: Callable[[], Awaitable[float]]) -> float:
    return max([await measure() for _ in range(ROUNDS)])


async def measure(folder: Path, scale: float) -> list[Row]:
    def n(count: int) -> int:
        return max(1000, int(count * scale)) // 1000 * 1000

    rows: list[Row] = []
    for full in (False, True):
        mark = ", fsync" if full else ""
        for batch in (1, 100):
            speed = max(floor(folder, n(5000 if batch == 1 else 40_000), batch=batch, full=full) for _ in range(ROUNDS))
            rows.append(
                (f"floor: raw SQLite, {batch} a transaction{mark}", speed, "rows/s", "executemany, no index by agent")
            )
        for writers in (1, 10, 100):
            count = n(5000 if writers == 1 else 40_000)
            speed = await best(lambda w=writers, c=count, f=full: appending(folder, w, c, fsync=f))
            rows.append((f"append, {writers} writers{mark}", speed, "events/s", "each awaits its commit"))
    middle, worst = await latency(folder, n(5000))
    rows.append(("append alone, median", middle, "µs", f"99th percentile {worst:,.0f} µs"))
    rows.append(("post", await best(lambda: posting(folder, n(40_000))), "events/s", "until all are committed"))
    rows.append(("read", await best(lambda: reading(folder, n(40_000))), "events/s", "decoded envelopes, 1,000 a read"))
    rows.append(("open and state", await opening(folder, n(100_000)), "ms", f"a log of {n(100_000):,} events"))
    for agents in (10, 1000):
        for batch in (1, 128, 1000):
            speed = max(folding(agents, n(20_000), batch) for _ in range(ROUNDS))
            rows.append((f"fold, {agents} agents, batches of {batch}", speed, "events/s", ""))
    for subscribers, paused in ((1, 0), (5, 0), (5, 1)):
        speed, resyncs = max([await bus_speed(subscribers, paused, n(100_000)) for _ in range(ROUNDS)])
        remark = f"the paused one then got {resyncs} resync" if paused else "with the runtime's own fold"
        rows.append((f"bus, {subscribers} subscribers, {paused} paused", speed, "events/s", remark))
    rows.append(("output merged", await best(lambda: merging(n(100_000))), "pieces/s", "nine agents in turn"))
    rows.append(("output dropped", await best(lambda: dropping(n(20_000))), "GB/s", "pieces of 64 KiB over the bound"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the events, for a quick look")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the stores are made (default: a temporary folder)"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows = asyncio.run(measure(Path(folder), options.scale))
    if options.json:
        print(
            json.dumps(
                [{"what": what, "value": value, "unit": unit, "remark": remark} for what, value, unit, remark in rows]
            )
        )
        return
    width = max(len(what) for what, *_ in rows)
    for what, value, unit, remark in rows:
        print(f"{what:<{width}}  {value:>14,.1f} {unit:<9} {remark}".rstrip())


if __name__ == "__main__":
    main()
