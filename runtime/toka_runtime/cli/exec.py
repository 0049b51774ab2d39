"""`toka-runtime exec`: one command under exactly the walls, proxy and limits of an agent.

The command itself is the operator's: who typed it may run it. What it *does* (files, network, environment, limits) is
what the spec or the named capabilities allow, by default almost nothing. That makes one rule for both uses: as a
sandbox, `exec -- COMMAND` needs no list of programs; as a test of a policy, the spec's walls stand around any probe.
With `--strict` the command line, too, is decided as if the agent had asked its run_command tool for it.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from toka_runtime.cli.exit_codes import EXEC_MEANING, ExecCode, exit_codes_text
from toka_runtime.cli.render import clean
from toka_runtime.client.arguments import add_catalogue_argument
from toka_runtime.errors import SpecError, TokaError, UsageError, WorkspaceError
from toka_runtime.specs.units import parse_duration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument("--spec", type=Path, metavar="FILE", help="the rights and limits of this file's agent")
    whose.add_argument(
        "--capability",
        action="append",
        default=[],
        metavar="NAME[:SCOPE]",
        help="instead of a spec, as often as needed: filesystem-read, filesystem-write:docs/**, …",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="decide the command line, too, by these rights, as for an agent that asks for it "
        "(without: the command is yours, what it does is under the walls)",
    )
    parser.add_argument(
        "--workspace", type=Path, metavar="DIR", help="the folder it works in, itself and no copy (default: this one)"
    )
    parser.add_argument(
        "--denials", metavar="FILE|-", help="append what is refused, one JSON object a line, at once; -: standard error"
    )
    parser.add_argument("--json", action="store_true", help="at the end one JSON object on standard error")
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="pass this variable on, or set it; nothing else of your environment but PATH is seen",
    )
    parser.add_argument("--timeout", type=_seconds, metavar="TIME", help="end it after so long: 10, 90s, 5m")
    add_catalogue_argument(parser)
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND …")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = exit_codes_text(EXEC_MEANING)


def _seconds(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except SpecError as error:
        raise argparse.ArgumentTypeError(error.message) from None
    if seconds <= 0:
        raise argparse.ArgumentTypeError("more than 0")
    return seconds


def execute(args: argparse.Namespace) -> int:
    command: list[str] = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise UsageError("there is no command", hint="toka-runtime exec [OPTIONS] -- COMMAND …")
    try:
        return _execute(args, command)
    except TokaError as error:
        print(f"error [{error.code}]: {clean(error.message)}", file=sys.stderr)
        if error.hint:
            print(f"  {clean(error.hint)}", file=sys.stderr)
        return ExecCode.NOT_STARTED


def _execute(args: argparse.Namespace, command: list[str]) -> int:
    workspace = _workspace(args.workspace)
    environment = dict(_variable(text) for text in args.env)
    from toka_runtime.cli.exec_start import begin

    with begin() as start:
        # Only now: most of a start is these imports, and the fork server loads beside them.
        from toka_runtime.cli.exec_report import Report
        from toka_runtime.cli.exec_rights import check_words, explain, refusals, spec_of, with_command
        from toka_runtime.cli.exec_session import Order, run_order
        from toka_runtime.policy.catalogue import load_catalogue, operators_files
        from toka_runtime.policy.rules import compile_rights

        catalogue = load_catalogue(operators_files(args.catalogue, (workspace,)))
        spec = spec_of(args.spec, args.capability)
        rights = compile_rights(spec, catalogue)
        check_words(rights, args.spec)
        with Report(args.denials, spec.name) as report:
            if args.strict and (denials := refusals(command, rights, catalogue, str(workspace))):
                for denial in denials:
                    report.denied(denial)
                    explain(denial)
                return report.summary(ExecCode.REFUSED) if args.json else ExecCode.REFUSED
            order = Order(
                spec=spec,
                rights=with_command(rights, command, catalogue),
                catalogue=catalogue,
                workspace=workspace,
                command=tuple(command),
                environment=environment,
                timeout_s=min(filter(None, (args.timeout, spec.security.limits.timeout_s)), default=None),
            )
            code = run_order(order, report, start)
            return report.summary(code) if args.json else code


def _workspace(named: Path | None) -> Path:
    folder = (named or Path.cwd()).resolve()
    if not folder.is_dir():
        raise WorkspaceError(f"{folder} is not a folder", hint="name the folder to work in with --workspace")
    if folder == Path(folder.anchor) or (named is None and Path.home().resolve().is_relative_to(folder)):
        raise UsageError(
            f"{folder} is not to be opened to a sandboxed command as a whole",
            hint="go to a project's folder, or name one with --workspace",
        )
    return folder


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name.replace("_", "a").isalnum() or name[0].isdigit():
        raise UsageError(f"{name!r} is no name of an environment variable")
    if not equals and name not in os.environ:
        raise UsageError(f"--env {name}: it is not set here", hint=f"give it a value: --env {name}=VALUE")
    return name, value if equals else os.environ[name]
