"""Speed of the console on a real pseudo-terminal, beside the floor that Textual itself sets in the same run.

    .venv/bin/python bench/console.py [first idle load flood link fleet] [--runs 5] [--seconds 5] [--json]

How the figures are taken. The program runs on a pty of 200×50 that this script owns and reads all the time; each chunk
is stamped when it is read. Nothing is emulated: marks in the byte stream are enough.
  first frame    from fork to the first full frame of the app (header, table, gauges, footer); a real runtime is opened
                 (rehearsal, nothing started). Interpreter: python -c pass. Imports: the same with the app's modules,
                 less that. Mount: the rest.
  first picture  the outline that is drawn before Textual is imported; agents shown: a row of the shipped fleet
  exit           from ctrl-q to the end of the process
  key to paint   from writing j or k to the chunk in which the row it leads to is drawn in the colour of the cursor
  cpu            of the program alone, of one core, from /proc/PID/schedstat; bytes/s: written to the terminal
  caught up      from the last line handed over to its being drawn; complete: lines in the window or let go at its front
"Textual floor" is an app of one Static, run in turn with ours: quote the ratio, the machine is a noisy neighbour.
Starts are medians of several runs. The loads (bench/parts/console_load.py) come from a client in the same process that
hands over envelopes made beforehand: "at 4 Hz" is samples alone, "events/s" 90 % samples, 5 % output, 5 % tool calls.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from parts.pty_program import Program, running

from toka_console import themes

TOP = Path(__file__).parents[1]
LOAD = Path(__file__).parent / "parts" / "console_load.py"
LINES = 1_000_000
LINK_BYTES_S = 100_000
STEPS = 8
"""Rows that the cursor goes down before it goes up again."""
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


def _cursor() -> bytes:
    colour = themes.palette(themes.DEFAULT).selection.bgcolor
    triplet = colour.triplet if colour is not None else None
    assert triplet is not None, "the default theme has a cursor in a full colour"
    return b"48;2;%d;%d;%d" % tuple(triplet)


CURSOR = rb"\x1b\[%s;\d+H(?:(?!\x1b\[\d+;\d+H).)*?" + _cursor()
"""A row (its number is to be put in) drawn in the colour of the cursor."""
FIRST_ROW = 4
"""Of the table on the screen."""


def loaded(agents: int, events_s: int = 0, kind: str = "mixed", lines: int = 0, report: str = "-") -> list[str]:
    return [sys.executable, str(LOAD), str(agents), str(events_s), kind, str(lines), report]


def console(*argv: str, link_bytes_s: float = 0.0):
    return running(*argv, env={"PYTHONPATH": str(TOP / "tests")}, link_bytes_s=link_bytes_s)


def ms(values: list[float]) -> str:
    return f"{statistics.median(values) * 1000:.0f} ms"


def latency(values: list[float]) -> str:
    """Median and 99th percentile."""
    worst = sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]
    return f"{statistics.median(values) * 1000:.1f} / {worst * 1000:.1f} ms"


def rest(number: int) -> float:
    """Seconds before the next key: not in step with anything that the program does."""
    return 0.02 + (number * 7919 % 40) / 1000


def steady(program: Program, seconds: float) -> tuple[float, float]:
    """(cpu of one core, bytes/s) while nothing is typed."""
    cpu, began = program.cpu_s(), time.monotonic()
    written = program.for_seconds(seconds)
    took = time.monotonic() - began
    return (program.cpu_s() - cpu) / took, written / took


def press(program: Program, count: int) -> list[float]:
    """Move the cursor from the first row on; seconds from each key to its paint."""
    taken: list[float] = []
    row = FIRST_ROW
    for number in range(count):
        step = 1 if number // STEPS % 2 == 0 else -1
        row += step
        since, pressed = len(program.output), time.monotonic()
        program.type("j" if step > 0 else "k")
        program.until(CURSOR % str(row).encode(), since)
        taken.append(time.monotonic() - pressed)
        program.for_seconds(rest(number))
    return taken


# -- rows of the table --------------------------------------------------------------------------------------------


def first(options: argparse.Namespace) -> list[Row]:
    script = str(Path(sys.executable).parent / "toka-console")
    names = ("hello", "bare", "imports", "picture", "frame", "agents", "exit")
    times: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        argv = [script, "--provider", "rehearsal", "--no-start", "--state-dir", f"{folder}/state", "--config",
                f"{folder}/none"]  # fmt: skip
        for number in range(options.runs + 1):
            with console(sys.executable, "-c", HELLO) as program:
                times["hello"].append(program.until(b"hello, world"))
            for name, code in (("bare", "pass"), ("imports", "from toka_console import cli, options, launch")):
                began = time.monotonic()
                subprocess.run([sys.executable, "-c", code], check=True)
                times[name].append(time.monotonic() - began)
            with console(*argv) as program:
                times["picture"].append(program.until("starting …".encode()))
                times["frame"].append(program.until(b"starting the runtime.*?quit"))
                times["agents"].append(program.until(b"project-survey"))
                program.until(b"workspace.*?up")
                program.for_seconds(0.3)
                times["exit"].append(program.leave())
            if number == 0:
                # Byte code and caches are warm after it.
                for values in times.values():
                    values.clear()
    found = {name: statistics.median(values) for name, values in times.items()}
    parts = [found["bare"], found["imports"] - found["bare"], found["frame"] - found["imports"]]
    split = "interpreter {:.0f}, imports {:.0f}, mount {:.0f} ms".format(*(part * 1000 for part in parts))
    return [
        ("first picture", ms(times["picture"]), "before Textual is imported"),
        ("Textual floor, first frame", ms(times["hello"]), "an app of one Static"),
        ("first frame", ms(times["frame"]), f"{found['frame'] / found['hello']:.2f} × the floor: {split}"),
        ("agents shown", ms(times["agents"]), "a real runtime opened, nine specs loaded"),
        ("exit", ms(times["exit"]), "nothing runs; the embedded runtime is closed too"),
    ]


def idle(options: argparse.Namespace) -> list[Row]:
    with console(sys.executable, "-c", HELLO) as program:
        program.until(b"hello, world")
        program.for_seconds(1)
        floor: list[float] = []
        for number in range(1, options.keys + 1):
            since, pressed = len(program.output), time.monotonic()
            program.type("j")
            program.until(b"%d" % number, since)
            floor.append(time.monotonic() - pressed)
            program.for_seconds(rest(number))
    with console(*loaded(100)) as program:
        program.until(b"agent-0000")
        program.for_seconds(3)
        cpu, written = steady(program, 2 * options.seconds)
        memory = program.pss_mib()
        keys = press(program, options.keys)
    return [
        ("100 quiet agents", f"{cpu:.2%} cpu, {written:.0f} B/s", f"{memory:.0f} MiB PSS"),
        ("  key to paint, Textual floor", latency(floor), "p50 / p99; an app of one Static, which shows a number"),
        ("  key to paint", latency(keys), f"p50 / p99 of {options.keys}"),
    ]


def under(label: str, argv: list[str], options: argparse.Namespace, *, link_bytes_s: float = 0.0) -> list[Row]:
    with console(*argv, link_bytes_s=link_bytes_s) as program:
        program.until(b"agent-0000")
        program.for_seconds(4)
        cpu, written = steady(program, options.seconds)
        keys = press(program, options.keys)
    return [
        (label, f"{cpu:.1%} cpu, {written / 1000:.1f} kB/s", "nothing typed"),
        ("  key to paint", latency(keys), f"p50 / p99 of {options.keys}"),
    ]


def load(options: argparse.Namespace) -> list[Row]:
    return [
        *under("200 agents, 1,000 events/s", loaded(200, 1_000), options),
        *under("200 agents, 10,000 events/s", loaded(200, 10_000), options),
    ]


def link(options: argparse.Namespace) -> list[Row]:
    label = f"… 10,000 events/s, terminal behind {LINK_BYTES_S // 1000} kB/s"
    return under(label, loaded(200, 10_000), options, link_bytes_s=LINK_BYTES_S)


def fleet(options: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    for agents in (10, 100, 1_000, 10_000):
        label = f"{agents:,} agents at 4 Hz"
        argv = loaded(agents, 4 * agents, "samples")
        rows += under(label, argv, argparse.Namespace(**{**vars(options), "keys": min(100, options.keys)}))
    return rows


def flood(options: argparse.Namespace) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report"
        with console(*loaded(20, lines=LINES, report=str(report))) as program:
            program.until(b"agent-0000")
            # The live output stays with the first agent, wherever the cursor goes.
            program.type("F")
            program.until(b"followed")
            program.for_seconds(1)
            before = program.pss_mib()
            report.with_suffix(".begin").touch()
            program.for_seconds(0.5)
            cpu, written = steady(program, options.seconds)
            keys = press(program, options.keys)
            half = program.pss_mib()
            drawn_at = program.started + program.until(b"line %d of" % (LINES - 1), len(program.output) - 4000)
            program.for_seconds(1)
            after = program.pss_mib()
            if not report.exists():
                raise RuntimeError("the console has not taken in all lines")
            found = json.loads(report.read_text())
    whole = "complete" if found["taken"] == LINES else f"{LINES - found['taken']:,} LINES MISSING"
    return [
        ("50,000 log lines/s, followed", f"{cpu:.1%} cpu, {written / 1000:.1f} kB/s", "nothing typed"),
        ("  key to paint", latency(keys), f"p50 / p99 of {options.keys}"),
        ("  caught up after the flood", f"{max(0, drawn_at - found['handed_over_at']):.2f} s", whole),
        (f"  memory after {LINES:,} lines", f"{after:.0f} MiB PSS", f"{before:.0f} before, {half:.0f} at half"),
    ]


PARTS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "first": first, "idle": idle, "load": load, "flood": flood, "link": link, "fleet": fleet,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description="Speed of the console on a pseudo-terminal.")
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="what to measure (everything)")
    parser.add_argument("--runs", type=int, default=5, help="of each start")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each steady load")
    parser.add_argument("--keys", type=int, default=200, help="presses for each latency")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not options.json:
        print(f"{__doc__}\n200×50 pty, Python {sys.version.split()[0]}\n", flush=True)
    rows: list[Row] = []
    for part in options.parts or PARTS:
        found = PARTS[part](options)
        rows += found
        for what, figure, remark in [] if options.json else found:
            print(f"{what:<48}{figure:>22}  {remark}", flush=True)
    if options.json:
        print(json.dumps([{"what": what, "figure": figure, "remark": remark} for what, figure, remark in rows]))
    else:
        print(f"\nload {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the end")
    return 0


if __name__ == "__main__":
    sys.exit(main())
