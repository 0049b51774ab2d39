"""`ps` and `top`: the agents of a runtime that serves, once or again and again."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
from collections.abc import Iterable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.cli.attach import add_attach_arguments, attached
from toka_runtime.cli.exit_codes import ExitCode
from toka_runtime.cli.fanout import on_hosts
from toka_runtime.cli.render import Style, clean
from toka_runtime.cli.summary import COLOURS, clock_text, took
from toka_runtime.client.attached import AttachedClient
from toka_runtime.client.base import LinkState, Resync
from toka_runtime.protocol.fold import fold
from toka_runtime.protocol.snapshot import AgentView, FleetState

_HEAD = ("AGENT", "STATE", "RUN", "PID", "TASKS", "CPU", "MEM", "PROCS", "TOKENS", "COST", "DENIED", "TIME", "WHY")
_CLEAR = "\x1b[H\x1b[2J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_attach_arguments(parser)
    if parser.get_default("verb") == "top":
        parser.add_argument("--interval", type=float, default=1.0, metavar="S", help="seconds between two pictures (1)")
        parser.add_argument("-n", "--count", type=int, default=0, metavar="N", help="end after so many (0: never)")
    parser.epilog = "exit code 0: told; 2: wrong words; 3: no runtime there; 130: interrupted (the usual end of top)"


def execute(args: argparse.Namespace) -> int:
    return on_hosts(args, _top if args.verb == "top" else _ps)


async def _ps(args: argparse.Namespace) -> int:
    async with attached(args) as client:
        _show(await client.snapshot(), as_json=args.json)
    return ExitCode.OK


async def _top(args: argparse.Namespace) -> int:
    async with attached(args) as client:
        watch = Watch(client, await client.snapshot())
        following = spawn(watch.follow(), name="follow")
        try:
            shown = 0
            while True:
                if sys.stdout.isatty() and not args.json:
                    print(_CLEAR, end="")
                    print(clean(f"{client.host} · {client.link.state} {client.link.detail}"))
                busiest = sorted(watch.state.agents.values(), key=lambda view: -view.usage.cpu_fraction)
                _show(watch.state, busiest, as_json=args.json)
                shown += 1
                if shown == args.count or (following.done() and client.link.state is not LinkState.UP):
                    break
                await asyncio.sleep(max(0.1, args.interval))
        finally:
            await cancel_and_wait(following)
    return ExitCode.OK


class Watch:
    """The fleet as it stands, kept up to date."""

    def __init__(self, client: AttachedClient, state: FleetState) -> None:
        self.state = state
        self._client = client

    async def follow(self) -> None:
        async with aclosing(self._client.events(self.state.seq)) as batches:
            async for batch in batches:
                self.state = batch.state if isinstance(batch, Resync) else fold(self.state, batch)


def _show(state: FleetState, views: Iterable[AgentView] | None = None, *, as_json: bool) -> None:
    shown = list(state.agents.values() if views is None else views)
    if as_json:
        for view in shown:
            print(json.dumps(as_object(view)), flush=True)
        return
    style = Style(sys.stdout)
    rows = [_row(view) for view in shown]
    widths = [max(map(len, column)) for column in zip(_HEAD, *rows, strict=True)]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    print(style("bold", _aligned(_HEAD, widths, width)))
    for view, row in zip(shown, rows, strict=True):
        print(style(COLOURS.get(view.state, "bold"), _aligned(row, widths, width)), flush=True)


def _aligned(row: tuple[str, ...], widths: list[int], width: int) -> str:
    line = "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()
    return line if not width or len(line) <= width else line[: width - 1] + "…"


def _row(view: AgentView) -> tuple[str, ...]:
    time = took(view, datetime.now(UTC))
    why = " ".join(f"{_health(view)} {view.reason} {view.detail} {', '.join(view.blockers)}".split())
    return (
        clean(view.name),
        view.state.value,
        view.run or "–",
        str(view.process.pid) if view.process else "–",
        f"{view.tasks_done}/{len(view.tasks)}",
        f"{view.usage.cpu_fraction:.0%}",
        f"{view.usage.memory_bytes / 2**20:.1f}M",
        str(view.usage.processes),
        f"{view.tokens.total_tokens:,}",
        f"${view.cost_usd:.2f}",
        str(view.denials),
        "–" if time is None else clock_text(time.total_seconds()),
        clean(why),
    )


def _health(view: AgentView) -> str:
    """`stalled 3m: model silent`, `waiting for quota 12 s`; "" when there is nothing to say."""
    now = datetime.now(UTC)
    if view.quota_at is not None and now < view.quota_at:
        return f"waiting for quota {(view.quota_at - now).total_seconds():.0f} s"
    return view.health.text(now) if view.health is not None else ""


def as_object(view: AgentView) -> dict[str, Any]:
    """Stable names; times in ISO 8601, sizes in bytes."""
    return {
        "host": view.host,
        "agent": view.name,
        "state": view.state.value,
        "reason": view.reason.value,
        "detail": view.detail,
        "blockers": list(view.blockers),
        "run": view.run,
        "attempt": view.attempt,
        "pid": view.process.pid if view.process else None,
        "since": view.since.isoformat(),
        "tasks": len(view.tasks),
        "tasks_done": view.tasks_done,
        "tasks_verified": view.tasks_verified,
        "cpu_fraction": view.usage.cpu_fraction,
        "memory_bytes": view.usage.memory_bytes,
        "processes": view.usage.processes,
        "tokens": view.tokens.total_tokens,
        "cost_usd": view.cost_usd,
        "unpriced_calls": view.unpriced_calls,
        "denials": view.denials,
        "health": view.health.level.value if view.health is not None else "ok",
        "health_reason": view.health.reason.value if view.health is not None else "",
        "health_since": view.health.since.isoformat() if view.health is not None else None,
        "workspace": view.workspace_path,
        "branch": view.branch,
    }
