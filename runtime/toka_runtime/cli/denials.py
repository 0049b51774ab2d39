"""`toka-runtime denials`: what was refused, from the event log of a run; also while it runs in another process."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO, cast

from toka_runtime.cli.attach import add_host_argument, attached, follow_log, read_log
from toka_runtime.cli.denial_record import facts_of
from toka_runtime.cli.exit_codes import ExitCode
from toka_runtime.cli.fanout import on_hosts
from toka_runtime.cli.log_place import since, state_dir_of
from toka_runtime.cli.render import Style, clean
from toka_runtime.protocol.capability import Layer
from toka_runtime.protocol.commands import ReadEvents
from toka_runtime.protocol.events import Envelope, OperationDenied
from toka_runtime.protocol.ids import AgentName
from toka_runtime.store.tail import LogTail

KIND = "operation.denied"
FOLLOW_S = 0.25
"""How often a followed log is asked for more: a lookup in an index, some 10 µs."""

_COLUMNS: tuple[tuple[str, int], ...] = (
    ("TIME", 19),
    ("AGENT", 12),
    ("RUN", 11),
    ("TASK", 4),
    ("N", 3),
    ("LAYER", 7),
    ("OPERATION", 15),
    ("NEEDS", 16),
    ("RULE", 16),
    ("TOOL", 12),
    ("CALL", 4),
    ("TARGET", 0),
)
"""Heading and least width. The target is the last: it is never cut."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--state-dir", "--state", type=Path, metavar="DIR", help="state folder (default: the one written last)"
    )
    add_host_argument(place)
    place.add_argument("--workspace", type=Path, metavar="DIR", help="the state folder that belongs to this workspace")
    parser.add_argument("--agent", default="", metavar="NAME", help="only of this agent")
    parser.add_argument("--run", default="", metavar="ID", help="only of this run")
    parser.add_argument("--layer", choices=[layer.value for layer in Layer], help="only what this layer refused")
    parser.add_argument("--since", type=since, metavar="WHEN", help="a duration (10m, 2h) or a time (2026-01-31T12:00)")
    parser.add_argument("--follow", action="store_true", help="go on with new ones, within a second, until interrupted")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, ASCII only")
    parser.epilog = (
        "exit code 0: the log was read, also when nothing was refused; 2: wrong words; "
        "3: no log there, or it can't be read; 130: interrupted (the usual end of --follow)"
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which denials; "" and None: any."""

    agent: str = ""
    run: str = ""
    layer: str | None = None
    since: datetime | None = None

    def __contains__(self, envelope: Envelope) -> bool:
        denied = cast(OperationDenied, envelope.event)
        return (
            (not self.run or envelope.run == self.run)
            and (self.layer is None or denied.denial.layer.value == self.layer)
            and (self.since is None or envelope.at >= self.since)
        )

    def of(self, envelopes: Iterable[Envelope]) -> list[Envelope]:
        return [each for each in envelopes if isinstance(each.event, OperationDenied) and each in self]


def execute(args: argparse.Namespace) -> int:
    return on_hosts(args, _far) if args.host else _near(args)


def _near(args: argparse.Namespace) -> int:
    """From the state folder: also of a runtime that is gone."""
    wanted = _wanted(args)
    with LogTail(state_dir_of(args)) as log:

        def news() -> list[Envelope]:
            return wanted.of(log.read_on(kinds=(KIND,), agent=wanted.agent or None))

        printer = _begin(args, news())
        while args.follow:
            time.sleep(FOLLOW_S)
            printer.show(news())
    return ExitCode.OK


async def _far(args: argparse.Namespace) -> int:
    wanted = _wanted(args)
    async with attached(args) as client:
        head = (await client.snapshot()).seq
        found: list[Envelope] = []
        agent = AgentName(wanted.agent) if wanted.agent else None
        async with aclosing(read_log(client, ReadEvents(before_seq=head + 1, kinds=(KIND,), agent=agent))) as pages:
            async for page in pages:
                found += wanted.of(page)
        printer = _begin(args, found)
        if args.follow:
            async with aclosing(follow_log(client, head, (KIND,))) as live:
                async for batch in live:
                    printer.show(wanted.of(each for each in batch if agent is None or each.agent == agent))
    return ExitCode.OK


def _wanted(args: argparse.Namespace) -> Wanted:
    return Wanted(args.agent, args.run, args.layer, args.since)


def _begin(args: argparse.Namespace, found: list[Envelope]) -> JsonLines | Table:
    """Show those that are there already."""
    printer = JsonLines(sys.stdout) if args.json else Table(sys.stdout, found, heading=bool(found) or args.follow)
    printer.show(found)
    if not found and not args.json and not args.follow:
        print("nothing was refused", file=sys.stderr)
    return printer


def as_json(envelope: Envelope) -> dict[str, Any]:
    """Stable names. `task` counts from 0, null outside of a task; `count`: how many equal denials this one is for."""
    denied = cast(OperationDenied, envelope.event)
    denial, operation = denied.denial, denied.denial.operation
    return {
        "seq": envelope.seq,
        "at": envelope.at.isoformat(),
        "host": envelope.host,
        "agent": envelope.agent,
        "run": envelope.run,
        "task": denied.task if denied.task >= 0 else None,
        **facts_of(denial),
        "tool": operation.tool,
        "call": operation.call,
        "count": denied.count,
    }


class JsonLines:
    def __init__(self, out: TextIO) -> None:
        self._out = out

    def show(self, envelopes: Iterable[Envelope]) -> None:
        for envelope in envelopes:
            # ASCII only: no line separator, direction mark or control character of a file's name gets out.
            self._out.write(json.dumps(as_json(envelope), ensure_ascii=True) + "\n")
        self._out.flush()


class Table:
    """Columns as wide as the first rows need; a later, longer word moves its own row only."""

    def __init__(self, out: TextIO, first: Iterable[Envelope], *, heading: bool) -> None:
        self._out = out
        self._style = Style(out)
        titles = [title for title, _ in _COLUMNS]
        self._widths = [least for _, least in _COLUMNS]
        for cells in map(_cells, first):
            self._widths = [max(pair) for pair in zip(self._widths[:-1], map(len, cells), strict=False)] + [0]
        if heading:
            self._line(titles, "bold")

    def show(self, envelopes: Iterable[Envelope]) -> None:
        for envelope in envelopes:
            self._line(_cells(envelope), "")
        self._out.flush()

    def _line(self, cells: list[str], style: str) -> None:
        text = "  ".join(cell.ljust(width) for cell, width in zip(cells, self._widths, strict=True)).rstrip()
        print(self._style(style, text) if style else text, file=self._out)


def _cells(envelope: Envelope) -> list[str]:
    denied = cast(OperationDenied, envelope.event)
    denial, operation = denied.denial, denied.denial.operation
    cells = (
        f"{envelope.at.astimezone():%Y-%m-%d %H:%M:%S}",
        envelope.agent or "",
        envelope.run or "",
        str(denied.task + 1) if denied.task >= 0 else "",
        f"×{denied.count}" if denied.count > 1 else "",
        denial.layer.value,
        operation.kind.value,
        denial.capability or "—",
        denial.rule,
        operation.tool,
        operation.call,
        operation.target,
    )
    return [clean(cell) for cell in cells]
