"""kill -9 at any moment: what was acknowledged is there, once, without gaps."""

import json
import subprocess
import sys
from pathlib import Path

ROUNDS = 12

SCRIPT = """
import asyncio, json, os, random, signal, sys
from pathlib import Path
from fakes import events as fake
from toka_runtime.clock import SystemClock
from toka_runtime.store import events as store_events
from toka_runtime.store.events import EventStore
from toka_runtime.store.proof import verify_log
from toka_runtime.store.transcripts import Transcripts

FOLDER, ROUNDS = Path(sys.argv[1]), int(sys.argv[2])
chance = random.Random(int(sys.argv[3]))

async def write(round, out):
    store = await EventStore.open(FOLDER, host=fake.HOST, clock=SystemClock())
    journal = Transcripts(store)
    async def events(writer):
        for n in range(10**9):
            name = f"{round}.{writer}.{n}"
            envelope = await store.append(fake.tool_started(name), agent=fake.AGENTS[writer % 3])
            os.write(out, f"{envelope.seq} {name}\\n".encode())
            store.post(fake.output("noise " * writer), agent=fake.AGENTS[writer % 3])
    async def turns():
        for n in range(10**9):
            await journal.record(f"r{round}", 0, 1, n, [{"n": n}])
            os.write(out, f"turn {n}\\n".encode())
    async with asyncio.TaskGroup() as group:
        for writer in range(5):
            group.create_task(events(writer))
        group.create_task(turns())

async def read(round):
    store = await EventStore.open(FOLDER, host=fake.HOST, clock=SystemClock())
    seqs, calls, after = [], {}, 0
    while batch := await store.read(after_seq=after, limit=10_000):
        after = batch[-1].seq
        for envelope in batch:
            seqs.append(envelope.seq)
            if envelope.event.kind == "tool.call_started":
                calls.setdefault(envelope.event.call, []).append(envelope.seq)
    state = await store.latest_state()
    turns = [turn["n"] for turn in await Transcripts(store).conversation(f"r{round}", 0, 1)]
    return seqs, calls, store.head, state.seq, turns

acknowledged, bad = {}, []
for round in range(ROUNDS):
    into, out = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(into)
        asyncio.run(write(round, out))
        os._exit(1)
    os.close(out)
    stream = os.fdopen(into)
    mine, last_turn = {}, -1
    left = chance.choice([0, 1, 3, 20, 100, 300, 800])
    for line in stream:
        first, rest = line.split()
        if first == "turn":
            last_turn = int(rest)
        elif rest in mine:
            bad.append(f"acknowledged twice: {rest}")
        else:
            mine[rest] = int(first)
        if left == 0:
            os.kill(child, signal.SIGKILL)
        left -= 1
    if left >= 0:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    acknowledged |= mine
    reader = os.fork()
    if reader == 0:
        seqs, calls, head, folded, turns = asyncio.run(read(round))
        problems = []
        if seqs != list(range(1, len(seqs) + 1)) or head != len(seqs) or folded != head:
            problems.append(f"gaps: {len(seqs)} events, head {head}, folded {folded}")
        problems += [f"lost or moved: {name}" for name, seq in acknowledged.items() if calls.get(name) != [seq]]
        problems += [f"doubled: {name}" for name, places in calls.items() if len(places) > 1]
        if turns != list(range(len(turns))) or len(turns) <= last_turn:
            problems.append(f"journal: {len(turns)} turns, {last_turn + 1} acknowledged")
        report = verify_log(FOLDER)
        problems += [problem.message for problem in report.problems]
        if report.records != head:
            problems.append(f"{report.records} records in the chain of {head}")
        print(json.dumps(problems), flush=True)
        os._exit(0)
    os.waitpid(reader, 0)
print(json.dumps({"acknowledged": len(acknowledged), "bad": bad}))
"""


def test_nothing_acknowledged_is_lost_or_doubled(tmp_path: Path, repo_root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "state"), str(ROUNDS), "20260101"],
        capture_output=True,
        check=False,
        cwd=repo_root / "tests",
        text=True,
    )
    *rounds, summary = [json.loads(line) for line in done.stdout.splitlines()] or [None]
    assert done.returncode == 0, done.stderr
    assert rounds == [[]] * ROUNDS
    assert summary["bad"] == []
    assert summary["acknowledged"] > 200
