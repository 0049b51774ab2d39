"""The console over a client that plays a load: the program that bench/console.py measures.

    console_load.py AGENTS EVENTS_S KIND LINES REPORT

KIND: `samples` (figures alone) or `mixed` (90 % samples, 5 % output, 5 % tool calls). LINES of output come from the
first agent at `LINES_S`, from the moment that the file REPORT.begin is there. When all of them are in the console's
window of its output, REPORT says how many that are, and when the last was handed over (monotonic seconds).
Envelopes are made beforehand, so that little beside the console is measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

LINES_S = 50_000
READY_S = 2.0
"""The load begins so long after the console has opened its client."""
STEP_S = 0.02
PART_LINES = 50
"""In one event: about what one read of a pipe brings."""
MADE = 4_000


def main(argv: list[str]) -> int:
    agents, events_s, kind, lines, report = int(argv[0]), int(argv[1]), argv[2], int(argv[3]), Path(argv[4])
    # As the console's own entry point sets them.
    os.environ.update({"TEXTUAL_FPS": "250", "ESCDELAY": "25", "TEXTUAL_ANIMATIONS": "none"})
    from toka_console import launch

    async def open_client() -> Any:
        client, names = fleet_of(agents)
        if events_s:
            Load(client, events_s, prepared(client, names, mixed=kind == "mixed")).begin()
        if lines:
            Flood(client, names[0], lines, report).begin()
        return client

    return launch.run(open_client, settings_file=Path("/nonexistent"), start_fleet=False)[0]


def fleet_of(agents: int) -> tuple[Any, list[str]]:
    """A client with so many agents that have run for an hour: quiet ones, whose ages change once a minute."""
    from fakes import fleet
    from fakes.client import FakeRuntimeClient
    from fakes.clock import FakeClock
    from toka_runtime.protocol import events as ev

    client = FakeRuntimeClient(FakeClock(datetime.now(UTC) - timedelta(hours=1)))
    client.emit(ev.RuntimeStarted(epoch="e", version="0", pid=1, workspace="/w", provider="bench"))
    names = [f"agent-{number:04}" for number in range(agents)]
    client.emit(ev.SpecLoaded(spec=fleet.spec(names[0]), rights=fleet.rights()))
    fleet.start(client, names[0], 0)
    first = next(iter(client.state.agents.values()))
    views = {
        name: first.model_copy(update={"name": name, "run": f"r{number}", "spec": fleet.spec(name)})
        for number, name in enumerate(names)
    }
    client.state = client.state.model_copy(update={"agents": views})
    client.clock = None
    client.log.clear()
    return client, names


def prepared(client: Any, names: list[str], *, mixed: bool) -> list[Any]:
    """Envelopes to be played again and again."""
    from toka_runtime.protocol import events as ev
    from toka_runtime.protocol.ids import CallId
    from toka_runtime.protocol.usage import Usage

    def made(number: int) -> Any:
        event: Any
        if mixed and number % 20 == 18:
            event = ev.OutputAppended(stream=ev.Stream.MODEL, text=f"text of step {number}\n", call=CallId("m"))
        elif mixed and number % 20 == 19:
            event = ev.ToolCallStarted(call=CallId(f"c{number}"), task=0, turn=1, tool="read", arguments={}, target="a")
        else:
            usage = Usage(cpu_fraction=number % 70 / 100, memory_bytes=number % 400 << 20, processes=2)
            event = ev.AgentSampled(usage=usage)
        return client.envelope(event, names[number * 7 % len(names)]).model_copy(update={"durable": False})

    return [made(number) for number in range(max(MADE, len(names)))]


class Load:
    """Hands over prepared envelopes at a rate, stamped with the time of the step."""

    def __init__(self, client: Any, events_s: int, ready: list[Any]) -> None:
        self._client, self._events_s, self._ready = client, events_s, ready
        self._given, self._began = 0, 0.0

    def begin(self) -> None:
        self._began = time.monotonic() + READY_S
        asyncio.get_running_loop().call_later(READY_S, self._push)

    def _push(self) -> None:
        due = int((time.monotonic() - self._began) * self._events_s)
        while self._given < due:
            start = self._given % len(self._ready)
            part = self._ready[start : start + min(due - self._given, 1000)]
            now = datetime.now(UTC)
            for each in part:
                # In place: a copy of each would be a good part of what is measured.
                vars(each)["at"] = now
            hand_over(self._client, part)
            self._given += len(part)
        asyncio.get_running_loop().call_later(STEP_S, self._push)


class Flood:
    """Hands over lines of output, then watches until the console has taken in the last."""

    def __init__(self, client: Any, name: str, lines: int, report: Path) -> None:
        self._client, self._name, self._lines, self._report = client, name, lines, report
        self._given, self._began, self._ended = 0, 0.0, 0.0
        self._taken = taken_by(name)

    def begin(self) -> None:
        asyncio.get_running_loop().call_later(STEP_S, self._wait)

    def _wait(self) -> None:
        if self._report.with_suffix(".begin").exists():
            self._began = time.monotonic()
            self._push()
        else:
            self.begin()

    def _push(self) -> None:
        from toka_runtime.protocol import events as ev
        from toka_runtime.protocol.ids import CallId

        due = min(int((time.monotonic() - self._began) * LINES_S), self._lines)
        while self._given < due:
            numbers = range(self._given, min(self._given + PART_LINES, due))
            text = "".join(f"line {number} of many, as a program writes them\n" for number in numbers)
            event = ev.OutputAppended(stream=ev.Stream.STDOUT, text=text, call=CallId("s"))
            hand_over(self._client, [self._client.envelope(event, self._name).model_copy(update={"durable": False})])
            self._given += len(numbers)
        self._ended = time.monotonic()
        asyncio.get_running_loop().call_later(STEP_S, self._push if due < self._lines else self._watch)

    def _watch(self) -> None:
        if (taken := self._taken()) < self._lines:
            asyncio.get_running_loop().call_later(STEP_S, self._watch)
            return
        part = self._report.with_suffix(".part")
        part.write_text(json.dumps({"taken": taken, "handed_over_at": self._ended}))
        part.rename(self._report)


def taken_by(name: str) -> Callable[[], int]:
    """Counts the lines of program output that the console has of an agent, shown or let go."""
    from textual._context import active_app

    app: Any = active_app.get()

    def taken() -> int:
        from toka_console.ring import Text

        ring = next(entry.output for key, entry in app.session.state.agents.items() if key.name == name)
        return ring.dropped_lines + sum(each.lines for each in ring.entries if isinstance(each, Text))

    return taken


def hand_over(client: Any, part: list[Any]) -> None:
    for queue in client._queues:
        queue.put_nowait(part)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
