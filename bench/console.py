"""Speed of the console on a real pseudo-terminal, beside the floor that Textual itself sets in the same run.

    .venv/bin/python bench/console.py [--runs 5] [--seconds 10] [--only first,keys,idle,flood,memory] [--json]

How the figures are taken. The program runs on a pty of 200×50 that this script owns and reads all the time; each chunk
is stamped when it is read. Nothing is emulated: marks in the byte stream are enough.
  first picture   from fork to the outline that is drawn before Textual is imported
  first frame     from fork to the first full frame of the app itself (header, table, gauges, footer)
  agents shown    from fork to a row of the shipped fleet, with a real runtime opened (rehearsal, nothing started)
  exit            from ctrl-q to the end of the process
  key to paint    from writing j or k to the chunk in which the row it leads to is drawn in the colour of the cursor
  cpu             of the program alone, of one core, from /proc/PID/schedstat
  bytes/s         written to the terminal
"Textual floor" is an app of one Static, run in turn with ours: quote the ratio, the machine is a noisy neighbour. The
loads come from a client that hands over envelopes made beforehand, so that little beside the console is measured:
"at 4 Hz" is samples alone, "events/s" is 90 % samples, 5 % output, 5 % tool calls.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SIZE = (200, 50)
SELECTED = re.compile(rb"\x1b\[(\d+);\d+H(?:(?!\x1b\[\d+;\d+H).)*?48;2;36;64;92", re.DOTALL)
HELLO = """
from textual.app import App
from textual.widgets import Static
class Hello(App):
    def compose(self):
        yield Static("hello, world")
    def on_key(self):
        self.pressed = getattr(self, "pressed", 0) + 1
        self.query_one(Static).update(f"pressed {self.pressed}.")
