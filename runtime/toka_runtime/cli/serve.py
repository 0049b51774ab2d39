"""`toka-runtime serve`: a runtime that goes on without a front end; consoles and verbs attach to its socket."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.cli.exit_codes import ExitCode
from toka_runtime.cli.render import clean
from toka_runtime.cli.validate import print_problems
from toka_runtime.client.arguments import add_local_arguments, local_arguments, wrong_argument
from toka_runtime.client.endpoint import SOCKET_NAME
from toka_runtime.client.local import LocalClient, LocalOptions, load_specs, open_local
from toka_runtime.errors import UsageError
from toka_runtime.protocol.commands import CommandRequest, StartFleet
from toka_runtime.protocol.ids import new_command_id
from toka_runtime.server.daemon import Daemon
from toka_runtime.server.served_before import remember
from toka_runtime.specs.loader import LoadReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_local_arguments(parser)
    parser.add_argument("--socket", type=Path, metavar="PATH", help="where to listen (default: in the state folder)")
    parser.add_argument("--start", action="store_true", help="start the fleet at once")
    parser.add_argument("--json", action="store_true", help="say where it serves as one JSON object")
    parser.epilog = (
        "Serves until SIGINT, SIGTERM or SIGHUP, which stop its agents in order. The socket has mode 0600. "
        "Attach with toka-console --attach, or with the verbs ps, start, pause, kill …"
    )


def execute(args: argparse.Namespace) -> int:
    if wrong := wrong_argument(args):
        raise UsageError(wrong)
    options = LocalOptions(**local_arguments(args))
    report = load_specs(options)
    if not report.ok:
        print_problems(report, sys.stderr)
        print("nothing was started", file=sys.stderr)
        return ExitCode.USAGE
    return asyncio.run(_serve(options, report, args))


async def _serve(options: LocalOptions, report: LoadReport, args: argparse.Namespace) -> int:
    ended = asyncio.Event()
    failures: list[BaseException] = []

    def failed(_name: str, error: BaseException) -> None:
        failures.append(error)
        ended.set()

    loop = asyncio.get_running_loop()
    client = await open_local(options, report)
    daemon = Daemon(client, args.socket or client.supervisor.options.state_dir / SOCKET_NAME, failed)
    try:
        await daemon.open()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, ended.set)
        options_made = client.supervisor.options
        remember(options_made.state_dir, args.words, options_made.gateway.provider)
        _say(client, daemon, as_json=args.json)
        if args.start:
            await client.send(CommandRequest(id=new_command_id("serve"), actor="cli (serve)", command=StartFleet()))
        waiting = spawn(ended.wait(), name="until a signal")
        try:
            await asyncio.wait([waiting])
        finally:
            await cancel_and_wait(waiting)
    finally:
        # The stream ends first: front ends take in the stop of every agent before they lose the socket.
        await client.aclose("the runtime was told to end")
        await daemon.aclose()
    if failures:
        raise failures[0]
    return ExitCode.OK


def _say(client: LocalClient, daemon: Daemon, *, as_json: bool) -> None:
    options = client.supervisor.options
    if as_json:
        place = {
            "socket": str(daemon.path),
            "host": client.host,
            "pid": os.getpid(),
            "state_dir": str(options.state_dir),
            "agents": len(client.supervisor.agents),
        }
        print(json.dumps(place), flush=True)
        return
    if options.provider_note:
        print(clean(options.provider_note), file=sys.stderr)
    print(
        f"serving {len(client.supervisor.agents)} agents at {clean(str(daemon.path))} (pid {os.getpid()})", flush=True
    )
