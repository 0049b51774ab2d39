"""`evidence`: all that is known of agents in one file, and whether such a file is as it was made."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

from toka_runtime.cli.attach import add_attach_arguments, attached, operator
from toka_runtime.cli.exit_codes import ExitCode
from toka_runtime.cli.fanout import on_hosts
from toka_runtime.cli.render import clean, counted
from toka_runtime.errors import UsageError
from toka_runtime.protocol.ids import AgentName


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_attach_arguments(parser)
    parser.add_argument("verify", nargs="?", choices=("verify",), metavar="verify", help="check FILE instead")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a bundle, on any machine")
    parser.add_argument("--agent", nargs="+", action="extend", default=[], metavar="NAME", help="of whom (repeatable)")
    parser.add_argument(
        "--incident", type=Path, metavar="FILE", help="of the agents of this incident, which the console has kept"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="where to (default: evidence-AGENT-TIME.tar.gz, here)"
    )
    parser.epilog = (
        "A bundle has spec and rights, the agent's part of the log, the whole transcript with tool calls, output, "
        "processes, protections, git diff, what operators did, REPORT.md and a manifest. It is only read from the "
        "runtime, and written whole or not at all, for you alone, never over another file. "
        "exit code 0: written, or verified; 1: not as it was made, or not to be had; 2: wrong words, or no such file; "
        "3: no runtime there, or it cannot be written"
    )


def execute(args: argparse.Namespace) -> int:
    if args.verify:
        return _verify(args)
    if args.host and len(args.host) > 1:
        raise UsageError("a bundle is of one host here", hint="one --host; the console takes marked agents of several")
    if bool(args.agent) == bool(args.incident):
        raise UsageError("evidence of whom?", hint="--agent NAME…, or --incident FILE; evidence verify FILE checks one")
    return on_hosts(args, _write)


async def _write(args: argparse.Namespace) -> int:
    # Imported here: verifying needs none of it.
    from toka_runtime.client.evidence.collect import Subject, write_bundle
    from toka_runtime.client.evidence.place import file_name
    from toka_runtime.client.evidence.report import About
    from toka_runtime.client.incident import read_incident

    incident = read_incident(args.incident) if args.incident else None
    about = About(datetime.now(UTC), operator(), incident)
    async with attached(args) as client:
        pinned = [pin.agent for pin in incident.agents if pin.host == client.host] if incident else []
        agents = tuple(AgentName(name) for name in args.agent or pinned)
        if not agents:
            raise UsageError(f"the incident has no agent on {client.host}", hint="--host, --socket or --state-dir")
        path = args.output or Path(file_name(agents, about.at))
        try:
            done = await write_bundle(path, [Subject(client, agents)], about)
        except FileExistsError as error:
            raise UsageError(f"{path} is there already; nothing was written", hint="-o another file") from error
    if args.json:
        facts = {"file": str(done.path), "files": done.files, "bytes": done.bytes, "sha256": done.digest}
        print(json.dumps(facts | {"missing": done.missing}))
        return ExitCode.OK
    print(clean(f"wrote {done.path}: {counted(done.files, 'file')}, {done.bytes:,} bytes, sha256 {done.digest}"))
    for line in done.missing:
        print(clean(f"not in it: {line}"))
    return ExitCode.OK


def _verify(args: argparse.Namespace) -> int:
    from toka_runtime.client.evidence.verify import verify_bundle

    if args.file is None:
        raise UsageError("verify what?", hint="toka-runtime evidence verify FILE")
    try:
        verdict = verify_bundle(args.file)
    except OSError as error:
        raise UsageError(f"{args.file} cannot be read: {error.strerror or error}") from error
    if args.json:
        facts = {"ok": not verdict.problems, "problems": verdict.problems, "sha256": verdict.digest}
        print(json.dumps(facts | {"proof": verdict.proof, "files": verdict.files, "about": verdict.about}))
    elif verdict.problems:
        for problem in verdict.problems:
            print(clean(f"{args.file}: {problem}"))
    else:
        facts = f"{counted(verdict.files, 'file')}, {verdict.bytes:,} bytes, sha256 {verdict.digest}"
        print(clean(f"{args.file}: as it was sealed; {facts}; proof of the audit log: {verdict.proof}"))
    return ExitCode.FAILED if verdict.problems else ExitCode.OK