Hello().run()
"""
Row = tuple[str, str, str]
"""What, figure, remark."""


class Program:
    """A program on our pty; `output` grows as it is read, `stamps` holds (seconds since fork, bytes so far)."""

    def __init__(self, argv: list[str]) -> None:
        self.started = time.monotonic()
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            env = {**os.environ, "COLORTERM": "truecolor", "TERM": "xterm-256color"}
            env.pop("NO_COLOR", None)
            env["PYTHONPATH"] = str(ROOT / "tests")
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
            os.execvpe(argv[0], argv, env)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
        self.output = bytearray()

    def read(self, patience_s: float) -> bool:
        if not select.select([self.master], [], [], patience_s)[0]:
            return False
        try:
            data = os.read(self.master, 1 << 16)
        except OSError:
            return False
        self.output += data
        # Synchronised output, as most terminals support it.
        if b"\x1b[?2026$p" in data:
            os.write(self.master, b"\x1b[?2026;2$y")
        return bool(data)

    def until(self, pattern: bytes, since: int = 0, patience_s: float = 60) -> float:
        """Seconds since the fork when `pattern` had been written after offset `since`."""
        searched = re.compile(pattern, re.DOTALL)
        deadline = time.monotonic() + patience_s
        while searched.search(self.output, max(0, since)) is None:
            if time.monotonic() > deadline or (not self.read(0.5) and not self.alive()):
                raise RuntimeError(f"{pattern!r} did not come: {bytes(self.output[-800:])!r}")
        return time.monotonic() - self.started

    def for_seconds(self, seconds: float) -> int:
        """Read for a while; bytes that came."""
        before, deadline = len(self.output), time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.read(left)
        return len(self.output) - before

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def alive(self) -> bool:
        return Path(f"/proc/{self.pid}/status").exists() and not self._zombie()

    def _zombie(self) -> bool:
        with contextlib.suppress(OSError):
            return "\nState:\tZ" in Path(f"/proc/{self.pid}/status").read_text()
        return True

    def cpu_s(self) -> float:
        """Of all its threads."""
        tasks = Path(f"/proc/{self.pid}/task")
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9

    def pss_mib(self) -> float:
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1]) / 1024  # type: ignore[index] # it is there

    def leave(self) -> float:
        """ctrl-q (and yes, if asked); seconds until it has ended."""
        started = time.monotonic()
        self.type("\x11")
        while self.alive() and time.monotonic() - started < 1:
            self.read(0.002)
        if self.alive():
            started = time.monotonic()
            self.type("\t\r")
        while self.alive() and time.monotonic() - started < 20:
            self.read(0.002)
        return time.monotonic() - started

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        os.close(self.master)


@contextlib.contextmanager
def running(*argv: str) -> Iterator[Program]:
    program = Program(list(argv))
    try:
        yield program
    finally:
        program.close()


def child(agents: int, rate: int, lines: int = 0, mixed: int = 1) -> list[str]:
    return [sys.executable, str(Path(__file__)), "--child", f"{agents},{rate},{lines},{mixed}"]


def half(values: list[float]) -> float:
    return statistics.median(values)


def worst(values: list[float]) -> float:
    """99th percentile."""
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


# -- measurements -------------------------------------------------------------------------------------------------


def first(runs: int) -> list[Row]:
    console = str(Path(sys.executable).parent / "toka-console")
    hello: list[float] = []
    bare: list[float] = []
    times: dict[str, list[float]] = {"picture": [], "frame": [], "agents": [], "exit": []}
    with tempfile.TemporaryDirectory() as folder:
        options = [
            "--provider",
            "rehearsal",
            "--no-start",
            "--state-dir",
            f"{folder}/state",
            "--config",
            f"{folder}/none",
        ]
        for number in range(runs + 1):
            with running(sys.executable, "-c", HELLO) as program:
                hello.append(program.until(b"hello, world"))
            started = time.monotonic()
            subprocess.run([sys.executable, "-c", "pass"], check=True)
            bare.append(time.monotonic() - started)
            with running(console, *options) as program:
                times["picture"].append(program.until("starting …".encode()))
                times["frame"].append(program.until(b"starting the runtime.*?quit"))
                times["agents"].append(program.until(b"project-survey"))
                program.until(b"workspace.*?up")
                program.for_seconds(0.3)
                times["exit"].append(program.leave())
            if number == 0:
                # Byte code and caches are warm after it.
                for values in (hello, bare, *times.values()):
                    values.clear()
    floor = half(hello)
    return [
        ("interpreter alone", f"{half(bare) * 1000:.0f} ms", "python -c pass"),
        ("first picture", f"{half(times['picture']) * 1000:.0f} ms", "before Textual is imported"),
        ("Textual floor", f"{floor * 1000:.0f} ms", "an app of one Static, its first frame"),
        ("first frame", f"{half(times['frame']) * 1000:.0f} ms", f"{half(times['frame']) / floor:.2f} × the floor"),
        ("agents shown", f"{half(times['agents']) * 1000:.0f} ms", "a real runtime opened, nine specs loaded"),
        ("exit", f"{half(times['exit']) * 1000:.0f} ms", "nothing runs; the embedded runtime is closed too"),
    ]


def floor_keys(count: int) -> list[Row]:
    with running(sys.executable, "-c", HELLO) as program:
        program.until(b"hello, world")
        program.for_seconds(1)
        taken: list[float] = []
        for number in range(1, count + 1):
            since, pressed = len(program.output), time.monotonic()
            program.type("j")
            program.until(b"%d" % number, since)
            taken.append(time.monotonic() - pressed)
            program.for_seconds(0.02 + (number * 7919 % 40) / 1000)
    figure = f"{half(taken) * 1000:.1f} / {worst(taken) * 1000:.1f} ms"
    return [("key to paint, Textual floor", figure, "the app of one Static, which shows a number")]


def keys(label: str, agents: int, rate: int, count: int) -> list[Row]:
    with running(*child(agents, rate)) as program:
        program.until(b"agent-0000.*?quit")
        program.for_seconds(2.5)
        program.type("g")
        program.for_seconds(0.5)
        row = int(SELECTED.findall(program.output)[-1])
        taken: list[float] = []
        cpu, began = program.cpu_s(), time.monotonic()
        before = len(program.output)
        for number in range(count):
            step = 1 if number // 20 % 2 == 0 else -1
            row += step
            since, pressed = len(program.output), time.monotonic()
            program.type("j" if step > 0 else "k")
            program.until(rb"\x1b\[%d;\d+H(?:(?!\x1b\[\d+;\d+H).)*?48;2;36;64;92" % row, since)
            taken.append(time.monotonic() - pressed)
            program.for_seconds(0.02 + (number * 7919 % 40) / 1000)
        seconds = time.monotonic() - began
        used = (program.cpu_s() - cpu) / seconds
        written = (len(program.output) - before) / seconds
    return [
        (f"key to paint, {label}", f"{half(taken) * 1000:.1f} / {worst(taken) * 1000:.1f} ms", f"p50 / p99 of {count}"),
        ("  … meanwhile", f"{used:.1%} cpu, {written / 1000:.0f} kB/s", "keys included"),
    ]  # fmt: skip


def idle(seconds: float) -> list[Row]:
    with running(*child(100, 0)) as program:
        program.until(b"agent-0000.*?quit")
        program.for_seconds(3)
        cpu, began = program.cpu_s(), time.monotonic()
        written = program.for_seconds(seconds)
        took = time.monotonic() - began
        used = (program.cpu_s() - cpu) / took
        memory = program.pss_mib()
    return [("idle, 100 quiet agents", f"{used:.2%} cpu, {written / took:.0f} B/s", f"{memory:.0f} MiB PSS")]


def flood(label: str, agents: int, rate: int, mixed: int, seconds: float) -> list[Row]:
    with running(*child(agents, rate, mixed=mixed)) as program:
        program.until(b"agent-0000.*?quit")
        program.for_seconds(3)
        cpu, began = program.cpu_s(), time.monotonic()
        written = program.for_seconds(seconds)
        took = time.monotonic() - began
        used = (program.cpu_s() - cpu) / took
    return [(label, f"{used:.1%} cpu, {written / took / 1000:.0f} kB/s", "no keys")]


def memory(lines: int) -> list[Row]:
    with running(*child(20, 0, lines)) as program:
        program.until(b"agent-0000.*?quit")
        program.for_seconds(1)
        before = program.pss_mib()
        program.until(b"line %d of" % (lines - 1), patience_s=300)
        program.for_seconds(1)
        after = program.pss_mib()
    return [(f"memory after {lines:,} lines", f"{after:.0f} MiB PSS", f"{before:.0f} before")]


# -- the program that is measured under load ----------------------------------------------------------------------


def run_child(spec: str) -> int:
    agents, rate, lines, mixed = map(int, spec.split(","))
    os.environ.update({"TEXTUAL_FPS": "250", "ESCDELAY": "25", "TEXTUAL_ANIMATIONS": "none"})
    sys.path.insert(0, str(ROOT / "tests"))
    from toka_console import launch

    async def open_client() -> Any:
        return load_client(agents, rate, lines, bool(mixed))

    return launch.run(open_client, settings_file=Path("/nonexistent"), start_fleet=False)[0]


def load_client(agents: int, rate: int, lines: int, mixed: bool) -> Any:
    """A fleet of `agents` running agents, `rate` events a second, and `lines` of output after three seconds."""
    from fakes import fleet
    from fakes.client import FakeRuntimeClient
    from fakes.clock import FakeClock
    from toka_runtime.protocol import events as ev
    from toka_runtime.protocol.ids import CallId
    from toka_runtime.protocol.usage import Usage

    # They have run for an hour: quiet agents whose ages change once a minute.
    client = FakeRuntimeClient(FakeClock(datetime.now(UTC) - timedelta(hours=1)))
    names = [f"agent-{number:04}" for number in range(agents)]
    client.emit(ev.RuntimeStarted(epoch="e", version="0", pid=1, workspace="/w", provider="bench"))
    for number, name in enumerate(names):
        client.emit(ev.SpecLoaded(spec=fleet.spec(name), rights=fleet.rights()))
        fleet.start(client, name, number)

    def made(number: int) -> ev.Envelope:
        name = names[number * 7 % agents]
        event: Any
        if mixed and number % 20 == 18:
            event = ev.OutputAppended(stream=ev.Stream.MODEL, text=f"text of step {number}\n", call=CallId("m"))
        elif mixed and number % 20 == 19:
            event = ev.ToolCallStarted(call=CallId(f"c{number}"), task=0, turn=1, tool="read", arguments={}, target="a")
        else:
            usage = Usage(cpu_fraction=number % 70 / 100, memory_bytes=number % 400 << 20, processes=2)
            event = ev.AgentSampled(usage=usage)
        return client.envelope(event, name).model_copy(update={"durable": False})

    client.clock = None
    ready = [made(number) for number in range(4000)] if rate else []
    loop = asyncio.get_running_loop()
    at, began = 0, loop.time()

    def push() -> None:
        nonlocal at
        due = int((loop.time() - began) * rate)
        while at < due:
            size = min(due - at, 1000)
            start = at % len(ready)
            part = ready[start : start + size]
            for queue in client._queues:
                queue.put_nowait(part)
            at += len(part)
        loop.call_later(0.02, push)

    def tell() -> None:
        nonlocal at
        if at < lines and client._queues:
            text = "".join(
                f"line {number} of many, as a program writes them\n" for number in range(at, min(at + 1000, lines))
            )
            event = ev.OutputAppended(stream=ev.Stream.STDOUT, text=text, call=CallId("s"))
            part = [client.envelope(event, names[0]).model_copy(update={"durable": False})]
            for queue in client._queues:
                queue.put_nowait(part)
            at += 1000
        loop.call_later(0.02, tell)

    if rate:
        loop.call_later(0.5, push)
    if lines:
        loop.call_later(3, tell)
    return client


def main() -> int:
    parser = argparse.ArgumentParser(description="Speed of the console on a pseudo-terminal.")
    parser.add_argument("--runs", type=int, default=5, help="of each start")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each steady load")
    parser.add_argument("--keys", type=int, default=200, help="presses for each latency")
    parser.add_argument("--lines", type=int, default=1_000_000, help="of output for the memory figure")
    parser.add_argument("--only", default="first,keys,idle,flood,memory")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return run_child(options.child)
    wanted = options.only.split(",")
    rows: list[Row] = []
    if "first" in wanted:
        rows += first(options.runs)
    if "keys" in wanted:
        rows += floor_keys(options.keys)
        rows += keys("idle", 100, 0, options.keys)
        rows += keys("200 agents, 1,000 events/s", 200, 1_000, options.keys)
        rows += keys("200 agents, 10,000 events/s", 200, 10_000, options.keys)
    if "idle" in wanted:
        rows += idle(options.seconds)
    if "flood" in wanted:
        rows += flood("100 agents at 4 Hz", 100, 400, 0, options.seconds)
        rows += flood("1,000 agents at 4 Hz", 1_000, 4_000, 0, options.seconds)
        rows += flood("200 agents, 1,000 events/s", 200, 1_000, 1, options.seconds)
        rows += flood("200 agents, 10,000 events/s", 200, 10_000, 1, options.seconds)
    if "memory" in wanted:
        rows += memory(options.lines)
    if options.json:
        print(json.dumps([{"what": what, "figure": figure, "remark": remark} for what, figure, remark in rows]))
        return 0
    print(f"{__doc__ or ''}\n200×50 pty, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f} at the end\n")
    width = max(len(what) for what, _, _ in rows)
    for what, figure, remark in rows:
        print(f"{what:<{width}}  {figure:>22}  {remark}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
